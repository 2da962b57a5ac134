//! Packed token streams `tokens-00000.bin`, ...: little-endian u16 where the vocabulary allows it, else u32; read into memory.

use std::{
    fmt,
    fs::File,
    io::{BufWriter, Write as _},
    path::PathBuf,
    str::FromStr,
};

use bytes::Bytes;

use crate::Error;

/// Bytes after which the next token shard begins.
pub const TOKEN_SHARD_BYTES: usize = 64 << 20;

/// How wide a stored token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenWidth {
    /// 2 bytes: vocabularies up to 65536.
    U16,
    /// 4 bytes.
    U32,
}

impl TokenWidth {
    /// The narrowest width for a vocabulary.
    #[must_use]
    pub fn of(vocabulary_size: usize) -> Self {
        if vocabulary_size <= 1 << 16 { Self::U16 } else { Self::U32 }
    }

    /// Bytes a token.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::U16 => 2,
            Self::U32 => 4,
        }
    }
}

impl fmt::Display for TokenWidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::U16 => "u16",
            Self::U32 => "u32",
        })
    }
}

impl FromStr for TokenWidth {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "u16" => Ok(Self::U16),
            "u32" => Ok(Self::U32),
            _ => Err(Error::Invalid(format!("{name:?} is not a token width: use u16 or u32"))),
        }
    }
}

/// Writes a token stream into a folder's shards. Even no tokens give one shard.
pub struct TokenWriter {
    folder: PathBuf,
    width: TokenWidth,
    roll_bytes: usize,
    open: Option<BufWriter<File>>,
    written: usize,
    names: Vec<String>,
    tokens: u64,
}

impl TokenWriter {
    /// A writer into `folder`, which it creates.
    pub fn create(folder: impl Into<PathBuf>, width: TokenWidth) -> Result<Self, Error> {
        Self::rolling(folder, width, TOKEN_SHARD_BYTES)
    }

    fn rolling(folder: impl Into<PathBuf>, width: TokenWidth, roll_bytes: usize) -> Result<Self, Error> {
        let folder = folder.into();
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let mut writer = Self { folder, width, roll_bytes, open: None, written: 0, names: Vec::new(), tokens: 0 };
        writer.roll()?;
        Ok(writer)
    }

    /// Appends ids; refuses one that does not fit the width.
    pub fn push(&mut self, ids: &[u32]) -> Result<(), Error> {
        for &id in ids {
            if self.written + self.width.bytes() > self.roll_bytes {
                self.roll()?;
            }
            let bytes = id.to_le_bytes();
            if self.width == TokenWidth::U16 && id > u32::from(u16::MAX) {
                return Err(Error::Invalid(format!("token {id} does not fit into u16")));
            }
            let path = || self.folder.join(self.names.last().map_or("", String::as_str));
            let file = self.open.as_mut().expect("a shard is open from creation to finish");
            file.write_all(&bytes[..self.width.bytes()]).map_err(|e| Error::io(&path())(e))?;
            self.written += self.width.bytes();
        }
        self.tokens += ids.len() as u64;
        Ok(())
    }

    /// Tokens pushed so far.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Completes the last shard and returns the names of all of them, in order.
    pub fn finish(mut self) -> Result<Vec<String>, Error> {
        self.close()?;
        Ok(self.names)
    }

    fn roll(&mut self) -> Result<(), Error> {
        self.close()?;
        let name = format!("tokens-{:05}.bin", self.names.len());
        let path = self.folder.join(&name);
        self.open = Some(BufWriter::with_capacity(1 << 20, File::create(&path).map_err(Error::io(&path))?));
        self.names.push(name);
        self.written = 0;
        Ok(())
    }

    fn close(&mut self) -> Result<(), Error> {
        if let Some(buffered) = self.open.take() {
            let path = self.folder.join(self.names.last().map_or("", String::as_str));
            let file = buffered.into_inner().map_err(|e| e.into_error()).map_err(Error::io(&path))?;
            file.sync_all().map_err(Error::io(&path))?;
        }
        Ok(())
    }
}

/// A token stream in memory, checked against the vocabulary once, so that later lookups cannot leave the embedding.
#[derive(Debug, Clone)]
pub struct Tokens {
    bytes: Bytes,
    width: TokenWidth,
}

impl Tokens {
    /// Joins shards in order; refuses partial tokens and ids beyond the vocabulary.
    pub fn read(shards: Vec<Bytes>, width: TokenWidth, vocabulary_size: usize) -> Result<Self, Error> {
        let bytes = match <[Bytes; 1]>::try_from(shards) {
            Ok([shard]) => shard,
            Err(shards) => shards.concat().into(),
        };
        if !bytes.len().is_multiple_of(width.bytes()) {
            return Err(Error::corrupt("token stream", format!("{} bytes are not whole {width} tokens", bytes.len())));
        }
        let tokens = Self { bytes, width };
        if let Some(at) = (0..tokens.len()).find(|&at| tokens.get(at) as usize >= vocabulary_size) {
            let detail = format!("token {} at {at} is beyond the vocabulary of {vocabulary_size}", tokens.get(at));
            return Err(Error::corrupt("token stream", detail));
        }
        Ok(tokens)
    }

    /// How many tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() / self.width.bytes()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The token at `at`; panics beyond the end, as a slice does.
    #[must_use]
    pub fn get(&self, at: usize) -> u32 {
        match self.width {
            TokenWidth::U16 => u32::from(u16::from_le_bytes([self.bytes[2 * at], self.bytes[2 * at + 1]])),
            TokenWidth::U32 => {
                let b = &self.bytes[4 * at..4 * at + 4];
                u32::from_le_bytes([b[0], b[1], b[2], b[3]])
            }
        }
    }

    /// Fills `out` with the tokens from `start` on, as libtorch wants indices; panics beyond the end.
    pub fn copy_to(&self, start: usize, out: &mut [i64]) {
        for (i, slot) in out.iter_mut().enumerate() {
            *slot = i64::from(self.get(start + i));
        }
    }

    /// The tokens in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.len()).map(|at| self.get(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trip(width: TokenWidth, ids: &[u32], vocabulary: usize) -> Result<Tokens, Error> {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = TokenWriter::rolling(folder.path(), width, 64).unwrap();
        ids.chunks(7).try_for_each(|ids| writer.push(ids))?;
        assert_eq!(writer.tokens(), ids.len() as u64);
        let shards =
            writer.finish()?.iter().map(|name| std::fs::read(folder.path().join(name)).unwrap().into()).collect();
        Tokens::read(shards, width, vocabulary)
    }

    #[test]
    fn tokens_survive_shards_in_both_widths() {
        let ids: Vec<u32> = (0..1000).map(|i| i * 65).collect();
        for width in [TokenWidth::U16, TokenWidth::U32] {
            let tokens = trip(width, &ids, 65_536).unwrap();
            assert_eq!(tokens.iter().collect::<Vec<_>>(), ids);
            let mut window = [0; 3];
            tokens.copy_to(500, &mut window);
            assert_eq!(window, [32_500, 32_565, 32_630]);
        }
        assert!(trip(TokenWidth::U32, &[], 1).unwrap().is_empty());
        assert_eq!((TokenWidth::of(65_536), TokenWidth::of(65_537)), (TokenWidth::U16, TokenWidth::U32));
    }

    #[test]
    fn a_token_that_does_not_fit_is_refused() {
        assert!(trip(TokenWidth::U16, &[70_000], 100_000).unwrap_err().to_string().contains("70000"));
        assert!(trip(TokenWidth::U16, &[5, 300], 300).unwrap_err().to_string().contains("token 300 at 1"));
        let odd = Tokens::read(vec![Bytes::from_static(&[1, 0, 2])], TokenWidth::U16, 10);
        assert!(odd.unwrap_err().to_string().contains("3 bytes"));
    }
}
