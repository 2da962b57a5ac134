//! Section `[inference]`.

use tidemill_chassis::settings::Mistakes;

/// Section `[inference]`; `default.toml` documents the keys.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InferenceSettings {
    pub(crate) threads: usize,
    pub(crate) max_running: usize,
    pub(crate) max_waiting: usize,
    pub(crate) prefill_tokens: usize,
    pub(crate) reconcile_seconds: u64,
}

impl InferenceSettings {
    /// Refuses numbers that nothing could be served with, all at once.
    pub(crate) fn check(&self) -> Result<(), Mistakes> {
        let numbers = [
            ("threads", self.threads, 1024),
            ("max_running", self.max_running, 4096),
            ("max_waiting", self.max_waiting, 1_000_000),
            ("prefill_tokens", self.prefill_tokens, 1_000_000),
            ("reconcile_seconds", usize::try_from(self.reconcile_seconds).unwrap_or(usize::MAX), 3600),
        ];
        let wrong: Vec<String> = numbers
            .iter()
            .filter(|(_, value, most)| !(1..=*most).contains(value))
            .map(|(key, value, most)| format!("inference.{key} = {value} should be from 1 to {most}"))
            .collect();
        if wrong.is_empty() { Ok(()) } else { Err(Mistakes(wrong)) }
    }
}
