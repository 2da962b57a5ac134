//! Studies: a search for the hyper-parameters with which a training job does best. Start reading at `study/search.rs`.
//!
//! ```text
//!   search.rs   which trial is next, what a curve makes of it, which is best     runner.rs  jobs for trials, over any crash
//!   space.rs  field.rs   values in a job       sampler.rs  random and TPE        halving.rs  who is stopped early
//! ```

mod field;
mod grpc;
mod halving;
mod objectives;
mod plot;
mod runner;
mod sampler;
mod search;
mod space;
mod validate;

pub(crate) use grpc::Handlers;
#[cfg(test)]
pub(crate) use objectives::objectives;
pub(crate) use runner::StudyRunner;

#[cfg(test)]
pub(crate) mod tests;
