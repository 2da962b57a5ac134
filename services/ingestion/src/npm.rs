//! Packages of the npm registry.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use crate::{download::Place, error::Error, settings::IngestionSettings, watch::Watch};

/// The package's archive in the cache, verified.
pub(crate) async fn fetch(
    settings: &IngestionSettings,
    cache: &Path,
    package: &str,
    version: &str,
    sha256: &str,
    watch: &Watch,
) -> Result<PathBuf, Error> {
    let uri = format!("npm:{package}@{version}");
    let name = format!("{}-{version}.tgz", package.trim_start_matches('@').replace('/', "-"));
    let place = Place { path: cache.join(name), uri: &uri, sha256, watch };
    if let Some(path) = place.found().await? {
        return Ok(path);
    }
    let folder = place.beside()?;
    let file = download(settings, &uri, &format!("{package}@{version}"), folder.path()).await?;
    place.take(&file).await
}

async fn download(settings: &IngestionSettings, uri: &str, spec: &str, folder: &Path) -> Result<PathBuf, Error> {
    let failed = |detail: String| Error::Download { uri: uri.to_owned(), detail };
    let command = Command::new(&settings.npm)
        .args(["pack", spec, "--silent", "--ignore-scripts", "--pack-destination", "."])
        .current_dir(folder)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(settings.download_timeout(), command)
        .await
        .map_err(|_| failed(format!("npm took longer than {} s", settings.download_timeout().as_secs())))?
        .map_err(|error| Error::NoNpm { program: settings.npm.clone(), detail: error.to_string() })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        if said.contains("E404") || said.contains("ETARGET") {
            return Err(Error::Missing { uri: uri.to_owned() });
        }
        let last: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).take(5).collect();
        return Err(failed(format!("npm pack ended with {}: {}", output.status, last.join("; "))));
    }
    let entries = std::fs::read_dir(folder).map_err(|error| Error::file(folder, error))?;
    let archive = entries.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|e| e == "tgz"));
    archive.ok_or_else(|| failed("npm pack left no archive".to_owned()))
}
