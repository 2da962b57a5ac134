//! Blobs: bytes under their digest, written once, verified whenever they are read whole.

use std::fs::File;
use std::io::{Read, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, WriteMultipart};

use crate::digest::Hasher;
use crate::error::is_missing;
use crate::{Digest, Error, Result, local, s3};

/// Files above this size are written in parts, so that memory stays bounded.
const WHOLE: u64 = 32 << 20;
/// Bytes of a part; S3 wants at least 5 MiB.
const PART: usize = 8 << 20;
/// How often a blob is put that another writer seems to have put, and has not.
const ATTEMPTS: u64 = 5;

/// The artifact store. Cheap to clone.
#[derive(Clone)]
pub struct Artifacts {
    pub(crate) url: Arc<str>,
    pub(crate) objects: Arc<dyn ObjectStore>,
    /// Where blobs lie as files, if they do.
    folder: Option<Arc<Path>>,
}

impl Artifacts {
    /// Opens the store that a URL names: `file:///path/to/folder`, `memory:` for tests, or
    /// `s3://bucket/prefix?endpoint=https://host&region=us-east-1&credentials_file=/path`; without `credentials_file` the usual
    /// environment of AWS applies.
    pub async fn connect(url: &str) -> Result<Artifacts> {
        let mut folder = None;
        let objects: Arc<dyn ObjectStore> = match url.split_once(':') {
            Some(("file", path)) => {
                folder = path.strip_prefix("//").map(|root| Arc::from(Path::new(root)));
                Arc::new(local::open(url, path).await?)
            }
            Some(("memory", _)) => Arc::new(object_store::memory::InMemory::new()),
            Some(("s3", _)) => s3::open(url).await?,
            _ => {
                let reason = format!("unknown scheme; use file:///path/to/folder or {}", s3::EXAMPLE);
                return Err(Error::Unavailable { url: tidemill_address::masked(url), reason });
            }
        };
        Ok(Artifacts { url: url.into(), objects, folder })
    }

    /// Stores bytes; storing the same bytes again changes nothing.
    pub async fn put(&self, bytes: impl Into<Bytes>) -> Result<(Digest, u64)> {
        let bytes = bytes.into();
        let (digest, bytes) = blocking(move || (Digest::of(&bytes), bytes)).await;
        let size = bytes.len() as u64;
        if !self.is_there(&digest, size).await? {
            self.create(&digest, bytes).await?;
        }
        Ok((digest, size))
    }

    /// Stores a file. It must not change meanwhile.
    pub async fn put_file(&self, path: &Path) -> Result<(Digest, u64)> {
        let owned = path.to_owned();
        let (mut file, digest, size) = blocking(move || {
            let hashed = || {
                let mut file = File::open(&owned)?;
                let (digest, size) = Digest::of_reader(&mut file)?;
                std::io::Seek::rewind(&mut file)?;
                Ok((file, digest, size))
            };
            hashed().map_err(|error| Error::file(&owned, error))
        })
        .await?;
        if self.is_there(&digest, size).await? {
            return Ok((digest, size));
        }
        let changed = || Error::invalid(path.display().to_string(), "it changed while it was being stored");
        if size <= WHOLE {
            let owned = path.to_owned();
            let (read, bytes) = blocking(move || {
                let mut bytes = Vec::with_capacity(size as usize);
                file.read_to_end(&mut bytes).map_err(|error| Error::file(&owned, error))?;
                Ok::<_, Error>((Digest::of(&bytes), bytes))
            })
            .await?;
            if read != digest {
                return Err(changed());
            }
            self.create(&digest, bytes.into()).await?;
        } else {
            // Parts become visible together, by a rename or the end of the upload; should two processes race, both bring the same bytes.
            let key = blob_key(&digest);
            let upload = self.objects.put_multipart(&key).await.map_err(|error| self.failed(&digest, error))?;
            let mut upload = WriteMultipart::new_with_chunk_size(upload, PART);
            match self.send(file, path, &mut upload).await {
                Ok(read) if read == digest => {
                    upload.finish().await.map_err(|error| self.failed(&digest, error))?;
                }
                outcome => {
                    // What failed is the news; an abort that fails too leaves a part that `connect` or the bucket's rule sweeps.
                    let _ = upload.abort().await;
                    outcome?;
                    return Err(changed());
                }
            }
        }
        Ok((digest, size))
    }

    /// Stores a file that is given away, and must not change: a store on the same disk takes it as it is, without a copy.
    pub async fn take_file(&self, path: &Path) -> Result<(Digest, u64)> {
        let Some(folder) = self.folder.clone() else { return self.put_file(path).await };
        let owned = path.to_owned();
        let hashed = blocking(move || {
            let digest = File::open(&owned).and_then(Digest::of_reader);
            digest.map_err(|error| Error::file(&owned, error))
        });
        let (digest, size) = hashed.await?;
        if self.is_there(&digest, size).await? {
            return Ok((digest, size));
        }
        let (owned, to) = (path.to_owned(), folder.join(blob_key(&digest).as_ref()));
        match blocking(move || local::adopt(&owned, &to)).await? {
            true => Ok((digest, size)),
            false => self.put_file(path).await,
        }
    }

    async fn send(&self, mut file: File, path: &Path, upload: &mut WriteMultipart) -> Result<Digest> {
        let mut hasher = Hasher::default();
        loop {
            let owned = path.to_owned();
            let (part, rest, back) = blocking(move || {
                let mut part = Vec::with_capacity(PART);
                (&file).take(PART as u64).read_to_end(&mut part).map_err(|error| Error::file(&owned, error))?;
                hasher.update(&part);
                Ok::<_, Error>((part, file, hasher))
            })
            .await?;
            (file, hasher) = (rest, back);
            if part.is_empty() {
                return Ok(hasher.finish().0);
            }
            upload.wait_for_capacity(2).await.map_err(|error| Error::store(&self.url, "a part", error))?;
            upload.put(part.into());
        }
    }

    /// Reads a blob whole, and verifies it.
    pub async fn get(&self, digest: &Digest) -> Result<Bytes> {
        self.get_as(digest, &format!("artifact {digest}")).await
    }

    pub(crate) async fn get_as(&self, digest: &Digest, what: &str) -> Result<Bytes> {
        let failed = |error| Error::store(&self.url, what, error);
        let bytes = self.objects.get(&blob_key(digest)).await.map_err(failed)?.bytes().await.map_err(failed)?;
        let (found, bytes) = blocking(move || (Digest::of(&bytes), bytes)).await;
        if found != *digest {
            return Err(Error::Mismatch { what: what.to_owned(), digest: *digest, found });
        }
        Ok(bytes)
    }

    /// Reads a part of a blob. A part cannot be verified.
    pub async fn get_range(&self, digest: &Digest, range: Range<u64>) -> Result<Bytes> {
        let size = self.size(digest).await?.ok_or_else(|| Error::NotFound(format!("artifact {digest}")))?;
        if range.start > range.end || range.end > size {
            let reason = format!("{range:?} is not within the {size} bytes of {digest}");
            return Err(Error::invalid("range", reason));
        }
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        self.objects.get_range(&blob_key(digest), range).await.map_err(|error| self.failed(digest, error))
    }

    /// Copies a blob to a file, verified; the file appears whole or not at all, and replaces one that is there.
    pub async fn fetch(&self, digest: &Digest, to: &Path) -> Result<()> {
        self.fetch_as(digest, to, &format!("artifact {digest}")).await
    }

    pub(crate) async fn fetch_as(&self, digest: &Digest, to: &Path, what: &str) -> Result<()> {
        let owned = to.to_owned();
        let mut file = blocking(move || {
            let folder = owned.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            std::fs::create_dir_all(folder)
                .and_then(|()| tempfile::Builder::new().prefix(".fetch-").tempfile_in(folder))
                .map_err(|error| Error::file(folder, error))
        })
        .await?;
        let failed = |error| Error::store(&self.url, what, error);
        let mut stream = self.objects.get(&blob_key(digest)).await.map_err(failed)?.into_stream();
        let mut hasher = Hasher::default();
        while let Some(bytes) = stream.try_next().await.map_err(failed)? {
            let owned = to.to_owned();
            (file, hasher) = blocking(move || {
                hasher.update(&bytes);
                file.write_all(&bytes).map_err(|error| Error::file(&owned, error))?;
                Ok::<_, Error>((file, hasher))
            })
            .await?;
        }
        let (found, _) = hasher.finish();
        if found != *digest {
            return Err(Error::Mismatch { what: what.to_owned(), digest: *digest, found });
        }
        let owned = to.to_owned();
        blocking(move || local::publish(file, &owned)).await
    }

    /// The size of a blob, if it is there.
    pub async fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        match self.objects.head(&blob_key(digest)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(self.failed(digest, error)),
        }
    }

    /// Reads a blob to verify it.
    pub async fn verify(&self, digest: &Digest) -> Result<()> {
        self.verify_as(digest, &format!("artifact {digest}")).await
    }

    pub(crate) async fn verify_as(&self, digest: &Digest, what: &str) -> Result<()> {
        let failed = |error| Error::store(&self.url, what, error);
        let mut stream = self.objects.get(&blob_key(digest)).await.map_err(failed)?.into_stream();
        let mut hasher = Hasher::default();
        while let Some(bytes) = stream.try_next().await.map_err(failed)? {
            hasher = blocking(move || {
                hasher.update(&bytes);
                hasher
            })
            .await;
        }
        let (found, _) = hasher.finish();
        if found == *digest { Ok(()) } else { Err(Error::Mismatch { what: what.to_owned(), digest: *digest, found }) }
    }

    /// Deletes a blob or manifest; deleting what is not there changes nothing.
    pub async fn delete_blob(&self, digest: &Digest) -> Result<()> {
        match self.objects.delete(&blob_key(digest)).await {
            Ok(()) => Ok(()),
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(self.failed(digest, error)),
        }
    }

    /// Whether a blob is there. One of another size than its bytes is damaged: nothing overwrites it, so say so.
    async fn is_there(&self, digest: &Digest, size: u64) -> Result<bool> {
        match self.size(digest).await? {
            None => Ok(false),
            Some(present) if present == size => Ok(true),
            Some(_) => self.verify(digest).await.map(|()| true),
        }
    }

    async fn create(&self, digest: &Digest, bytes: Bytes) -> Result<()> {
        let (key, size) = (blob_key(digest), bytes.len() as u64);
        let mut attempt = 1;
        loop {
            match self.objects.put_opts(&key, bytes.clone().into(), PutMode::Create.into()).await {
                Ok(_) => return Ok(()),
                // S3 also says so while another put of the same key is under way, which may yet fail.
                Err(error @ object_store::Error::AlreadyExists { .. }) => {
                    if self.is_there(digest, size).await? {
                        return Ok(());
                    }
                    if attempt == ATTEMPTS {
                        return Err(self.failed(digest, error));
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(100 * attempt)).await;
                    attempt += 1;
                }
                Err(error) => return Err(self.failed(digest, error)),
            }
        }
    }

    fn failed(&self, digest: &Digest, error: object_store::Error) -> Error {
        Error::store(&self.url, &format!("artifact {digest}"), error)
    }
}

impl std::fmt::Debug for Artifacts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Artifacts").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Where a blob lies: two levels, so that no folder grows too large.
fn blob_key(digest: &Digest) -> Key {
    let hex = digest.hex();
    Key::from_iter(["blobs", "sha256", &hex[..2], &hex])
}

/// Runs what blocks or computes for long away from the async threads.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down: nobody will look at the result.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests;
