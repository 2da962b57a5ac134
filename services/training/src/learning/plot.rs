//! The loss curve as a small SVG picture; the same points give the same bytes.

mod frame;

pub(crate) use frame::Frame;

use super::Point;

const TRAINING_COLOUR: &str = "#2563eb";
const VALIDATION_COLOUR: &str = "#dc2626";

/// Training and validation loss over steps.
pub fn loss_plot(points: &[Point]) -> String {
    let training: Vec<(f64, f64)> = points.iter().map(|point| (point.step as f64, f64::from(point.loss))).collect();
    let validation: Vec<(f64, f64)> = points
        .iter()
        .filter_map(|point| point.validation_loss.map(|loss| (point.step as f64, f64::from(loss))))
        .collect();
    let mut frame = Frame::around(training.iter().chain(&validation), "step", "loss (nats a token)");
    for (name, colour, points) in
        [("training", TRAINING_COLOUR, &training), ("validation", VALIDATION_COLOUR, &validation)]
    {
        if !points.is_empty() {
            frame.line(points, colour);
            frame.name(name, colour);
        }
    }
    for point in &validation {
        frame.dot(*point, 2.5, VALIDATION_COLOUR, true);
    }
    frame.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn point(step: u64, loss: f32, validation_loss: Option<f32>) -> Point {
        Point { step, loss, validation_loss, learning_rate: 0.1, gradient_norm: 1.0, figures: BTreeMap::new() }
    }

    #[test]
    fn the_picture_shows_both_curves() {
        let points = [point(100, 4.0, None), point(200, 3.0, Some(3.5)), point(300, 2.0, Some(2.5))];
        let svg = loss_plot(&points);
        assert_eq!(svg, loss_plot(&points));
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.contains(">training<") && svg.contains(">validation<") && svg.contains(">300<"), "{svg}");
    }

    #[test]
    fn a_run_without_points_or_with_one_still_gives_a_picture() {
        assert!(loss_plot(&[]).ends_with("</svg>\n"));
        assert!(loss_plot(&[point(1, 3.0, None)]).contains("<polyline"));
        assert!(!loss_plot(&[point(1, f32::NAN, None), point(2, 1.0, None)]).contains("NaN"));
    }
}
