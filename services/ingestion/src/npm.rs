//! Packages of the npm registry, downloaded once into the cache and taken only with the right sha256.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
};

use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use crate::{error::Error, settings::IngestionSettings, watch::Watch};

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
    let cached = cache.join(&name);
    if cached.is_file() {
        watch.phase("verifying", "bytes", size(&cached));
        match verify(&cached, &uri, sha256, watch).await {
            Err(Error::Checksum { found, .. }) => {
                tracing::warn!(file = %cached.display(), found, "cached source is another one")
            }
            other => return other.map(|_| cached),
        }
    }
    std::fs::create_dir_all(cache).map_err(|error| Error::file(cache, error))?;
    // Downloaded beside its place, so that a half download is never taken for a whole one.
    let folder = tempfile::Builder::new().prefix(".download-").tempdir_in(cache).map_err(|e| Error::file(cache, e))?;
    watch.phase("downloading", "files", 1);
    tracing::info!(uri, "downloading");
    let file = download(settings, &uri, &format!("{package}@{version}"), folder.path()).await?;
    watch.phase("verifying", "bytes", size(&file));
    verify(&file, &uri, sha256, watch).await?;
    std::fs::rename(&file, &cached).map_err(|error| Error::file(&cached, error))?;
    Ok(cached)
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

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

/// The sha256 of a file in hex; an error if `expected` is given and another.
pub(crate) async fn verify(path: &Path, uri: &str, expected: &str, watch: &Watch) -> Result<String, Error> {
    let (path, uri, expected, watch) = (path.to_owned(), uri.to_owned(), expected.to_owned(), watch.clone());
    let hashed = tokio::task::spawn_blocking(move || {
        let mut file = File::open(&path).map_err(|error| Error::file(&path, error))?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            watch.check()?;
            let count = std::io::Read::read(&mut file, &mut buffer).map_err(|error| Error::file(&path, error))?;
            if count == 0 {
                break;
            }
            watch.advance(count as u64);
            hasher.update(&buffer[..count]);
        }
        let found = hex::encode(hasher.finalize());
        if !expected.is_empty() && !found.eq_ignore_ascii_case(&expected) {
            return Err(Error::Checksum { uri, expected, found });
        }
        Ok(found)
    });
    hashed.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}
