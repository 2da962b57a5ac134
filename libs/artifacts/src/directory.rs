//! Artifacts of many files: manifests, and folders as they go in and come out.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use futures::{StreamExt, TryStreamExt};

use crate::store::blocking;
use crate::{Artifacts, Digest, Entry, Error, Manifest, Result};

/// Transfers at a time.
const PARALLEL: usize = 4;

impl Artifacts {
    /// Stores a manifest. Everything it lists must be there already, so that whoever sees it sees all of it.
    pub async fn put_manifest(&self, manifest: &Manifest) -> Result<Digest> {
        let bytes = manifest.encode()?;
        for entry in &manifest.entries {
            let reason = match self.size(&entry.digest).await? {
                Some(size) if size == entry.size => continue,
                Some(size) => format!("{} has {size} bytes, not {}", entry.digest, entry.size),
                None => format!("{} is not in the artifact store; store it before the manifest", entry.digest),
            };
            return Err(Error::invalid(format!("entries[{:?}]", entry.path), reason));
        }
        Ok(self.put(bytes).await?.0)
    }

    /// Reads a manifest, verified.
    pub async fn manifest(&self, digest: &Digest) -> Result<Manifest> {
        let what = format!("manifest {digest}");
        let bytes = self.get_as(digest, &what).await?;
        Manifest::decode(&bytes).map_err(|error| Error::Corrupt { what, reason: error.to_string() })
    }

    /// Stores all files of a folder and a manifest of them.
    pub async fn put_directory(
        &self,
        folder: &Path,
        kind: &str,
        parents: Vec<Digest>,
        annotations: BTreeMap<String, String>,
    ) -> Result<Digest> {
        let entries = self.entries(folder, false).await?;
        self.put_manifest(&Manifest { kind: kind.to_owned(), entries, parents, annotations }).await
    }

    /// As [`Self::put_directory`], of a folder that is given away: a store on the same disk takes its files as they are.
    pub async fn take_directory(
        &self,
        folder: &Path,
        kind: &str,
        parents: Vec<Digest>,
        annotations: BTreeMap<String, String>,
    ) -> Result<Digest> {
        let entries = self.entries(folder, true).await?;
        self.put_manifest(&Manifest { kind: kind.to_owned(), entries, parents, annotations }).await
    }

    /// Stores the files of a folder.
    async fn entries(&self, folder: &Path, given: bool) -> Result<Vec<Entry>> {
        let root = folder.to_owned();
        let mut files = blocking(move || {
            let mut files = Vec::new();
            walk(&root, "", &mut files).map(|()| files)
        })
        .await?;
        files.sort();
        // Futures are made before they are a stream: a stream's `map` would hide from callers that they are Send.
        let stored: Vec<_> = files
            .into_iter()
            .map(|(path, file)| async move {
                let (digest, size) = if given { self.take_file(&file).await? } else { self.put_file(&file).await? };
                Ok::<_, Error>(Entry { path, digest, size })
            })
            .collect();
        futures::stream::iter(stored).buffered(PARALLEL).try_collect().await
    }

    /// Makes a folder that holds exactly an artifact's files, verified. The folder appears whole or not at all; one that is there and
    /// holds exactly these files is kept, any other is replaced.
    pub async fn fetch_directory(&self, digest: &Digest, to: &Path) -> Result<Manifest> {
        let manifest = self.manifest(digest).await?;
        if holds(to, &manifest).await {
            return Ok(manifest);
        }
        let owned = to.to_owned();
        let fresh = blocking(move || temporary(&owned, ".fetch-")).await?;
        let fetched: Vec<_> = manifest
            .entries
            .iter()
            .map(|entry| {
                let file = fresh.path().join(&entry.path);
                async move { self.fetch_as(&entry.digest, &file, &file_of(entry, digest)).await }
            })
            .collect();
        futures::stream::iter(fetched).buffer_unordered(PARALLEL).try_collect::<()>().await?;
        let owned = to.to_owned();
        let renamed = blocking(move || {
            // A folder that somebody else fetched meanwhile, or a damaged one, goes aside and is deleted there.
            let aside = temporary(&owned, ".old-")?;
            if owned.symlink_metadata().is_ok() {
                std::fs::rename(&owned, aside.path().join("old")).map_err(|error| Error::file(&owned, error))?;
            }
            std::fs::rename(fresh.path(), &owned).map_err(|error| Error::file(&owned, error))?;
            // It has moved: there is nothing left to delete under the temporary name.
            let _ = fresh.keep();
            Ok(())
        })
        .await;
        match renamed {
            Err(_) if holds(to, &manifest).await => Ok(manifest),
            other => other.map(|()| manifest),
        }
    }

    /// Reads an artifact's manifest and all its files to verify them; the first damaged one is the error.
    pub async fn verify_directory(&self, digest: &Digest) -> Result<Manifest> {
        let manifest = self.manifest(digest).await?;
        for entry in &manifest.entries {
            self.verify_as(&entry.digest, &file_of(entry, digest)).await?;
        }
        Ok(manifest)
    }

    /// Reads one file of an artifact, verified.
    pub async fn get_entry(&self, digest: &Digest, path: &str) -> Result<bytes::Bytes> {
        let manifest = self.manifest(digest).await?;
        let entry = manifest.entry(path).ok_or_else(|| Error::NotFound(format!("file {path} of artifact {digest}")))?;
        self.get_as(&entry.digest, &file_of(entry, digest)).await
    }
}

fn file_of(entry: &Entry, digest: &Digest) -> String {
    format!("file {} of artifact {digest}", entry.path)
}

/// A temporary folder beside `to`, so that a rename suffices.
fn temporary(to: &Path, prefix: &str) -> Result<tempfile::TempDir> {
    use std::os::unix::fs::PermissionsExt;
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)
        .and_then(|()| {
            let permissions = std::fs::Permissions::from_mode(0o755);
            tempfile::Builder::new().prefix(prefix).permissions(permissions).tempdir_in(parent)
        })
        .map_err(|error| Error::file(parent, error))
}

/// All files below a folder, as (path with `/`, file).
fn walk(folder: &Path, prefix: &str, files: &mut Vec<(String, PathBuf)>) -> Result<()> {
    let failed = |error| Error::file(folder, error);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        let Some(name) = file.file_name().and_then(|name| name.to_str()) else {
            return Err(Error::invalid(file.display().to_string(), "its name is not UTF-8"));
        };
        let path = format!("{prefix}{name}");
        let meta = std::fs::metadata(&file).map_err(|error| Error::file(&file, error))?;
        if meta.is_dir() {
            walk(&file, &format!("{path}/"), files)?;
        } else if meta.is_file() {
            files.push((path, file));
        } else {
            return Err(Error::invalid(file.display().to_string(), "it is neither a file nor a folder"));
        }
    }
    Ok(())
}

/// Whether a folder holds exactly the files of a manifest.
async fn holds(folder: &Path, manifest: &Manifest) -> bool {
    let folder = folder.to_owned();
    let mut expected: Vec<(String, Digest)> =
        manifest.entries.iter().map(|entry| (entry.path.clone(), entry.digest)).collect();
    expected.sort();
    blocking(move || {
        let mut files = Vec::new();
        if walk(&folder, "", &mut files).is_err() {
            return false;
        }
        files.sort();
        files.len() == expected.len()
            && files.iter().zip(&expected).all(|((path, file), (name, digest))| {
                path == name && File::open(file).and_then(Digest::of_reader).is_ok_and(|(found, _)| found == *digest)
            })
    })
    .await
}
