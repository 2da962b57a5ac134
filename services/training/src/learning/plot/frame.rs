//! The frame of a small SVG picture: axes with round values, lines and dots inside. The same points give the same bytes.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 52.0;

/// A picture that is being drawn.
pub(crate) struct Frame {
    axes: Axes,
    svg: String,
    names: usize,
}

impl Frame {
    /// Axes around all points, of which those whose y is no number are left out. What x counts comes in whole numbers.
    pub(crate) fn around<'a>(points: impl Iterator<Item = &'a (f64, f64)>, x_name: &str, y_name: &str) -> Self {
        let axes = Axes::around(points);
        let (x_ticks, y_ticks) = (ticks(axes.low_x, axes.high_x, 1.0), ticks(axes.low_y, axes.high_y, 0.0));
        let mut frame = Self { axes, svg: String::new(), names: 0 };
        frame.put(format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">"#
        ));
        frame.put(format!(r#"<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>"#));
        for value in y_ticks {
            let y = frame.axes.y(value);
            frame.put(format!(
                r##"<line x1="{LEFT}" y1="{y:.1}" x2="{:.1}" y2="{y:.1}" stroke="#e5e7eb"/>"##,
                WIDTH - RIGHT
            ));
            frame.put(format!(
                r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
                LEFT - 6.0,
                y + 4.0,
                label(value)
            ));
        }
        for value in x_ticks {
            let (x, y) = (frame.axes.x(value), HEIGHT - BOTTOM);
            frame.put(format!(r##"<line x1="{x:.1}" y1="{y:.1}" x2="{x:.1}" y2="{:.1}" stroke="#6b7280"/>"##, y + 5.0));
            frame.put(format!(r#"<text x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text>"#, y + 19.0, label(value)));
        }
        frame.put(format!(
            r##"<path d="M{LEFT} {TOP}V{:.1}H{:.1}" fill="none" stroke="#6b7280"/>"##,
            HEIGHT - BOTTOM,
            WIDTH - RIGHT
        ));
        frame.put(format!(
            r#"<text x="{:.1}" y="{:.1}" text-anchor="middle">{x_name}</text>"#,
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - 12.0
        ));
        frame.put(format!(
            r#"<text x="16" y="{:.1}" text-anchor="middle" transform="rotate(-90 16 {:.1})">{y_name}</text>"#,
            (TOP + HEIGHT - BOTTOM) / 2.0,
            (TOP + HEIGHT - BOTTOM) / 2.0
        ));
        frame
    }

    fn put(&mut self, text: String) {
        self.svg.push_str(&text);
        self.svg.push('\n');
    }

    /// A line through points.
    pub(crate) fn line(&mut self, points: &[(f64, f64)], colour: &str) {
        let path = path(&self.axes, points);
        self.put(format!(r#"<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>"#));
    }

    /// A dot, filled or as a ring.
    pub(crate) fn dot(&mut self, (x, y): (f64, f64), radius: f64, colour: &str, filled: bool) {
        let (x, y) = (self.axes.x(x), self.axes.y(y));
        let paint = match filled {
            true => format!(r#"fill="{colour}""#),
            false => format!(r#"fill="white" stroke="{colour}""#),
        };
        self.put(format!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="{radius}" {paint}/>"#));
    }

    /// What a colour means, above the picture; the names stand in the order in which they come.
    pub(crate) fn name(&mut self, name: &str, colour: &str) {
        let x = LEFT + 12.0 + 110.0 * self.names as f64;
        self.names += 1;
        self.put(format!(
            r#"<line x1="{x:.1}" y1="22" x2="{:.1}" y2="22" stroke="{colour}" stroke-width="2"/>"#,
            x + 18.0
        ));
        self.put(format!(r#"<text x="{:.1}" y="26">{name}</text>"#, x + 24.0));
    }

    /// The picture.
    pub(crate) fn finish(mut self) -> String {
        self.svg.push_str("</svg>\n");
        self.svg
    }
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
        // Losses do not go below zero, and neither does their axis.
        let floor = if axes.low_y < 0.0 { f64::NEG_INFINITY } else { 0.0 };
        (axes.low_y, axes.high_y) = ((axes.low_y - margin).max(floor), axes.high_y + margin);
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

/// At most nine round values inside a range, no nearer than `nearest`.
fn ticks(low: f64, high: f64, nearest: f64) -> Vec<f64> {
    let rough = ((high - low) / 8.0).max(nearest);
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
    use super::*;

    #[test]
    fn what_is_drawn_lies_inside_the_frame() {
        let points = [(100.0, 4.0), (200.0, -3.0), (300.0, 2.0)];
        let mut frame = Frame::around(points.iter(), "step", "reward");
        frame.line(&points, "red");
        frame.dot(points[1], 2.5, "red", false);
        let svg = frame.finish();
        let curve = svg.split("<polyline points=\"").nth(1).unwrap().split('"').next().unwrap();
        for pair in curve.split(' ') {
            let (x, y) = pair.split_once(',').unwrap();
            assert!((LEFT..=WIDTH - RIGHT).contains(&x.parse().unwrap()), "{pair}");
            assert!((TOP..=HEIGHT - BOTTOM).contains(&y.parse().unwrap()), "{pair}");
        }
        assert!(svg.contains(">300<") && svg.contains(">-2<") && svg.contains(">reward<"), "{svg}");
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks(0.0, 8.0, 0.0), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        assert_eq!(ticks(0.0, 3.0, 1.0), [0.0, 1.0, 2.0, 3.0]);
        for (low, high) in [(0.0, 1.0), (2.31, 2.4), (0.0, 2000.0), (0.0, 1234.0)] {
            let ticks = ticks(low, high, 0.0);
            assert!((3..=9).contains(&ticks.len()), "{ticks:?}");
        }
        assert_eq!((label(2.0), label(2.25), label(1000.0)), ("2".to_owned(), "2.25".to_owned(), "1000".to_owned()));
    }
}
