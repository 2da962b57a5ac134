//! Pages of a list and the opaque tokens between them (AIP-158).

use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// Page size where none is asked for.
const USUAL: usize = 50;
/// Largest page.
pub(super) const MOST: usize = 1000;
/// Bytes of a token that tie it to its request.
const SEAL: usize = 8;

/// Which page of a list.
#[derive(Clone, Debug, Default)]
pub struct ListPage {
    /// Only names that start with this, `models/sotu/versions/`; empty means all.
    pub name_prefix: String,
    /// As in the request: 0 means 50, more than 1000 means 1000, a negative one is an error.
    pub page_size: i32,
    /// As in the request: empty means the first page.
    pub page_token: String,
    /// Any text made of the request's other arguments (a filter): a token is refused where they differ.
    pub arguments_hash: String,
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<R> {
    /// Newest first.
    pub items: Vec<R>,
    /// Empty on the last page.
    pub next_page_token: String,
}

impl ListPage {
    pub(super) fn limit(&self) -> Result<usize> {
        match usize::try_from(self.page_size) {
            Ok(0) => Ok(USUAL),
            Ok(size) => Ok(size.min(MOST)),
            Err(_) => Err(Error::InvalidArgument {
                field: "page_size".to_owned(),
                reason: format!("{} is negative; use 0 for the usual size, or 1 to {MOST}", self.page_size),
            }),
        }
    }

    /// The position after which the page begins.
    pub(super) fn position(&self, collection: &str) -> Result<Option<(i64, String)>> {
        if self.page_token.is_empty() {
            return Ok(None);
        }
        let broken = || Error::InvalidArgument {
            field: "page_token".to_owned(),
            reason: "it does not belong to this request; repeat the other arguments unchanged, or start without it"
                .to_owned(),
        };
        let token = hex::decode(&self.page_token).map_err(|_| broken())?;
        let (seal, position) = token.split_first_chunk::<SEAL>().ok_or_else(broken)?;
        let (micros, name) = position.split_first_chunk::<8>().ok_or_else(broken)?;
        let name = std::str::from_utf8(name).map_err(|_| broken())?;
        if *seal != self.seal(collection, position) {
            return Err(broken());
        }
        Ok(Some((i64::from_be_bytes(*micros), name.to_owned())))
    }

    /// The token of the page after a position.
    pub(super) fn token(&self, collection: &str, micros: i64, name: &str) -> String {
        let position = [&micros.to_be_bytes(), name.as_bytes()].concat();
        hex::encode(self.seal(collection, &position)) + &hex::encode(position)
    }

    fn seal(&self, collection: &str, position: &[u8]) -> [u8; SEAL] {
        let mut hasher = Sha256::new();
        for part in [collection.as_bytes(), self.name_prefix.as_bytes(), self.arguments_hash.as_bytes(), position] {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        let digest = hasher.finalize();
        std::array::from_fn(|index| digest[index])
    }
}
