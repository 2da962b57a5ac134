//! Figures, times and digests in a few characters.

use jiff::Timestamp;
use tidemill_proto::r#type::v1::State;

/// A digest short enough for a table; `lineage` and `get` take it as it is.
pub(crate) fn digest(digest: &str) -> String {
    match digest.strip_prefix("sha256:") {
        Some(hex) => format!("sha256:{}", hex.get(..12).unwrap_or(hex)),
        None if digest.is_empty() => "-".to_owned(),
        None => digest.to_owned(),
    }
}

/// How long ago.
pub(crate) fn ago(time: Option<&prost_types::Timestamp>) -> String {
    let Some(time) = time else { return "-".to_owned() };
    format!("{} ago", span((Timestamp::now().as_second() - time.seconds).max(0)))
}

/// Seconds as people say them.
pub(crate) fn span(seconds: i64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Seconds between two times; until now where the second is absent.
pub(crate) fn between(start: Option<&prost_types::Timestamp>, end: Option<&prost_types::Timestamp>) -> Option<f64> {
    let end = end.map_or_else(|| Timestamp::now().as_millisecond() as f64 / 1e3, seconds);
    Some((end - seconds(start?)).max(0.0))
}

/// Seconds since 1970.
pub(crate) fn seconds(time: &prost_types::Timestamp) -> f64 {
    time.seconds as f64 + f64::from(time.nanos) / 1e9
}

/// A state in lower case.
pub(crate) fn state(state: State) -> &'static str {
    match state {
        State::Unspecified => "waiting",
        State::Pending => "pending",
        State::Running => "running",
        State::Succeeded => "done",
        State::Failed => "failed",
        State::Cancelled => "cancelled",
    }
}

/// A count with a letter for its size.
pub(crate) fn count(value: i64) -> String {
    match value {
        0..10_000 => value.to_string(),
        10_000..10_000_000 => format!("{:.1}k", value as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1}M", value as f64 / 1e6),
        _ => format!("{:.1}G", value as f64 / 1e9),
    }
}

/// The first words of a text, on one line.
pub(crate) fn excerpt(text: &str, characters: usize) -> String {
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if flat.chars().count() <= characters {
        return flat;
    }
    let short: String = flat.chars().take(characters.saturating_sub(1)).collect();
    format!("{short}…")
}

/// The last values of a curve as bars, at most `width` of them.
pub(crate) fn sparkline(values: &[f64], width: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let finite: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    if finite.len() < 2 || width == 0 {
        return String::new();
    }
    // The whole curve, thinned: its shape says more than its end.
    let shown = finite.len().min(width);
    let points: Vec<f64> = (0..shown).map(|at| finite[(at * (finite.len() - 1)) / (shown - 1).max(1)]).collect();
    let (low, high) = points.iter().fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(*v), high.max(*v)));
    let range = if high > low { high - low } else { 1.0 };
    points.iter().map(|value| BARS[(((value - low) / range) * 7.0).round() as usize]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_keeps_its_ends_and_its_shape() {
        let falling: Vec<f64> = (0..1000).map(|x| 10.0 - f64::from(x) / 100.0).collect();
        let line = sparkline(&falling, 10);
        assert_eq!((line.chars().count(), line.chars().next(), line.chars().last()), (10, Some('█'), Some('▁')));
        assert_eq!(sparkline(&[1.0], 10), "");
        assert_eq!(sparkline(&[1.0, f64::NAN, 1.0], 10), "▁▁");
    }

    #[test]
    fn figures_fit_into_a_column() {
        assert_eq!((span(59), span(61), span(7260)), ("59s".into(), "1m01s".into(), "2h01m".into()));
        assert_eq!((count(999), count(10_832_000)), ("999".into(), "10.8M".into()));
        assert_eq!(excerpt("a\nb  c d", 5), "a b …");
    }
}
