//! A Hugging Face model directory: `config.json` and the weights, in one file or in shards. Tokenizer files beside them are left alone.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tch::{Device, Tensor};

use crate::{
    Config, Error, LoraConfig, Model, Result,
    lora::{self, ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, Values},
    names, read_tensors, write_tensors,
};

/// The file that describes the architecture.
pub const CONFIG_FILE: &str = "config.json";
/// The file that holds the weights.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// The file that says which shard holds which tensor.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// Where an adapter's directory keeps the model that it is for.
pub const BASE_FOLDER: &str = "base";

/// Reads a model onto a device. A directory of an adapter holds its base in the folder `base`.
pub fn load(directory: &Path, device: Device) -> Result<Model> {
    if directory.join(ADAPTER_CONFIG_FILE).exists() {
        return load_adapted(&directory.join(BASE_FOLDER), directory, device);
    }
    let config = read_config(directory)?;
    let (tensors, path) = read_weights(directory)?;
    build(config, tensors, &path, device, false)
}

/// Reads a model as [`load`] does, and keeps the matrices inside its layers in NF4 (QLoRA, arXiv 2305.14314), for an adapter to be
/// trained beside them. Embeddings, head, norms and biases stay float32. If it has an adapter, that is merged before.
pub fn load_quantized(directory: &Path, device: Device) -> Result<Model> {
    if directory.join(ADAPTER_CONFIG_FILE).exists() {
        let mut model = load(directory, Device::Cpu)?;
        model.merge_adapter()?;
        let (config, tensors) = (model.config().clone(), model.base_tensors()?.into_iter().collect());
        drop(model);
        return build(config, tensors, &directory.join(ADAPTER_WEIGHTS_FILE), device, true);
    }
    let config = read_config(directory)?;
    let (tensors, path) = read_weights(directory)?;
    build(config, tensors, &path, device, true)
}

/// The tensors of a directory, in one file or in shards, and the file that names them.
fn read_weights(directory: &Path) -> Result<(BTreeMap<String, Tensor>, PathBuf)> {
    let (whole, index) = (directory.join(WEIGHTS_FILE), directory.join(INDEX_FILE));
    match index.exists() && !whole.exists() {
        true => Ok((read_shards(directory)?, index)),
        false => Ok((read_tensors(&whole)?, whole)),
    }
}

/// Reads `config.json` alone.
pub fn read_config(directory: &Path) -> Result<Config> {
    let path = directory.join(CONFIG_FILE);
    let text = read_text(&path)?;
    Config::from_json(&text).map_err(|problems| Error::Config { path, problems })
}

/// Writes both files into an existing directory. The same weights give the same bytes. An adapter is left out.
pub fn save(model: &Model, directory: &Path) -> Result<()> {
    save_config(model, directory)?;
    write_tensors(&directory.join(WEIGHTS_FILE), &model.base_tensors()?)
}

/// Writes the model into shards of at most `bytes` (or one tensor, if that is larger), and their index. One shard is a plain file.
pub fn save_sharded(model: &Model, directory: &Path, bytes: u64) -> Result<()> {
    let mut shards: Vec<(u64, Vec<(String, Tensor)>)> = Vec::new();
    let mut total = 0;
    for (name, tensor) in model.base_tensors()? {
        let size = 4 * tensor.numel() as u64;
        total += size;
        match shards.last_mut() {
            Some((used, tensors)) if *used + size <= bytes => {
                *used += size;
                tensors.push((name, tensor));
            }
            _ => shards.push((size, vec![(name, tensor)])),
        }
    }
    if shards.len() <= 1 {
        return save(model, directory);
    }
    save_config(model, directory)?;
    let mut map = BTreeMap::new();
    let count = shards.len();
    for (number, (_, tensors)) in shards.iter().enumerate() {
        let file = format!("model-{:05}-of-{count:05}.safetensors", number + 1);
        write_tensors(&directory.join(&file), tensors)?;
        map.extend(tensors.iter().map(|(name, _)| (name.clone(), file.clone())));
    }
    let index = json!({"metadata": {"total_size": total}, "weight_map": map});
    write_text(&directory.join(INDEX_FILE), &format!("{index:#}\n"))
}

/// Reads a weights file for a configuration that is already known, as in a checkpoint.
pub fn load_weights(config: Config, path: &Path, device: Device) -> Result<Model> {
    build(config, read_tensors(path)?, path, device, false)
}

/// A model of tensors that were read from `path`; `quantize` keeps the matrices inside its layers in NF4.
pub(crate) fn build(
    mut config: Config,
    tensors: BTreeMap<String, Tensor>,
    path: &Path,
    device: Device,
    quantize: bool,
) -> Result<Model> {
    let (tensors, mut problems) = names::canonical(&mut config, tensors)?;
    let failed = |problems| Error::Weights { path: path.to_owned(), problems };
    match Model::from_tensors(config, tensors, device, quantize)? {
        Ok(model) if problems.is_empty() => Ok(model),
        Ok(_) => Err(failed(problems)),
        Err(others) => {
            problems.extend(others);
            Err(failed(problems))
        }
    }
}

/// Reads a file of the tensors that are trained, as [`Model::disk_tensors`] gives them, into a model of the same shape: into those
/// parameters, by their numbers, that are here.
///
/// # Errors
/// Tensors that are missing, misshapen or too many, all listed.
pub fn restore_weights(model: &Model, path: &Path, is_here: impl Fn(usize) -> bool) -> Result<()> {
    let mut stored = read_tensors(path)?;
    let mut problems = Vec::new();
    for (number, parameter) in model.parameters().iter().enumerate() {
        if !is_here(number) {
            // Its shape is looked at where it is.
            for piece in &parameter.pieces {
                if stored.remove(&piece.name).is_none() {
                    problems.push(format!("tensor {} is missing", piece.name));
                }
            }
            continue;
        }
        for (name, target) in parameter.views()? {
            match stored.remove(&name) {
                Some(tensor) if tensor.size() == target.size() => {
                    let mut target = target;
                    target.f_copy_(&tensor)?;
                }
                Some(tensor) => {
                    problems.push(format!("tensor {name} has shape {:?}, expected {:?}", tensor.size(), target.size()))
                }
                None => problems.push(format!("tensor {name} is missing")),
            }
        }
    }
    problems.extend(stored.keys().map(|name| format!("tensor {name} is not part of this model")));
    if problems.is_empty() { Ok(()) } else { Err(Error::Weights { path: path.to_owned(), problems }) }
}

/// Reads a base model and the adapter (PEFT's layout) for it.
pub fn load_adapted(base: &Path, adapter: &Path, device: Device) -> Result<Model> {
    let mut model = load(base, device)?;
    // The base may be a model with an adapter itself.
    model.merge_adapter()?;
    let mut config: LoraConfig = lora::read_config(adapter)?;
    let path = adapter.join(ADAPTER_WEIGHTS_FILE);
    let mut tensors = read_tensors(&path)?;
    // Those that there are say which modules are adapted: names in the configuration may be patterns of other models.
    config.target_modules = lora::modules(&tensors);
    let attached = model.attach(&config, Values::Tensors(&mut tensors));
    attached.map_err(|error| match error {
        Error::Adapter(problems) => Error::Weights { path, problems },
        other => other,
    })?;
    Ok(model)
}

/// Writes the adapter of a model into an existing directory, in PEFT's layout. `base` says where the base model is from.
///
/// # Errors
/// The model has no adapter.
pub fn save_adapter(model: &mut Model, directory: &Path, base: &str) -> Result<()> {
    let Some(config) = model.adapter().cloned() else {
        return Err(Error::Adapter(vec!["the model has none".to_owned()]));
    };
    let all = model.modules();
    let adapted = all.iter().filter(|(module, _)| config.targets(module));
    let last = |module: &String| module.rsplit('.').next().unwrap_or(module).to_owned();
    let mut modules: Vec<String> = adapted.map(|(module, _)| last(module)).collect();
    modules.sort();
    modules.dedup();
    let transposed = all.iter().any(|(_, transposed)| *transposed);
    let text = lora::write(&config, base, &modules, transposed, lora::task_type(model.config()));
    write_text(&directory.join(ADAPTER_CONFIG_FILE), &text)?;
    write_tensors(&directory.join(ADAPTER_WEIGHTS_FILE), &model.disk_tensors()?)
}

/// Writes `config.json` alone.
pub fn save_config(model: &Model, directory: &Path) -> Result<()> {
    write_text(&directory.join(CONFIG_FILE), &model.config().to_json())
}

fn read_shards(directory: &Path) -> Result<BTreeMap<String, Tensor>> {
    let path = directory.join(INDEX_FILE);
    let broken = |problem: String| Error::Weights { path: path.clone(), problems: vec![problem] };
    let index: Value = serde_json::from_str(&read_text(&path)?).map_err(|error| broken(error.to_string()))?;
    let map = index["weight_map"].as_object().ok_or_else(|| broken("weight_map is missing".to_owned()))?;
    let mut files: BTreeMap<PathBuf, Vec<&String>> = BTreeMap::new();
    for (name, file) in map {
        let file = file.as_str().map(Path::new).filter(|file| file.components().count() == 1);
        let file = file.ok_or_else(|| broken(format!("weight_map.{name} is not the name of a file beside it")))?;
        files.entry(directory.join(file)).or_default().push(name);
    }
    let mut tensors = BTreeMap::new();
    for (file, names) in files {
        let found = read_tensors(&file)?;
        if let Some(name) = names.iter().find(|name| !found.contains_key(**name)) {
            return Err(broken(format!("tensor {name} should be in {}", file.display())));
        }
        tensors.extend(found);
    }
    Ok(tensors)
}

fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|source| Error::Io { path: path.to_owned(), source })
}

fn write_text(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|source| Error::Io { path: path.to_owned(), source })
}
