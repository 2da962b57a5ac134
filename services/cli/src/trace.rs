//! A trace of a command, sent where `OTEL_EXPORTER_OTLP_ENDPOINT` says: all that servers and workers do for it belongs to it.

use tidemill_chassis::telemetry::{self, ENDPOINT, Guard, Parent, Telemetry};
use tracing::{Span, info_span};

use crate::failure::Failure;

/// A command's span, and what sends it.
pub(crate) struct Trace {
    /// The beginning of the trace, or a part of the one that `TRACEPARENT` names.
    pub(crate) span: Span,
    // Ends last: dropped after the span.
    _sending: Option<Guard>,
}

/// Begins a trace where somebody receives it. Where nobody does, a server begins its own.
pub(crate) fn begin(verb: &str) -> Result<Trace, Failure> {
    if std::env::var_os(ENDPOINT).is_none_or(|endpoint| endpoint.is_empty()) {
        return Ok(Trace { span: Span::none(), _sending: None });
    }
    let wrong = |reason: String| Failure::Usage(format!("{ENDPOINT}: {reason}"));
    let sending = telemetry::init(&Telemetry::from_environment("warn"), "tidemill").map_err(wrong)?;
    let span = info_span!("command", otel.name = format!("tidemill {verb}"), otel.kind = "client");
    Ok(Trace { span: Parent::from_environment().adopt(span), _sending: Some(sending) })
}
