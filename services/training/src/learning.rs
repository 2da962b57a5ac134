//! Learning itself: from a spec, data and perhaps a base model to weights. Knows nothing of jobs, gRPC or artifacts.
//!
//! On one CPU with one number of threads and ranks the weights are a function of spec, data and base model, byte for byte.

mod architecture;
mod average;
mod checkpoint;
mod drawn;
mod error;
mod history;
mod loader;
mod masked;
mod muon;
mod objective;
mod optimizer;
mod plot;
mod precision;
mod rewards;
mod rows;
mod schedule;
mod spec;
mod trainer;
mod world;

#[cfg(test)]
mod tests;

pub use architecture::config_of;
pub use checkpoint::{Checkpoint, OPTIMIZER_FILE, STATE_FILE};
pub use drawn::{Judge, ScaleRewards, Verdict};
pub use error::{Error, Result};
pub use history::{History, Point};
pub use loader::{Packed, Samples, Train};
pub use objective::{Distillation, Grouped, GroupedLoss, Method, PreferenceLoss};
pub(crate) use plot::Frame;
pub use plot::loss_plot;
pub use precision::Precision;
pub use rewards::{Reward, Rewards, Rule};
pub use rows::{Order, Prompt, Row, Rows, Sequence};
pub use schedule::{Decay, Schedule};
pub use spec::{Optimizer, Spec, method_of, rewards_of};
pub use trainer::{Data, Start, StepReport, Trainer, Validation};
pub use world::World;
