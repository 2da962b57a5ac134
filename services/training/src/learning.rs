//! Learning itself: from a spec, a token stream and perhaps a base model to weights. Knows nothing of jobs, gRPC or artifacts.
//!
//! On one CPU with one number of threads the weights are a function of spec, data and base model, byte for byte.

mod checkpoint;
mod error;
mod history;
mod loader;
mod optimizer;
mod plot;
mod schedule;
mod spec;
mod trainer;

#[cfg(test)]
mod tests;

pub use checkpoint::{OPTIMIZER_FILE, STATE_FILE};
pub use error::{Error, Result};
pub use history::{History, Point};
pub use loader::{Packed, Samples};
pub use plot::loss_plot;
pub use schedule::Schedule;
pub use spec::{Optimizer, Precision, Spec, config_of};
pub use trainer::{Data, Start, StepReport, Trainer};
