//! The loss curve as a small SVG picture; the same points give the same bytes.

use std::fmt::Write as _;

use super::Point;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 52.0;
const TRAINING_COLOUR: &str = "#2563eb";
const VALIDATION_COLOUR: &str = "#dc2626";

/// Training and validation loss over steps.
pub fn loss_plot(points: &[Point]) -> String {
    let training: Vec<(f64, f64)> = points.iter().map(|point| (point.step as f64, f64::from(point.loss))).collect();
    let validation: Vec<(f64, f64)> = points
        .iter()
        .filter_map(|point| point.validation_loss.map(|loss| (point.step as f64, f64::from(loss))))
        .collect();
    let axes = Axes::around(training.iter().chain(&validation));
    let mut svg = String::new();
    let mut line = |text: String| {
        svg.push_str(&text);
        svg.push('\n');
    };
    line(format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">"#
    ));
    line(format!(r#"<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>"#));
    for value in ticks(axes.low_y, axes.high_y) {
        let y = axes.y(value);
        line(format!(r##"<line x1="{LEFT}" y1="{y:.1}" x2="{:.1}" y2="{y:.1}" stroke="#e5e7eb"/>"##, WIDTH - RIGHT));
        line(format!(r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#, LEFT - 6.0, y + 4.0, label(value)));
    }
    for value in ticks(axes.low_x, axes.high_x) {
        let (x, y) = (axes.x(value), HEIGHT - BOTTOM);
        line(format!(r##"<line x1="{x:.1}" y1="{y:.1}" x2="{x:.1}" y2="{:.1}" stroke="#6b7280"/>"##, y + 5.0));
        line(format!(r#"<text x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text>"#, y + 19.0, label(value)));
    }
    line(format!(
        r##"<path d="M{LEFT} {TOP}V{:.1}H{:.1}" fill="none" stroke="#6b7280"/>"##,
        HEIGHT - BOTTOM,
        WIDTH - RIGHT
    ));
    line(format!(
        r#"<text x="{:.1}" y="{:.1}" text-anchor="middle">step</text>"#,
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 12.0
    ));
    line(format!(
        r#"<text x="16" y="{:.1}" text-anchor="middle" transform="rotate(-90 16 {:.1})">loss (nats a token)</text>"#,
        (TOP + HEIGHT - BOTTOM) / 2.0,
        (TOP + HEIGHT - BOTTOM) / 2.0
    ));
    for (index, (name, colour, points)) in
        [("training", TRAINING_COLOUR, &training), ("validation", VALIDATION_COLOUR, &validation)].iter().enumerate()
    {
        if points.is_empty() {
            continue;
        }
        line(format!(
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="1.5"/>"#,
            path(&axes, points)
        ));
        let x = LEFT + 12.0 + 110.0 * index as f64;
        line(format!(r#"<line x1="{x:.1}" y1="22" x2="{:.1}" y2="22" stroke="{colour}" stroke-width="2"/>"#, x + 18.0));
        line(format!(r#"<text x="{:.1}" y="26">{name}</text>"#, x + 24.0));
    }
    for (x, y) in &validation {
        let (x, y) = (axes.x(*x), axes.y(*y));
        line(format!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="2.5" fill="{VALIDATION_COLOUR}"/>"#));
    }
    svg.push_str("</svg>\n");
    svg
}

/// The range of data that the picture shows.
struct Axes {
    low_x: f64,
    high_x: f64,
    low_y: f64,
    high_y: f64,
}

impl Axes {
    fn around<'a>(points: impl Iterator<Item = &'a (f64, f64)>) -> Self {
        let mut axes = Self { low_x: 0.0, high_x: 1.0, low_y: f64::INFINITY, high_y: f64::NEG_INFINITY };
        for (x, y) in points.filter(|(_, y)| y.is_finite()) {
            axes.high_x = axes.high_x.max(*x);
            axes.low_y = axes.low_y.min(*y);
            axes.high_y = axes.high_y.max(*y);
        }
        if axes.low_y > axes.high_y {
            (axes.low_y, axes.high_y) = (0.0, 1.0);
        }
        let margin = (0.05 * (axes.high_y - axes.low_y)).max(0.01);
        (axes.low_y, axes.high_y) = ((axes.low_y - margin).max(0.0), axes.high_y + margin);
        axes
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + (value - self.low_x) / (self.high_x - self.low_x) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - (value - self.low_y) / (self.high_y - self.low_y) * (HEIGHT - TOP - BOTTOM)
    }
}

fn path(axes: &Axes, points: &[(f64, f64)]) -> String {
    let mut text = String::new();
    for (x, y) in points.iter().filter(|(_, y)| y.is_finite()) {
        let separator = if text.is_empty() { "" } else { " " };
        write!(text, "{separator}{:.1},{:.1}", axes.x(*x), axes.y(*y)).expect("writing to a string cannot fail");
    }
    text
}

/// At most nine round values inside a range.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low) / 8.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(10.0 * power);
    let first = (low / step).ceil() as i64;
    let last = (high / step).floor() as i64;
    (first..=last).map(|index| index as f64 * step).collect()
}

/// A number without needless zeros.
fn label(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn point(step: u64, loss: f32, validation_loss: Option<f32>) -> Point {
        Point { step, loss, validation_loss, learning_rate: 0.1, gradient_norm: 1.0, figures: BTreeMap::new() }
    }

    #[test]
    fn the_picture_shows_both_curves_inside_its_frame() {
        let points = [point(100, 4.0, None), point(200, 3.0, Some(3.5)), point(300, 2.0, Some(2.5))];
        let svg = loss_plot(&points);
        assert_eq!(svg, loss_plot(&points));
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.contains(">training<") && svg.contains(">validation<") && svg.contains(">300<"), "{svg}");
        let curve = svg.split("<polyline points=\"").nth(1).unwrap().split('"').next().unwrap();
        for pair in curve.split(' ') {
            let (x, y) = pair.split_once(',').unwrap();
            assert!((LEFT..=WIDTH - RIGHT).contains(&x.parse().unwrap()), "{pair}");
            assert!((TOP..=HEIGHT - BOTTOM).contains(&y.parse().unwrap()), "{pair}");
        }
    }

    #[test]
    fn a_run_without_points_or_with_one_still_gives_a_picture() {
        assert!(loss_plot(&[]).ends_with("</svg>\n"));
        assert!(loss_plot(&[point(1, 3.0, None)]).contains("<polyline"));
        assert!(!loss_plot(&[point(1, f32::NAN, None), point(2, 1.0, None)]).contains("NaN"));
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks(0.0, 8.0), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        for (low, high) in [(0.0, 1.0), (2.31, 2.4), (0.0, 2000.0), (0.0, 1234.0)] {
            let ticks = ticks(low, high);
            assert!((3..=9).contains(&ticks.len()), "{ticks:?}");
        }
        assert_eq!((label(2.0), label(2.25), label(1000.0)), ("2".to_owned(), "2.25".to_owned(), "1000".to_owned()));
    }
}
