//! The lock file that lets one process alone have the log. The kernel lets go of it when the process ends, however it ends.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::failed;
use crate::{Error, Result};

pub(super) struct LockFile {
    _file: File,
}

impl LockFile {
    /// Takes `<path>.lock`, and writes this process's id into it for whoever comes second.
    pub(super) fn take(url: &str, path: &Path) -> Result<LockFile> {
        let path = PathBuf::from(format!("{}.lock", path.display()));
        let io = |error: std::io::Error| failed(url, &path, &error);
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                // Only for the message: a process that has just taken the lock may not have written its id yet.
                let _ = file.read_to_string(&mut pid);
                let pid = if pid.trim().is_empty() { "unknown" } else { pid.trim() }.to_owned();
                return Err(Error::InUse { url: url.to_owned(), pid });
            }
            Err(error) => return Err(io(error.into())),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(io)?;
        Ok(LockFile { _file: file })
    }
}
