//! The phases of a sequence, as spans and times: it waits for a place, reads its prompt, writes. One each, none for a token.

use std::time::Instant;

use tracing::{Span, info_span};

/// A phase that lasts until it is dropped.
#[derive(Debug)]
pub(super) struct Phase {
    times: &'static str,
    began: Instant,
    _span: Span,
}

impl Phase {
    /// Waiting for a place.
    pub(super) fn queue(answer: &Span) -> Self {
        Self::begin("tidemill_inference_queue_seconds", info_span!(parent: answer, "queue"))
    }

    /// Reading the prompt, until the first token is drawn.
    pub(super) fn prefill(answer: &Span) -> Self {
        Self::begin("tidemill_inference_prefill_seconds", info_span!(parent: answer, "prefill"))
    }

    /// Writing what follows the first token.
    pub(super) fn decode(answer: &Span) -> Self {
        Self::begin("tidemill_inference_decode_seconds", info_span!(parent: answer, "decode"))
    }

    fn begin(times: &'static str, span: Span) -> Self {
        Self { times, began: Instant::now(), _span: span }
    }
}

impl Drop for Phase {
    fn drop(&mut self) {
        metrics::histogram!(self.times).record(self.began.elapsed());
    }
}
