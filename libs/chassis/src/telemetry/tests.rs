//! What travels with a trace, and what lines say of it.

use std::io::Write;
use std::sync::{Arc, Mutex};

use http::HeaderMap;
use tracing::{Span, info_span};

use super::*;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs with spans that are recorded and lines that are kept; returns the lines.
fn traced(work: impl FnOnce()) -> String {
    let lines = Lines::default();
    let kept = lines.clone();
    let provider = SdkTracerProvider::builder().build();
    let spans = tracing_opentelemetry::layer().with_tracer(provider.tracer("test")).with_filter(filter_fn(is_ours));
    let writing = fmt::layer().event_format(json::Json).with_writer(move || kept.clone());
    tracing::subscriber::with_default(tracing_subscriber::registry().with(spans).with(writing), work);
    let bytes = lines.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

fn header(headers: &HeaderMap) -> &str {
    headers.get("traceparent").map_or("", |value| value.to_str().unwrap())
}

#[test]
fn a_span_continues_what_its_caller_says_and_passes_itself_on() {
    traced(|| {
        let headers: HeaderMap = [("traceparent".parse().unwrap(), PARENT.parse().unwrap())].into_iter().collect();
        let span = Parent::from_headers(&headers).adopt(info_span!("call"));
        let mut onward = HeaderMap::new();
        inject(&span, &mut onward);
        let (passed, given) = (header(&onward), PARENT);
        assert_eq!((&passed[..36], &passed[53..]), (&given[..36], "01"), "the same trace");
        assert_ne!(passed[36..52], given[36..52], "another span");
        let pairs = span.in_scope(current);
        assert_eq!(pairs, [("traceparent".to_owned(), passed.to_owned())]);
        let span = Parent::from_pairs(&pairs).adopt(info_span!("event"));
        assert_eq!(span.in_scope(trace_id).unwrap(), given[3..35]);
    });
}

#[test]
fn nothing_valid_is_the_beginning_of_a_trace() {
    traced(|| {
        let span = Parent::from_pairs(&[("traceparent".to_owned(), "nonsense".to_owned())]).adopt(info_span!("call"));
        assert!(span.in_scope(trace_id).is_some());
        assert_eq!(trace_id(), None);
        assert!(current().is_empty());
    });
}

#[test]
fn a_call_outside_a_trace_says_that_nobody_need_follow_it() {
    traced(|| {
        let mut headers = HeaderMap::new();
        inject_unfollowed(&mut headers);
        assert!(header(&headers).ends_with("-00"), "{headers:?}");
    });
    let mut headers = HeaderMap::new();
    inject(&Span::none(), &mut headers);
    assert!(headers.is_empty());
}

#[test]
fn a_line_names_the_trace_it_was_written_in() {
    let lines = traced(|| {
        tracing::info!(job = "trainingJobs/a", attempt = 2, "job begins");
        let span = Parent::from_pairs(&[("traceparent".to_owned(), PARENT.to_owned())]).adopt(info_span!("work"));
        span.in_scope(|| tracing::warn!("slow"));
    });
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["message"], &lines[0]["attempt"]), (&"job begins".into(), &2.into()));
    assert!(lines[0].get("trace_id").is_none());
    assert_eq!((&lines[1]["level"], &lines[1]["trace_id"]), (&"WARN".into(), &PARENT[3..35].into()));
    assert_eq!(lines[1]["span_id"].as_str().unwrap().len(), 16);
}

#[test]
fn wrong_settings_are_named() {
    let settings = |endpoint: &str, ratio| Telemetry {
        filter: "info".to_owned(),
        format: "json".to_owned(),
        otlp_endpoint: endpoint.to_owned(),
        trace_sample_ratio: ratio,
    };
    let wrong = init(&settings("collector:4317", 1.0), "test").unwrap_err();
    assert!(wrong.contains("telemetry.otlp_endpoint") && wrong.contains("http://"), "{wrong}");
    let wrong = init(&settings("", 1.5), "test").unwrap_err();
    assert!(wrong.contains("telemetry.trace_sample_ratio"), "{wrong}");
}
