//! W3C trace context: into headers of calls and events and the environment of workers, and out of them.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanContext, TraceContextExt, TraceFlags, TraceState};
use opentelemetry::{Array, Context, StringValue, Value};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Puts a span's context into the headers of a call; nothing where the span is in no trace.
pub(crate) fn inject(span: &Span, headers: &mut HeaderMap) {
    TraceContextPropagator::new().inject_context(&span.context(), &mut Headers(headers));
}

/// Puts the beginning of a trace that is not sent anywhere into the headers of a call; nothing where nothing is traced.
pub(crate) fn inject_unfollowed(headers: &mut HeaderMap) {
    if tracing::dispatcher::has_been_set() {
        let ids = RandomIdGenerator::default();
        let (trace, span) = (ids.new_trace_id(), ids.new_span_id());
        let begun = SpanContext::new(trace, span, TraceFlags::NOT_SAMPLED, false, TraceState::NONE);
        let context = Context::new().with_remote_span_context(begun);
        TraceContextPropagator::new().inject_context(&context, &mut Headers(headers));
    }
}

/// The context of the present span as pairs: for the headers of an event, a call or the environment of a worker. Empty where
/// nothing is traced.
pub fn current() -> Vec<(String, String)> {
    let mut pairs = Pairs(Vec::new());
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut pairs);
    pairs.0.retain(|(_, value)| !value.is_empty());
    pairs.0
}

/// The id of the present trace, if there is one.
pub fn trace_id() -> Option<String> {
    Context::map_current(|context| {
        let context = context.span().span_context().clone();
        context.is_valid().then(|| context.trace_id().to_string())
    })
}

/// Sets an attribute that holds several texts, which a field of `tracing` cannot.
pub fn set_list(span: &Span, key: &'static str, values: &[&str]) {
    let values = values.iter().map(|value| StringValue::from((*value).to_owned())).collect();
    span.set_attribute(key, Value::Array(Array::String(values)));
}

/// What a span continues, from elsewhere.
#[derive(Clone, Debug)]
pub struct Parent(Context);

impl Parent {
    /// As a call's headers say.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        Self(extract(&ReadHeaders(headers)))
    }

    /// As an event's headers say.
    pub fn from_pairs(pairs: &[(String, String)]) -> Self {
        Self(extract(&ReadPairs(pairs)))
    }

    /// As this process' environment says: `TRACEPARENT`, `TRACESTATE`.
    pub fn from_environment() -> Self {
        let pairs = ["TRACEPARENT", "TRACESTATE"].map(|key| (key.to_owned(), std::env::var(key).unwrap_or_default()));
        Self::from_pairs(&pairs)
    }

    /// The span as a continuation. Where nothing valid was given it stays as it is: the beginning of a trace, or a child of the
    /// present span.
    #[must_use]
    pub fn adopt(self, span: Span) -> Span {
        if self.0.span().span_context().is_valid() {
            // It fails only for a span that nobody records.
            let _unrecorded = span.set_parent(self.0);
        }
        span
    }
}

fn extract(carrier: &dyn Extractor) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), carrier)
}

struct Headers<'a>(&'a mut HeaderMap);

impl Injector for Headers<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value))
            && !value.is_empty()
        {
            self.0.insert(key, value);
        }
    }
}

struct Pairs(Vec<(String, String)>);

impl Injector for Pairs {
    fn set(&mut self, key: &str, value: String) {
        self.0.push((key.to_owned(), value));
    }
}

struct ReadHeaders<'a>(&'a HeaderMap);

impl Extractor for ReadHeaders<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }
    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct ReadPairs<'a>(&'a [(String, String)]);

impl Extractor for ReadPairs<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value.as_str())
    }
    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }
}
