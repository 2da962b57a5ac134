//! Section `[ingestion]`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::topic::Cut;

/// Defaults of this service's section.
pub const DEFAULTS: &str = include_str!("default.toml");

/// Section `[ingestion]`; `default.toml` documents the keys.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IngestionSettings {
    cache_dir: String,
    pub(crate) npm: String,
    download_timeout_seconds: u64,
    pub(crate) max_unpacked_bytes: u64,
    pub(crate) jobs_at_once: usize,
    segment_bytes: usize,
    segment_seconds: u64,
    pub(crate) max_version_records: u64,
    kafka_files_dir: String,
    pub(crate) https_hosts: Vec<String>,
}

impl IngestionSettings {
    /// The cache folder, with a leading `~` replaced by the home folder.
    pub(crate) fn cache_dir(&self) -> anyhow::Result<PathBuf> {
        let Some(rest) = self.cache_dir.strip_prefix('~') else { return Ok(self.cache_dir.clone().into()) };
        let home = std::env::var("HOME").map_err(|_| {
            anyhow::anyhow!("ingestion.cache_dir = {:?}: HOME is not set; give a full path", self.cache_dir)
        })?;
        Ok(PathBuf::from(home).join(rest.trim_start_matches('/')))
    }

    /// When a segment of a topic is cut.
    pub(crate) fn cut(&self) -> Cut {
        Cut { bytes: self.segment_bytes, age: Duration::from_secs(self.segment_seconds) }
    }

    /// The folder in which a source's uri may name files; none allows none.
    pub(crate) fn kafka_files_dir(&self) -> Option<&Path> {
        (!self.kafka_files_dir.is_empty()).then(|| Path::new(&self.kafka_files_dir))
    }

    pub(crate) fn download_timeout(&self) -> Duration {
        Duration::from_secs(self.download_timeout_seconds)
    }
}
