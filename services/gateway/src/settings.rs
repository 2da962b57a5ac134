//! Section `[gateway]`.

use tidemill_chassis::settings::Mistakes;

/// Section `[gateway]`; `default.toml` documents the keys.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GatewaySettings {
    pub(crate) store_answers: bool,
    pub(crate) request_timeout_seconds: u64,
}

impl GatewaySettings {
    /// Refuses a time in which nothing could be answered.
    pub(crate) fn check(&self) -> Result<(), Mistakes> {
        let seconds = self.request_timeout_seconds;
        if (1..=86_400).contains(&seconds) {
            return Ok(());
        }
        Err(Mistakes(vec![format!("gateway.request_timeout_seconds = {seconds} should be from 1 to 86400")]))
    }
}
