//! Safetensors files: read without trusting them, written with the same bytes for the same tensors.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use tch::{Kind, Tensor};

use crate::{Error, Result};

/// Reads all tensors of a safetensors file.
pub fn read_tensors(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let bytes = fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let broken = |problem: String| Error::Weights { path: path.to_owned(), problems: vec![problem] };
    let file = SafeTensors::deserialize(&bytes).map_err(|error| broken(format!("not a safetensors file: {error}")))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::I64 => Kind::Int64,
            other => return Err(broken(format!("tensor {name} has dtype {other:?}; F32, F16, BF16 and I64 are read"))),
        };
        let shape: Vec<i64> = view.shape().iter().map(|size| *size as i64).collect();
        tensors.insert(name.to_owned(), Tensor::f_from_data_size(view.data(), &shape, kind)?);
    }
    Ok(tensors)
}

/// Writes float32 and int64 tensors; equal tensors give equal bytes, whatever their order.
pub fn write_tensors(path: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    let mut buffers = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let (dtype, width) = match tensor.f_kind()? {
            Kind::Float => (Dtype::F32, 4),
            Kind::Int64 => (Dtype::I64, 8),
            other => {
                let problem = format!("tensor {name} has kind {other:?}; only Float and Int64 are written");
                return Err(Error::Weights { path: path.to_owned(), problems: vec![problem] });
            }
        };
        let mut bytes = vec![0u8; tensor.numel() * width];
        tensor.f_detach()?.f_contiguous()?.f_copy_data_u8(&mut bytes, tensor.numel())?;
        let shape: Vec<usize> = tensor.size().iter().map(|size| *size as usize).collect();
        buffers.push((name.as_str(), dtype, shape, bytes));
    }
    let broken = |error: safetensors::SafeTensorError| Error::Weights {
        path: path.to_owned(),
        problems: vec![error.to_string()],
    };
    let mut views = Vec::with_capacity(buffers.len());
    for (name, dtype, shape, bytes) in &buffers {
        views.push((*name, TensorView::new(*dtype, shape.clone(), bytes).map_err(broken)?));
    }
    // A single key: the map's order cannot show in the bytes.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(broken)?;
    fs::write(path, bytes).map_err(|source| Error::Io { path: path.to_owned(), source })
}
