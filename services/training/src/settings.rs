//! Section `[training]`.

/// Defaults of this service's section.
pub const DEFAULTS: &str = include_str!("default.toml");

/// Section `[training]`; `default.toml` documents the keys.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrainingSettings {
    pub(crate) threads: usize,
    pub(crate) jobs_at_once: usize,
}
