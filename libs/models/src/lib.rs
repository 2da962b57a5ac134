//! Model architectures over libtorch, and the Hugging Face directory they are read from and written to.
//!
//! One definition serves training, evaluation and inference: [`Model::forward`] takes its attention as an argument.

mod attention;
mod bert;
mod builder;
mod cache;
pub mod config;
mod directory;
mod error;
mod flops;
pub mod generate;
pub mod gguf;
mod gpt2;
mod initial;
mod linear;
mod llama;
mod lora;
mod model;
mod names;
mod norm;
mod parameter;
mod recompute;
mod rope;
pub mod sampling;
mod t5;
mod weight;
mod weights;

#[cfg(test)]
mod tests;

pub use attention::{Attention, Documents};
pub use cache::Cache;
pub use config::{Activation, BertConfig, Config, Gpt2Config, LlamaConfig, LlamaMember, Rope, T5Config};
pub use directory::{
    BASE_FOLDER, CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE, load, load_adapted, load_quantized, load_weights, read_config,
    restore_weights, save, save_adapter, save_config, save_sharded,
};
pub use error::{Error, Result};
pub use lora::{ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, LoraConfig};
pub use model::{IGNORED, Model, Pairs};
pub use parameter::Parameter;
pub use recompute::Around;
pub use weights::{read_tensors, write_tensors};
