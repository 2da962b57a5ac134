//! Safetensors files: read without trusting them, written with the same bytes for the same tensors.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{ErrorKind, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use safetensors::{Dtype, SafeTensorError, View, tensor::Metadata};
use tch::{Device, Kind, Tensor};
use tidemill_torch::storage;

use crate::{Error, Result};

/// Longest header that is read.
const HEADER: u64 = 100 << 20;

/// Reads all tensors of a safetensors file, one after the other: no byte is in memory twice.
pub fn read_tensors(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let broken = |problem: String| Error::Weights { path: path.to_owned(), problems: vec![problem] };
    let failed = |source: std::io::Error| match source.kind() {
        ErrorKind::UnexpectedEof => broken("not a safetensors file: it ends too early".to_owned()),
        _ => Error::Io { path: path.to_owned(), source },
    };
    let mut file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(failed)?;
    let length = u64::from_le_bytes(length);
    if length > HEADER.min(size) {
        return Err(broken(format!("not a safetensors file: a header of {length} bytes")));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).map_err(failed)?;
    // Sizes and places of tensors are checked against each other as it is read.
    let header: Metadata =
        serde_json::from_slice(&header).map_err(|error| broken(format!("not a safetensors file: {error}")))?;
    if size != 8 + length + header.data_len() as u64 {
        return Err(broken(format!("not a safetensors file: {size} bytes are not what its header says")));
    }
    let mut tensors = BTreeMap::new();
    for name in header.offset_keys() {
        let Some(info) = header.info(&name) else { continue };
        let kind = match info.dtype {
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::I64 => Kind::Int64,
            Dtype::U8 => Kind::Uint8,
            other => {
                return Err(broken(format!("tensor {name} has dtype {other:?}; F32, F16, BF16, I64 and U8 are read")));
            }
        };
        let mut bytes = vec![0; info.data_offsets.1 - info.data_offsets.0];
        file.read_exact(&mut bytes).map_err(failed)?;
        let shape: Vec<i64> = info.shape.iter().map(|size| *size as i64).collect();
        tensors.insert(name, Tensor::f_from_data_size(&bytes, &shape, kind)?);
    }
    Ok(tensors)
}

/// Writes float32, int64 and uint8 tensors, which must not change meanwhile; equal tensors give equal bytes, whatever their order. The file
/// appears whole or not at all.
pub fn write_tensors(path: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    let failed = |problem: String| Error::Weights { path: path.to_owned(), problems: vec![problem] };
    let mut views = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let dtype = match tensor.f_kind()? {
            Kind::Float => Dtype::F32,
            Kind::Int64 => Dtype::I64,
            Kind::Uint8 => Dtype::U8,
            other => {
                return Err(failed(format!(
                    "tensor {name} has kind {other:?}; only Float, Int64 and Uint8 are written"
                )));
            }
        };
        let shape = tensor.size().iter().map(|size| *size as usize).collect();
        let tensor = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?;
        storage::bytes(&tensor)?;
        views.push((name.as_str(), OnDisk { dtype, shape, tensor }));
    }
    // A single key: the map's order cannot show in the bytes.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let io = |source| Error::Io { path: path.to_owned(), source };
    safetensors::serialize_to_file(views, Some(metadata), path).map_err(|error| match error {
        SafeTensorError::IoError(source) => io(source),
        other => failed(other.to_string()),
    })?;
    // It was a temporary file, which its writer alone may read.
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).map_err(io)
}

/// A tensor as it is written: no byte is in memory twice.
struct OnDisk {
    dtype: Dtype,
    shape: Vec<usize>,
    tensor: Tensor,
}

impl View for OnDisk {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(storage::bytes(&self.tensor).expect("it was looked at before"))
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}
