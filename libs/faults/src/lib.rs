//! Faults for tests. A [`Proxy`] stands between a client and a server and fails them as networks do; a [`Server`] is a real one that a
//! test may kill, stop and start again. Only tests depend on this crate.

mod proxy;
mod server;

pub use proxy::{Fault, Proxy};
pub use server::Server;
