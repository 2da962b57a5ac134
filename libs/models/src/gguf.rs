//! GGUF files of the Llama family (llama, mistral, qwen2, qwen3) as Hugging Face checkpoints: a `config.json`, and float32
//! tensors under Hugging Face's names. Files are not trusted: a broken one is an error that names the tensor.

mod blocks;
mod config;
mod cursor;
mod header;
mod names;
mod rope;
mod value;

use std::{
    collections::BTreeMap,
    fs::File,
    io::BufReader,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use tch::{Device, Tensor};

pub use blocks::Storage;
pub use header::TensorInfo;
pub use value::Value;

use crate::{Config, Error, Model, Result};
use header::Header;

/// An open GGUF file: its header is read and checked, its tensors are read when asked for.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    file: File,
    header: Header,
}

/// Opens a file and checks its header against its size.
pub fn open(path: &Path) -> Result<Gguf> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let header = header::read(BufReader::new(&file), size)
        .map_err(|problems| Error::Weights { path: path.to_owned(), problems })?;
    Ok(Gguf { path: path.to_owned(), file, header })
}

impl Gguf {
    /// The version of the format.
    pub fn version(&self) -> u32 {
        self.header.version
    }

    /// Everything the file says about itself, by key.
    pub fn metadata(&self) -> &BTreeMap<String, Value> {
        &self.header.metadata
    }

    /// The tensors as they lie in the file.
    pub fn infos(&self) -> &[TensorInfo] {
        &self.header.tensors
    }

    /// The text of an equivalent `config.json`.
    pub fn config_json(&self) -> Result<String> {
        let factors = match self.infos().iter().find(|info| info.name == names::ROPE_FACTORS) {
            Some(info) => Some(info.storage.decode(&self.bytes(info)?)),
            None => None,
        };
        config::json(&self.header, factors.as_deref())
            .map_err(|problems| Error::Config { path: self.path.clone(), problems })
    }

    /// The shape of the model.
    pub fn config(&self) -> Result<Config> {
        Config::from_json(&self.config_json()?).map_err(|problems| Error::Config { path: self.path.clone(), problems })
    }

    /// All tensors in float32 under Hugging Face's names, with queries and keys ordered for half-split rotation.
    pub fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        let interleaved = names::Interleaved::of(&self.header);
        let mut tensors = BTreeMap::new();
        let mut problems = Vec::new();
        for info in self.infos().iter().filter(|info| info.name != names::ROPE_FACTORS) {
            let Some(name) = names::hugging_face(&info.name) else {
                problems.push(format!("tensor {} is not part of this architecture", info.name));
                continue;
            };
            let values = info.storage.decode(&self.bytes(info)?);
            let mut tensor = Tensor::f_from_slice(&values)?.f_view(info.shape.as_slice())?;
            if let Some(interleaved) = &interleaved {
                match interleaved.arranged(&info.name, tensor)? {
                    Ok(arranged) => tensor = arranged,
                    Err(problem) => {
                        problems.push(problem);
                        continue;
                    }
                }
            }
            tensors.insert(name, tensor);
        }
        if problems.is_empty() { Ok(tensors) } else { Err(self.broken(problems)) }
    }

    /// The model, on a device.
    pub fn model(&self, device: Device) -> Result<Model> {
        crate::directory::build(self.config()?, self.tensors()?, &self.path, device, false)
    }

    fn bytes(&self, info: &TensorInfo) -> Result<Vec<u8>> {
        let mut bytes = vec![0; info.size];
        self.file
            .read_exact_at(&mut bytes, info.offset)
            .map_err(|source| Error::Io { path: self.path.clone(), source })?;
        Ok(bytes)
    }

    fn broken(&self, problems: Vec<String>) -> Error {
        Error::Weights { path: self.path.clone(), problems }
    }
}

#[cfg(test)]
mod tests;
