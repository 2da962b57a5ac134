//! The table of metrics: every one, whoever records it. `docs/metrics.md` says the same for people, and a test compares them.
//!
//! Labels have few values: names of methods, routes, topics, kinds, states and models; never an id.

/// A metric and its contract.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name; a histogram's without `_bucket`, `_sum`, `_count`.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its labels, in alphabetic order.
    pub labels: &'static [&'static str],
    /// What it tells.
    pub help: &'static str,
}

/// What a metric is.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Values in buckets up to these bounds.
    Histogram(&'static [f64]),
}

impl Kind {
    /// As Prometheus calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// Seconds of calls.
const CALLS: Kind =
    Kind::Histogram(&[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0]);
/// Seconds of jobs.
const JOBS: Kind =
    Kind::Histogram(&[0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0, 259_200.0]);
/// Seconds until a first token, and of whole answers: OpenTelemetry's bounds.
const ANSWERS: Kind = Kind::Histogram(&[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.48, 40.96, 81.92,
]);
/// Seconds from token to token: OpenTelemetry's bounds, and finer ones for small models.
const TOKENS: Kind = Kind::Histogram(&[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
]);

macro_rules! metrics {
    ($($name:literal, $kind:expr, [$($label:literal),*], $help:literal;)*) => {
        /// Every metric.
        pub const TABLE: &[Metric] = &[
            $(Metric { name: $name, kind: $kind, labels: &[$($label),*], help: $help },)*
        ];
    };
}

use Kind::{Counter, Gauge};

metrics! {
    "process_cpu_seconds_total", Counter, [], "Processor time used, user and system";
    "process_max_fds", Gauge, [], "File descriptors that may be open";
    "process_open_fds", Gauge, [], "File descriptors that are open";
    "process_resident_memory_bytes", Gauge, [], "Memory in use";
    "process_start_time_seconds", Gauge, [], "When the process began, since the epoch";
    "process_threads", Gauge, [], "Threads";
    "process_virtual_memory_bytes", Gauge, [], "Address space in use";

    "tidemill_build_info", Gauge, ["version"], "1, with the version of this process";
    "tidemill_ready", Gauge, [], "1 while the process takes work, 0 while it starts or drains";
    "tidemill_telemetry_spans_total", Counter, ["outcome"], "Spans, by outcome: sent, lost";
    "tidemill_dependency_failures_total", Counter, ["dependency"], "Operations that failed because a part was away, full or refused: artifacts, cache, eventlog, resources";

    "tidemill_grpc_requests_total", Counter, ["code", "method", "service"], "gRPC calls answered, by gRPC code; a stream counts at its end";
    "tidemill_grpc_request_duration_seconds", CALLS, ["method", "service"], "Time of gRPC calls, streams to their end";
    "tidemill_grpc_requests_in_flight", Gauge, ["method", "service"], "gRPC calls that are being answered";
    "tidemill_http_requests_total", Counter, ["code", "method", "route"], "HTTP requests answered, by status; 499 where the caller left first";
    "tidemill_http_request_duration_seconds", CALLS, ["method", "route"], "Time of HTTP requests, streams to their end";
    "tidemill_http_requests_in_flight", Gauge, ["method", "route"], "HTTP requests that are being answered";

    "tidemill_outbox_pending", Gauge, [], "Events that waited in the outbox when the relay last looked; it counts to 256";
    "tidemill_outbox_relayed_total", Counter, [], "Events moved from the outbox to the log";
    "tidemill_outbox_failures_total", Counter, [], "Moves from the outbox that failed; they are tried again";
    "tidemill_eventlog_append_duration_seconds", CALLS, [], "Time until appended events were durable in the log";
    "tidemill_consumer_handled_total", Counter, ["consumer", "topic"], "Events whose effect is durable";
    "tidemill_consumer_retried_total", Counter, ["consumer", "topic"], "Events that failed for a reason that may pass, and come again";
    "tidemill_consumer_dead_lettered_total", Counter, ["consumer", "topic"], "Events that went to the dead-letter queue";
    "tidemill_consumer_handling_seconds", JOBS, ["consumer", "topic"], "Time to handle an event; of a task's event, the time of the job";
    "tidemill_consumer_subscriptions_lost_total", Counter, ["consumer", "topic"], "Subscriptions that broke and were made anew";
    "tidemill_consumer_lag", Gauge, ["group", "topic"], "Events of the log that a group has not committed; only where the log is Kafka";

    "tidemill_ingestion_messages_total", Counter, ["outcome", "topic"], "Messages read from topics of users, by outcome: kept, dead";
    "tidemill_job_state", Gauge, ["kind", "state"], "Jobs among the newest 1,000 of a kind, by state; every replica of a service says the same";
    "tidemill_job_duration_seconds", JOBS, ["kind", "state"], "Time from a job's start to its end, by the state it ended in";
    "tidemill_job_retries_total", Counter, ["kind"], "Attempts at jobs that failed for a reason that may pass";
    "tidemill_worker_starts_total", Counter, ["service"], "Worker processes started, or found running after a restart of their service";
    "tidemill_worker_deaths_total", Counter, ["service"], "Worker processes that died of a signal or an unknown cause";

    "tidemill_training_steps_total", Counter, ["model"], "Steps that brought a run further; those taken again after a restart do not count";
    "tidemill_training_loss", Gauge, ["model"], "Loss of the newest step";
    "tidemill_training_validation_loss", Gauge, ["model"], "Newest loss on the validation split";
    "tidemill_training_learning_rate", Gauge, ["model"], "Learning rate of the newest step";
    "tidemill_training_gradient_norm", Gauge, ["model"], "Norm of the gradient of the newest step";
    "tidemill_training_tokens_per_second", Gauge, ["model"], "Tokens learned from in a second, a running mean; 0 once the run has ended";
    "tidemill_training_step_seconds", Gauge, ["model"], "Time of a step, a running mean";
    "tidemill_training_load_seconds", Gauge, ["model"], "Time that the newest step took to make its batches";
    "tidemill_training_update_seconds", Gauge, ["model"], "Time that the newest step took to clip and update";
    "tidemill_training_model_flops_per_second", Gauge, ["model"], "Floating-point operations of the model in a second; over the device's peak it is the MFU";
    "tidemill_training_mfu_ratio", Gauge, ["model"], "Floating-point operations of the model over what bfloat16 products could reach on the GPU; only on GPUs whose peak is known";
    "tidemill_training_gpu_idle_ratio", Gauge, ["model"], "Share of the time in which no kernel ran on the GPU";
    "tidemill_training_gpu_memory_bytes", Gauge, ["model"], "The most bytes that tensors had on the GPU at a time since the run began here";
    "tidemill_training_checkpoint_stall_seconds", Gauge, ["model"], "Time that checkpoints held the run up since it began here";
    "tidemill_training_goodput_ratio", Gauge, ["model"], "Time in steps that counted, over the time since the run began here";

    "tidemill_inference_requests_running", Gauge, [], "Sequences that are being written";
    "tidemill_inference_requests_waiting", Gauge, [], "Sequences that wait for a place";
    "tidemill_inference_requests_rejected_total", Counter, ["model"], "Requests refused because too many waited";
    "tidemill_inference_requests_finished_total", Counter, ["model", "reason"], "Answers ended, by reason: stop, length, cancelled, error";
    "tidemill_inference_tokens_total", Counter, ["model", "type"], "Tokens read (input) and written (output)";
    "tidemill_inference_kv_cache_tokens", Gauge, [], "Tokens held in the caches of running sequences";
    "tidemill_inference_queue_seconds", ANSWERS, [], "Time a sequence waited for a place";
    "tidemill_inference_prefill_seconds", ANSWERS, [], "Time from its place to a sequence's first token";
    "tidemill_inference_decode_seconds", ANSWERS, [], "Time from a sequence's first token to its last";
    "tidemill_inference_inter_token_seconds", TOKENS, ["model"], "Time from one token to the next";
    "tidemill_inference_model_load_seconds", JOBS, [], "Time to fetch and load a model";
    "tidemill_inference_deployments", Gauge, ["status"], "Deployments, by status: ready, waiting, degraded";
    "gen_ai_server_request_duration_seconds", ANSWERS, ["error_type", "gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model"], "OpenTelemetry's gen_ai.server.request.duration";
    "gen_ai_server_time_to_first_token_seconds", ANSWERS, ["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model"], "OpenTelemetry's gen_ai.server.time_to_first_token";
    "gen_ai_server_time_per_output_token_seconds", TOKENS, ["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model"], "OpenTelemetry's gen_ai.server.time_per_output_token: of one answer, after the first token";
}
