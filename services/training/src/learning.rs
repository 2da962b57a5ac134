//! Learning itself: from a spec, data and perhaps a base model to weights. Knows nothing of jobs, gRPC or artifacts.
//!
//! On one CPU with one number of threads and ranks the weights are a function of spec, data and base model, byte for byte.

mod average;
mod checkpoint;
mod error;
mod history;
mod loader;
mod muon;
mod objective;
mod optimizer;
mod plot;
mod rows;
mod schedule;
mod spec;
mod trainer;
mod world;

#[cfg(test)]
mod tests;

pub use checkpoint::{Checkpoint, OPTIMIZER_FILE, STATE_FILE};
pub use error::{Error, Result};
pub use history::{History, Point};
pub use loader::{Packed, Samples, Train};
pub use objective::{Distillation, Method, PreferenceLoss};
pub(crate) use plot::Frame;
pub use plot::loss_plot;
pub use rows::{Order, Row, Rows, Sequence};
pub use schedule::{Decay, Schedule};
pub use spec::{Optimizer, Precision, Spec, config_of, method_of};
pub use trainer::{Data, Start, StepReport, Trainer, Validation};
pub use world::World;
