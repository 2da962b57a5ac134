//! Model architectures over libtorch, and the Hugging Face directory they are read from and written to.
//!
//! One definition serves training, evaluation and inference: [`Model::forward`] takes its attention as an argument.

mod attention;
mod builder;
mod cache;
pub mod config;
mod directory;
mod error;
mod gpt2;
mod initial;
mod llama;
mod model;
mod parameter;
pub mod sampling;
mod weights;

#[cfg(test)]
mod tests;

pub use attention::Attention;
pub use cache::Cache;
pub use config::{Activation, Config, Gpt2Config, LlamaConfig};
pub use directory::{CONFIG_FILE, WEIGHTS_FILE, load, load_weights, read_config, save, save_weights};
pub use error::{Error, Result};
pub use model::{IGNORED, Model};
pub use parameter::Parameter;
pub use weights::{read_tensors, write_tensors};
