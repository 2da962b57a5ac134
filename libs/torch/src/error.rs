//! What can go wrong inside libtorch.

/// A failure of libtorch, told in its own words.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The shim caught a C++ exception.
    #[error("libtorch: {0}")]
    Shim(String),
    /// tch reported an error.
    #[error("libtorch: {0}")]
    Tch(#[from] tch::TchError),
    /// Lists that belong together differ in length.
    #[error("{what}: expected {expected} tensors, got {actual}")]
    Count {
        /// Which list.
        what: &'static str,
        /// How many tensors it must have.
        expected: usize,
        /// How many it has.
        actual: usize,
    },
    /// An address is not one to listen at.
    #[error("cannot listen at {address}: {source}")]
    Listen {
        /// Which.
        address: std::net::IpAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
