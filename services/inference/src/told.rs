//! What is told of one answer: a span by OpenTelemetry's names for generative models, and its times and counts. Never content.

use std::sync::Arc;
use std::time::Instant;

use metrics::{Histogram, Label};
use tidemill_chassis::telemetry;
use tidemill_proto::inference::v1::generate_request::Input;
use tidemill_proto::inference::v1::{Answer, GenerateRequest};
use tidemill_proto::names;
use tracing::field::Empty;
use tracing::{Span, info_span};

use crate::engine::Job;
use crate::fleet::Served;

/// `gen_ai.provider.name`.
const PROVIDER: &str = "tidemill";

/// What a request asks for, as OpenTelemetry calls it.
pub(crate) fn operation(request: &GenerateRequest) -> &'static str {
    match request.input {
        Some(Input::Chat(_)) => "chat",
        _ => "text_completion",
    }
}

/// An answer under way. Dropped before its end it counts as cancelled.
pub(crate) struct Told {
    span: Span,
    /// The deployment's id: there are few, and their names stay.
    model: Arc<str>,
    operation: &'static str,
    began: Instant,
    first: Option<Instant>,
    last: Instant,
    tokens: u32,
    inter_token: Histogram,
    ended: bool,
}

impl Told {
    /// Begins with a request that is valid.
    pub(crate) fn begin(operation: &'static str, served: &Served, job: &Job) -> Self {
        let model = names::last_id(&served.deployment);
        let span = info_span!(
            "generate",
            otel.name = format!("{operation} {model}"),
            otel.status_code = Empty,
            error.type = Empty,
            gen_ai.operation.name = operation,
            gen_ai.provider.name = PROVIDER,
            gen_ai.output.type = "text",
            gen_ai.request.model = model,
            gen_ai.request.max_tokens = whole(job.max_tokens),
            gen_ai.request.temperature = job.sampling.temperature,
            gen_ai.request.top_p = job.sampling.top_p,
            gen_ai.request.top_k = whole(job.sampling.top_k),
            gen_ai.response.id = Empty,
            gen_ai.response.model = served.version,
            gen_ai.response.time_to_first_chunk = Empty,
            gen_ai.usage.input_tokens = whole(job.prompt.len()),
            gen_ai.usage.output_tokens = Empty,
            tidemill.model.digest = served.loaded.digest,
        );
        let model: Arc<str> = model.into();
        let inter_token = metrics::histogram!("tidemill_inference_inter_token_seconds", "model" => model.clone());
        count("tidemill_inference_tokens_total", &model, ("type", "input"), job.prompt.len() as u64);
        let now = Instant::now();
        Self { span, model, operation, began: now, first: None, last: now, tokens: 0, inter_token, ended: false }
    }

    /// The span that the engine's phases belong to.
    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// Too many waited.
    pub(crate) fn rejected(mut self) {
        metrics::counter!("tidemill_inference_requests_rejected_total", "model" => self.model.clone()).increment(1);
        self.end("error", Some("RESOURCE_EXHAUSTED"));
    }

    /// A token came.
    pub(crate) fn token(&mut self) {
        let now = Instant::now();
        self.tokens += 1;
        if self.first.is_some() {
            self.inter_token.record(now - self.last);
        } else {
            self.first = Some(now);
            let seconds = now - self.began;
            self.span.record("gen_ai.response.time_to_first_chunk", seconds.as_secs_f64());
            metrics::histogram!("gen_ai_server_time_to_first_token_seconds", self.labels()).record(seconds);
        }
        self.last = now;
    }

    /// The model failed.
    pub(crate) fn failed(&mut self) {
        self.end("error", Some("INTERNAL"));
    }

    /// The answer is whole.
    pub(crate) fn finished(&mut self, answer: &Answer) {
        self.span.record("gen_ai.response.id", names::last_id(&answer.name));
        telemetry::set_list(&self.span, "gen_ai.response.finish_reasons", &[&answer.finish_reason]);
        let reason = if answer.finish_reason == "length" { "length" } else { "stop" };
        self.end(reason, None);
    }

    fn end(&mut self, reason: &'static str, error: Option<&'static str>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.span.record("gen_ai.usage.output_tokens", i64::from(self.tokens));
        count("tidemill_inference_tokens_total", &self.model, ("type", "output"), self.tokens.into());
        count("tidemill_inference_requests_finished_total", &self.model, ("reason", reason), 1);
        if let Some(first) = self.first.filter(|_| self.tokens > 1) {
            metrics::histogram!("gen_ai_server_time_per_output_token_seconds", self.labels())
                .record((self.last - first) / (self.tokens - 1));
        }
        let mut labels = self.labels();
        // Always there, so that the metric has one set of labels.
        labels.push(Label::from_static_parts("error_type", error.unwrap_or_default()));
        metrics::histogram!("gen_ai_server_request_duration_seconds", labels).record(self.began.elapsed());
        if let Some(error) = error {
            self.span.record("error.type", error);
            self.span.record("otel.status_code", "ERROR");
        }
    }

    fn labels(&self) -> Vec<Label> {
        vec![
            Label::from_static_parts("gen_ai_operation_name", self.operation),
            Label::from_static_parts("gen_ai_provider_name", PROVIDER),
            Label::new("gen_ai_request_model", self.model.clone()),
        ]
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.end("cancelled", None);
    }
}

/// Attributes have signed numbers; others would become texts.
fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn count(counter: &'static str, model: &Arc<str>, (key, value): (&'static str, &'static str), by: u64) {
    metrics::counter!(counter, "model" => model.clone(), key => value).increment(by);
}
