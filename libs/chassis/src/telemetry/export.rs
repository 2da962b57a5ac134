//! Spans to a receiver, on threads of their own: a process that computes, or whose runtime is busy, sends all the same.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter};
use tokio::runtime::Runtime;

use super::Telemetry;

/// What spans that wait get at the end of a process.
pub(super) const LAST_MOMENTS: Duration = Duration::from_secs(2);
/// What one batch gets.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The source of spans, and what sends them if anybody receives them. Ids are given and passed on in any case.
pub(super) fn provider(settings: &Telemetry, service: &str) -> Result<(SdkTracerProvider, Option<Runtime>), String> {
    let ratio = settings.trace_sample_ratio;
    if !(0.0..=1.0).contains(&ratio) {
        return Err(format!("telemetry.trace_sample_ratio = {ratio} should be from 0 to 1"));
    }
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio)));
    let provider = SdkTracerProvider::builder().with_sampler(sampler).with_resource(resource(service));
    let endpoint = settings.otlp_endpoint.as_str();
    if endpoint.is_empty() {
        return Ok((provider.build(), None));
    }
    if !endpoint.starts_with("http://") {
        return Err(format!(
            "telemetry.otlp_endpoint = {endpoint:?} should be http://host:port of an OTLP/gRPC receiver, such as a collector near by"
        ));
    }
    let wrong = |reason: String| format!("telemetry.otlp_endpoint = {endpoint:?}: {reason}");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("telemetry")
        .enable_all()
        .build()
        .map_err(|error| wrong(error.to_string()))?;
    let exporter = {
        let _inside = runtime.enter();
        let channel = tonic::transport::Endpoint::from_shared(endpoint.to_owned())
            .map_err(|error| wrong(error.to_string()))?
            .connect_timeout(TIMEOUT)
            .timeout(TIMEOUT)
            .connect_lazy();
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_channel(channel)
            .with_timeout(TIMEOUT)
            .build();
        exporter.map_err(|error| wrong(error.to_string()))?
    };
    let exporter = Told { inner: exporter, endpoint: endpoint.to_owned(), failing: AtomicBool::new(false) };
    Ok((provider.with_batch_exporter(exporter).build(), Some(runtime)))
}

/// Who sends.
fn resource(service: &str) -> Resource {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let instance = format!("{}-{}", host.trim(), std::process::id());
    Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.namespace", "tidemill"),
            KeyValue::new("service.name", service.to_owned()),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance),
        ])
        .build()
}

/// Counts what is sent and what is lost, and says when that begins and ends.
#[derive(Debug)]
struct Told<E> {
    inner: E,
    endpoint: String,
    failing: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for Told<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len() as u64;
        let sent = self.inner.export(batch).await;
        let outcome = if sent.is_ok() { "sent" } else { "lost" };
        metrics::counter!("tidemill_telemetry_spans_total", "outcome" => outcome).increment(count);
        let failed_before = self.failing.swap(sent.is_err(), Ordering::Relaxed);
        match &sent {
            Err(error) if !failed_before => {
                tracing::warn!(endpoint = self.endpoint, %error, "spans cannot be sent and are lost");
            }
            Ok(()) if failed_before => tracing::info!(endpoint = self.endpoint, "spans are sent again"),
            _ => {}
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
