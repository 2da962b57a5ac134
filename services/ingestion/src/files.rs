//! The files of a source, in the order of their paths: from a folder, from an archive unpacked below the work folder, or one file.

use std::{
    fs::File,
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::{
    error::Error,
    watch::{BeyondLimit, Limited, Watch},
};

/// One file of a source.
pub(crate) struct SourceFile {
    /// Path inside the source, with `/`.
    pub(crate) origin: String,
    /// What can be read of it.
    pub(crate) content: Content,
}

/// What can be read of a file.
pub(crate) enum Content {
    /// Its bytes are in this file.
    At(PathBuf, u64),
    /// It is larger than a record may be: its size and first bytes.
    TooLarge(u64, Vec<u8>),
    /// It cannot be read.
    Unreadable(String),
}

/// How to look for files.
pub(crate) struct Search<'a> {
    /// The source's uri, for errors.
    pub(crate) uri: &'a str,
    /// Which files; none takes all.
    pub(crate) include: Option<GlobSet>,
    /// Files of an archive beyond this size are not unpacked; none unpacks all.
    pub(crate) max_file_bytes: Option<u64>,
    /// Most bytes that an archive may unpack to.
    pub(crate) max_unpacked_bytes: u64,
    /// Where an archive is unpacked.
    pub(crate) work_dir: &'a Path,
    /// The job.
    pub(crate) watch: &'a Watch,
}

/// Bytes of a refused file that are shown.
pub(crate) const EXCERPT_BYTES: usize = 1024;

/// Compiles globs; `*` stays within one folder, `**` crosses.
pub(crate) fn globs(patterns: &[String]) -> Result<Option<GlobSet>, (usize, String)> {
    if patterns.is_empty() {
        return Ok(None);
    }
    let mut set = GlobSetBuilder::new();
    for (index, pattern) in patterns.iter().enumerate() {
        let glob = GlobBuilder::new(pattern).literal_separator(true).build().map_err(|e| (index, e.to_string()))?;
        set.add(glob);
    }
    set.build().map(Some).map_err(|e| (0, e.to_string()))
}

/// Whether a file of this name is unpacked.
pub(crate) fn is_archive(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    [".tgz", ".tar.gz", ".tar"].iter().any(|end| name.ends_with(end))
}

impl Search<'_> {
    /// All files, sorted by path.
    pub(crate) fn files(&self, path: &Path) -> Result<Vec<SourceFile>, Error> {
        let meta = std::fs::metadata(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Error::Missing { uri: self.uri.to_owned() },
            _ => Error::file(path, error),
        })?;
        let mut files = Vec::new();
        if meta.is_dir() {
            self.walk(path, "", &mut files)?;
        } else if is_archive(path) {
            self.unpack(path, &mut files)?;
        } else {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if self.includes(&name) {
                files.push(SourceFile { origin: name, content: Content::At(path.to_owned(), meta.len()) });
            }
        }
        // Stable: files of one name in an archive stay in the archive's order.
        files.sort_by(|a, b| a.origin.cmp(&b.origin));
        Ok(files)
    }

    fn includes(&self, origin: &str) -> bool {
        self.include.as_ref().is_none_or(|include| include.is_match(origin))
    }

    fn walk(&self, folder: &Path, prefix: &str, files: &mut Vec<SourceFile>) -> Result<(), Error> {
        self.watch.check()?;
        let failed = |error| Error::file(folder, error);
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            let origin = format!("{prefix}{}", entry.file_name().to_string_lossy());
            // Links to files are followed, links to folders are not: those can be circles.
            if entry.file_type().map_err(failed)?.is_dir() {
                self.walk(&path, &format!("{origin}/"), files)?;
            } else if self.includes(&origin) {
                let content = match std::fs::metadata(&path) {
                    Ok(meta) if meta.is_file() => Content::At(path, meta.len()),
                    Ok(meta) if meta.is_dir() => continue,
                    Ok(_) => Content::Unreadable("it is not a regular file".to_owned()),
                    Err(error) => Content::Unreadable(error.to_string()),
                };
                files.push(SourceFile { origin, content });
            }
        }
        Ok(())
    }

    /// Unpacks the files that are looked for. Their paths are only names here: each goes to a numbered file.
    fn unpack(&self, path: &Path, files: &mut Vec<SourceFile>) -> Result<(), Error> {
        let file = File::open(path).map_err(|error| Error::file(path, error))?;
        let size = file.metadata().map_or(0, |meta| meta.len());
        self.watch.phase("unpacking", "bytes", size);
        let packed = BufReader::with_capacity(1 << 16, Counted { reader: self.watch.reader(file), watch: self.watch });
        let unpacked: Box<dyn Read> = match path.extension() {
            Some(extension) if extension.eq_ignore_ascii_case("tar") => Box::new(packed),
            _ => Box::new(MultiGzDecoder::new(packed)),
        };
        let mut archive = tar::Archive::new(Limited::new(unpacked, self.max_unpacked_bytes));
        let folder = self.work_dir.join("unpacked");
        std::fs::create_dir_all(&folder).map_err(|error| Error::file(&folder, error))?;
        let mut written = 0;
        for entry in archive.entries().map_err(|error| self.damage(error))? {
            let mut entry = entry.map_err(|error| self.damage(error))?;
            let kind = entry.header().entry_type();
            let origin = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            if !(kind.is_file() || kind.is_gnu_sparse()) || !self.includes(&origin) {
                continue;
            }
            if self.max_file_bytes.is_some_and(|limit| entry.size() > limit) {
                let mut excerpt = Vec::new();
                let size = entry.size();
                entry.take(EXCERPT_BYTES as u64).read_to_end(&mut excerpt).map_err(|error| self.damage(error))?;
                files.push(SourceFile { origin, content: Content::TooLarge(size, excerpt) });
                continue;
            }
            let to = folder.join(files.len().to_string());
            written += self.copy(&mut entry, &to, self.max_unpacked_bytes - written)?;
            let size = std::fs::metadata(&to).map_err(|error| Error::file(&to, error))?.len();
            files.push(SourceFile { origin, content: Content::At(to, size) });
        }
        // The end holds the checksum: reading it tells a whole archive from a cut one.
        io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(|error| self.damage(error))?;
        Ok(())
    }

    /// Copies with the errors of reading and writing told apart; a sparse file can be larger than its archive.
    fn copy(&self, from: &mut impl Read, to: &Path, limit: u64) -> Result<u64, Error> {
        let mut file = File::create(to).map_err(|error| Error::file(to, error))?;
        let mut buffer = vec![0; 1 << 16];
        let mut copied = 0;
        loop {
            self.watch.check()?;
            let count = from.read(&mut buffer).map_err(|error| self.damage(error))?;
            if count == 0 {
                return Ok(copied);
            }
            copied += count as u64;
            if copied > limit {
                return Err(self.damage(io::Error::other(BeyondLimit)));
            }
            file.write_all(&buffer[..count]).map_err(|error| Error::file(to, error))?;
        }
    }

    fn damage(&self, error: io::Error) -> Error {
        if self.watch.check().is_err() {
            return Error::Stopped;
        }
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(inner) = cause {
            let wrapped = inner.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            if inner.is::<BeyondLimit>() || wrapped.is_some_and(|wrapped| wrapped.is::<BeyondLimit>()) {
                return Error::TooLarge { uri: self.uri.to_owned(), limit: self.max_unpacked_bytes };
            }
            cause = inner.source();
        }
        Error::Damaged { uri: self.uri.to_owned(), detail: format!("the archive cannot be unpacked: {error}") }
    }
}

struct Counted<'a, R> {
    reader: R,
    watch: &'a Watch,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.watch.advance(count as u64);
        Ok(count)
    }
}
