//! Which tensors files hold, and how, from their headers alone.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Read as _,
    path::Path,
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tidemill_models::{INDEX_FILE, WEIGHTS_FILE, gguf::Gguf};

use super::Failure;

/// The safetensors library refuses larger headers too.
const LARGEST_HEADER: u64 = 100_000_000;

/// A tensor as it lies in a file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) shape: Vec<i64>,
    pub(super) dtype: String,
    /// Where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<String>,
}

impl Tensor {
    pub(super) fn numbers(&self) -> i64 {
        self.shape.iter().product()
    }
}

pub(super) fn of_gguf(gguf: &Gguf) -> Vec<Tensor> {
    let tensor = |info: &tidemill_models::gguf::TensorInfo| Tensor {
        name: info.name.clone(),
        shape: info.shape.clone(),
        dtype: info.storage.name().to_owned(),
        file: None,
    };
    gguf.infos().iter().map(tensor).collect()
}

pub(super) fn of_directory(directory: &Path) -> Result<Vec<Tensor>, Failure> {
    let whole = directory.join(WEIGHTS_FILE);
    if whole.exists() {
        return of_file(&whole, None);
    }
    let path = directory.join(INDEX_FILE);
    if !path.exists() {
        return Err(Failure::content(directory, format!("neither {WEIGHTS_FILE} nor {INDEX_FILE} in it")));
    }
    let text = fs::read_to_string(&path).map_err(|error| Failure::file(&path, &error))?;
    let index: Value = serde_json::from_str(&text).map_err(|error| Failure::content(&path, error))?;
    let map = index["weight_map"].as_object().ok_or_else(|| Failure::content(&path, "weight_map is missing"))?;
    let files: BTreeSet<&str> = map.values().filter_map(Value::as_str).collect();
    let mut tensors = Vec::new();
    for file in files {
        if Path::new(file).components().count() != 1 {
            return Err(Failure::content(&path, format!("weight_map: {file:?} is not the name of a file beside it")));
        }
        tensors.extend(of_file(&directory.join(file), Some(file))?);
    }
    Ok(tensors)
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<i64>,
}

fn of_file(path: &Path, name: Option<&str>) -> Result<Vec<Tensor>, Failure> {
    let failed = |error: std::io::Error| Failure::file(path, &error);
    let mut file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(failed)?;
    let length = u64::from_le_bytes(length);
    if length > LARGEST_HEADER.min(size.saturating_sub(8)) {
        return Err(Failure::content(path, format!("a header of {length} bytes does not fit its {size} bytes")));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).map_err(failed)?;
    let broken = |error: serde_json::Error| Failure::content(path, format!("not a safetensors file: {error}"));
    let header: Map<String, Value> = serde_json::from_slice(&header).map_err(broken)?;
    let entries = header.into_iter().filter(|(name, _)| name != "__metadata__");
    let tensor = |(tensor, entry): (String, Value)| {
        let entry: Entry = serde_json::from_value(entry).map_err(broken)?;
        Ok(Tensor { name: tensor, shape: entry.shape, dtype: entry.dtype, file: name.map(str::to_owned) })
    };
    entries.map(tensor).collect()
}
