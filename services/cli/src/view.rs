//! What a person sees while work goes on.

mod follow;
mod lines;
mod report;
mod screen;
pub(crate) mod tree;
mod trials;

pub(crate) use follow::{End, follow};
pub(crate) use report::evaluation as evaluation_report;
pub(crate) use trials::trials;
