//! Section `[platform]`.

use std::path::PathBuf;

use tidemill_chassis::settings::Mistakes;

/// Defaults of the sections `[platform]` and `[services]`.
pub const DEFAULTS: &str = include_str!("default.toml");

/// Section `[platform]`; `default.toml` documents the keys.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlatformSettings {
    data_dir: String,
    pub(crate) resources_url: String,
    pub(crate) eventlog_url: String,
    pub(crate) cache_url: String,
    pub(crate) artifacts_url: String,
    pub(crate) launcher_url: String,
    pub(crate) worker_program: String,
    pub(crate) stop_workers_on_shutdown: bool,
    pub(crate) worker_restarts: u32,
}

impl PlatformSettings {
    /// The data directory.
    ///
    /// # Errors
    /// It begins with `~` and there is no home folder; or it is not a full path.
    pub fn data_dir(&self) -> Result<PathBuf, Mistakes> {
        let path = crate::expand_home(&self.data_dir)?;
        if path.is_absolute() {
            return Ok(path);
        }
        Err(Mistakes(vec![format!("platform.data_dir = {:?} should be a full path", self.data_dir)]))
    }
}
