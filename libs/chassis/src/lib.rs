//! What every service needs that is not its business: settings, telemetry, transport, server, shutdown, status.

pub mod metrics;
pub mod server;
pub mod settings;
pub mod shutdown;
pub mod status;
pub mod telemetry;
pub mod tls;
pub mod transport;

mod admin;
mod auth;
mod observe;

pub use server::{Service, Task};
pub use settings::Settings;
pub use status::Fault;
