//! What only a folder on a disk needs: opening it, sweeping what killed writers left, publishing files by rename.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use object_store::local::LocalFileSystem;
use tempfile::NamedTempFile;

use crate::store::blocking;
use crate::{Error, Result};

/// Nobody takes this long to write one object.
const STALE: Duration = Duration::from_secs(3600);

/// Opens a folder, creating it if need be. Written files and their folders are synced to the disk before a write returns.
pub(crate) async fn open(url: &str, path: &str) -> Result<LocalFileSystem> {
    let unavailable = |reason: String| Error::Unavailable { url: url.to_owned(), reason };
    let root = match path.strip_prefix("//") {
        Some(root) if root.starts_with('/') => PathBuf::from(root),
        _ => return Err(unavailable("the path must be absolute: file:///path/to/folder".to_owned())),
    };
    let opened = blocking(move || {
        std::fs::create_dir_all(&root).map_err(|error| Error::file(&root, error))?;
        sweep(&root);
        LocalFileSystem::new_with_prefix(&root)
            .map_err(|error| Error::store(&format!("file://{}", root.display()), "the folder", error))
    })
    .await;
    match opened {
        Ok(store) => Ok(store.with_fsync(true)),
        Err(Error::File { path, source }) => Err(unavailable(format!("{}: {source}", path.display()))),
        Err(error) => Err(error),
    }
}

/// Deletes the temporary files of writers that were killed. object_store names them `<object>#<number>` and never lists them.
fn sweep(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() {
            sweep(&path);
        } else if is_staged(&path) && meta.modified().is_ok_and(is_stale) {
            match std::fs::remove_file(&path) {
                Ok(()) => tracing::info!(path = %path.display(), "removed what a killed writer left"),
                Err(error) => tracing::warn!(path = %path.display(), %error, "cannot remove what a killed writer left"),
            }
        }
    }
}

fn is_staged(path: &Path) -> bool {
    let suffix = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.rsplit_once('#'));
    suffix.is_some_and(|(_, digits)| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_stale(modified: SystemTime) -> bool {
    SystemTime::now().duration_since(modified).is_ok_and(|age| age > STALE)
}

/// Moves a file to its place in the store, synced; false where it lies on another disk.
pub(crate) fn adopt(file: &Path, to: &Path) -> Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    let folder = to.parent().unwrap_or(Path::new("/"));
    let moved = || {
        let opened = std::fs::File::open(file)?;
        opened.set_permissions(std::fs::Permissions::from_mode(0o644))?;
        opened.sync_all()?;
        std::fs::create_dir_all(folder)?;
        std::fs::rename(file, to)?;
        std::fs::File::open(folder)?.sync_all()
    };
    match moved() {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => Ok(false),
        Err(error) => Err(Error::file(to, error)),
    }
}

/// Gives a temporary file its name, readable as an ordinary file is.
pub(crate) fn publish(file: NamedTempFile, to: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.as_file()
        .set_permissions(std::fs::Permissions::from_mode(0o644))
        .and_then(|()| file.persist(to).map_err(|error| error.error))
        .map(drop)
        .map_err(|error| Error::file(to, error))
}
