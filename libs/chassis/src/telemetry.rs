//! The one place where logging and tracing are set up: lines to standard error, spans to an OTLP receiver.
//!
//! Every line of JSON carries the trace and span it was written in. Spans carry names, codes and counts, never content.

mod context;
mod export;
mod json;

use std::io::IsTerminal;

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

pub use context::{Parent, current, set_list, trace_id};
pub(crate) use context::{inject, inject_unfollowed};

/// Environment variable with the OTLP endpoint of programs that read no settings: the client, and workers.
pub const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// Section `[telemetry]`.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// tracing's filter syntax.
    pub filter: String,
    /// `auto`, `text` or `json`.
    pub format: String,
    /// Where spans are sent over OTLP/gRPC, or empty.
    pub otlp_endpoint: String,
    /// Share of the traces begun here that are sent, from 0 to 1.
    pub trace_sample_ratio: f64,
}

impl Telemetry {
    /// For programs without settings: text of this filter, and the endpoint that the environment names.
    pub fn from_environment(filter: &str) -> Self {
        Self {
            filter: filter.to_owned(),
            format: "text".to_owned(),
            otlp_endpoint: std::env::var(ENDPOINT).unwrap_or_default(),
            trace_sample_ratio: 1.0,
        }
    }

    /// What a worker needs in its environment to go on with the present trace, and to send its spans where ours go.
    pub fn for_worker(&self) -> Vec<(String, String)> {
        let context = current().into_iter().map(|(key, value)| (key.to_ascii_uppercase(), value));
        let endpoint = (!self.otlp_endpoint.is_empty()).then(|| (ENDPOINT.to_owned(), self.otlp_endpoint.clone()));
        context.chain(endpoint).collect()
    }
}

/// Keeps telemetry going; when it is dropped, spans that were not sent yet are sent, for at most two seconds.
#[must_use = "telemetry ends when the guard is dropped"]
#[derive(Debug)]
pub struct Guard {
    provider: SdkTracerProvider,
    exporting: Option<tokio::runtime::Runtime>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(runtime) = self.exporting.take() else { return };
        if let Err(error) = self.provider.shutdown_with_timeout(export::LAST_MOMENTS) {
            tracing::warn!(%error, "the last spans could not be sent");
        }
        runtime.shutdown_background();
    }
}

/// Starts logging to standard error, and tracing under the name of a service. A second call in one process changes nothing.
///
/// # Errors
/// A setting is not valid; the message names the key.
pub fn init(settings: &Telemetry, service: &str) -> Result<Guard, String> {
    let filter = EnvFilter::try_new(&settings.filter).map_err(|error| format!("telemetry.filter: {error}"))?;
    let terminal = std::io::stderr().is_terminal();
    let json = match settings.format.as_str() {
        "json" => true,
        "text" => false,
        "auto" => !terminal,
        other => return Err(format!("telemetry.format = {other:?} should be auto, text or json")),
    };
    let (provider, exporting) = export::provider(settings, service)?;
    // Lines say which trace they belong to, not all that its spans know.
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = if json {
        lines.event_format(json::Json).boxed()
    } else {
        lines.with_target(false).with_ansi(terminal).compact().boxed()
    };
    let lines = lines.with_filter(filter.and(filter_fn(|metadata| metadata.is_event())));
    let spans = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("tidemill"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(filter_fn(is_ours));
    let _already_started = tracing_subscriber::registry().with(spans).with(lines).try_init();
    Ok(Guard { provider, exporting })
}

/// Spans of this project, and no events: an event may hold the cause of an error, and that may hold content.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && *metadata.level() <= Level::INFO && metadata.target().starts_with("tidemill")
}

#[cfg(test)]
mod tests;
