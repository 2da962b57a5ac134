//! Immutable, content-addressed artifacts over an object store.
//!
//! A blob is bytes under their sha256. A [`Manifest`] is a blob of canonical JSON that lists files (path, digest, size) with
//! the kind of the whole, annotations and the digests it came from; the manifest's digest is the artifact's identity. A manifest is
//! written after everything it names, so whoever sees it sees all of it. A reference (`refs/<name>`) is a create-only name for a
//! digest: it is how a worker that died finds its last checkpoint.

pub mod contract;
mod digest;
mod directory;
mod error;
mod local;
mod manifest;
mod refs;
mod s3;
mod store;

pub use digest::Digest;
pub use error::{Error, Result};
pub use manifest::{Entry, Manifest};
pub use store::Artifacts;
