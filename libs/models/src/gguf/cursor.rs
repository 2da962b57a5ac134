//! Reads the little-endian header of a GGUF file front to back, and never further or more than the file has.

use std::io::Read;

/// A header larger than this is no header: the largest vocabularies take some 20 MiB.
const HEADER_LIMIT: u64 = 256 << 20;

/// Why a header cannot be read: one sentence that names the place.
pub(super) type Broken<T> = Result<T, String>;

pub(super) struct Cursor<R> {
    inner: R,
    position: u64,
    end: u64,
}

impl<R: Read> Cursor<R> {
    pub(super) fn new(inner: R, file_size: u64) -> Self {
        Self { inner, position: 0, end: file_size.min(HEADER_LIMIT) }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn bytes<const N: usize>(&mut self, what: &str) -> Broken<[u8; N]> {
        self.claim(N as u64, what)?;
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes).map_err(|error| format!("{what}: {error}"))?;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self, what: &str) -> Broken<u32> {
        Ok(u32::from_le_bytes(self.bytes(what)?))
    }

    pub(super) fn u64(&mut self, what: &str) -> Broken<u64> {
        Ok(u64::from_le_bytes(self.bytes(what)?))
    }

    /// A number of things of at least `smallest` bytes each, so that the file can hold them.
    pub(super) fn count(&mut self, smallest: u64, what: &str) -> Broken<usize> {
        let count = self.u64(what)?;
        let left = self.end - self.position;
        match usize::try_from(count) {
            Ok(size) if count <= left / smallest => Ok(size),
            _ => Err(format!("{what}: {count} declared, where {left} bytes are left")),
        }
    }

    pub(super) fn text(&mut self, what: &str) -> Broken<String> {
        let length = self.count(1, what)?;
        let mut bytes = vec![0; length];
        self.claim(length as u64, what)?;
        self.inner.read_exact(&mut bytes).map_err(|error| format!("{what}: {error}"))?;
        String::from_utf8(bytes).map_err(|_| format!("{what}: not UTF-8"))
    }

    fn claim(&mut self, length: u64, what: &str) -> Broken<()> {
        if length > self.end - self.position {
            let place = if self.end == HEADER_LIMIT { "the largest header read" } else { "the file" };
            return Err(format!("{what}: {length} bytes at {} reach beyond the end of {place}", self.position));
        }
        self.position += length;
        Ok(())
    }
}
