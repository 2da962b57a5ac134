//! A Hugging Face model directory: `config.json` and `model.safetensors`. Tokenizer files beside them are left alone.

use std::{fs, path::Path};

use tch::Device;

use crate::{Config, Error, Model, Result, read_tensors, write_tensors};

/// The file that describes the architecture.
pub const CONFIG_FILE: &str = "config.json";
/// The file that holds the weights.
pub const WEIGHTS_FILE: &str = "model.safetensors";

/// Reads a model onto a device.
pub fn load(directory: &Path, device: Device) -> Result<Model> {
    let config = read_config(directory)?;
    load_weights(config, &directory.join(WEIGHTS_FILE), device)
}

/// Reads `config.json` alone.
pub fn read_config(directory: &Path) -> Result<Config> {
    let path = directory.join(CONFIG_FILE);
    let text = fs::read_to_string(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
    Config::from_json(&text).map_err(|problems| Error::Config { path, problems })
}

/// Writes both files into an existing directory. The same weights give the same bytes.
pub fn save(model: &Model, directory: &Path) -> Result<()> {
    let path = directory.join(CONFIG_FILE);
    fs::write(&path, model.config().to_json()).map_err(|source| Error::Io { path, source })?;
    save_weights(model, &directory.join(WEIGHTS_FILE))
}

/// Reads a weights file for a configuration that is already known, as in a checkpoint.
pub fn load_weights(config: Config, path: &Path, device: Device) -> Result<Model> {
    Model::from_tensors(config, read_tensors(path)?, device)?
        .map_err(|problems| Error::Weights { path: path.to_owned(), problems })
}

/// Writes the weights file alone.
pub fn save_weights(model: &Model, path: &Path) -> Result<()> {
    write_tensors(path, &model.disk_tensors()?)
}
