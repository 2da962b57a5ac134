//! The cache of sources from elsewhere: each is downloaded once, and taken only with the right sha256.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::{error::Error, watch::Watch};

/// One file of the cache.
pub(crate) struct Place<'a> {
    /// Where it belongs.
    pub(crate) path: PathBuf,
    /// What it is a copy of.
    pub(crate) uri: &'a str,
    /// Of its bytes, in hex.
    pub(crate) sha256: &'a str,
    /// The job.
    pub(crate) watch: &'a Watch,
}

impl Place<'_> {
    /// The file, if it is there and the right one.
    pub(crate) async fn found(&self) -> Result<Option<PathBuf>, Error> {
        if !self.path.is_file() {
            return Ok(None);
        }
        self.watch.phase("verifying", "bytes", size(&self.path));
        match verify(&self.path, self.uri, self.sha256, self.watch).await {
            Ok(_) => Ok(Some(self.path.clone())),
            Err(Error::Checksum { found, .. }) => {
                tracing::warn!(file = %self.path.display(), found, "cached source is another one");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// A folder beside the place to download into, so that a half download is never taken for a whole one.
    pub(crate) fn beside(&self) -> Result<TempDir, Error> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(|error| Error::file(folder, error))?;
        let made = tempfile::Builder::new().prefix(".download-").tempdir_in(folder);
        self.watch.phase("downloading", "files", 1);
        tracing::info!(uri = self.uri, "downloading");
        made.map_err(|error| Error::file(folder, error))
    }

    /// Takes a file that was downloaded beside the place, if it is the right one.
    pub(crate) async fn take(&self, file: &Path) -> Result<PathBuf, Error> {
        self.watch.phase("verifying", "bytes", size(file));
        verify(file, self.uri, self.sha256, self.watch).await?;
        std::fs::rename(file, &self.path).map_err(|error| Error::file(&self.path, error))?;
        Ok(self.path.clone())
    }
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
