//! The front of a GGUF file: version, metadata and where each tensor lies. Nothing declared is believed before it is
//! compared with the size of the file.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
};

use super::{
    Storage, Value,
    cursor::{Broken, Cursor},
};

const DEFAULT_ALIGNMENT: u64 = 32;
const MAX_ALIGNMENT: u64 = 1 << 20;
const MAX_DIMENSIONS: u32 = 4;
/// The smallest key with its value, and the smallest description of a tensor.
const SMALLEST_ENTRY: u64 = 8 + 4 + 1;
const SMALLEST_TENSOR: u64 = 8 + 4 + 8 + 4 + 8;

/// A tensor of a GGUF file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name there, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// Row-major, as libtorch has it (GGUF writes the fastest dimension first).
    pub shape: Vec<i64>,
    /// How its values are stored.
    pub storage: Storage,
    /// Where it begins in the file.
    pub(super) offset: u64,
    /// What it takes there.
    pub(super) size: usize,
}

#[derive(Debug)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) metadata: BTreeMap<String, Value>,
    pub(super) tensors: Vec<TensorInfo>,
}

/// A tensor as declared: dimensions, type, offset from the start of the data.
struct Declared {
    name: String,
    dimensions: Vec<u64>,
    code: u32,
    offset: u64,
}

/// Reads and checks a header: the first problem of its structure, or all problems of its tensors.
pub(super) fn read<R: Read>(source: R, file_size: u64) -> Result<Header, Vec<String>> {
    let mut cursor = Cursor::new(source, file_size);
    let (version, metadata, declared) = structure(&mut cursor).map_err(|problem| vec![problem])?;
    let alignment = alignment(&metadata).map_err(|problem| vec![problem])?;
    let data_start = cursor.position().next_multiple_of(alignment);
    let mut problems = Vec::new();
    let mut tensors = Vec::with_capacity(declared.len());
    let mut names = BTreeSet::new();
    let mut beyond = Vec::new();
    for tensor in declared {
        if !names.insert(tensor.name.clone()) {
            problems.push(format!("tensor {} appears twice", tensor.name));
        }
        let name = tensor.name.clone();
        match place(tensor, alignment, data_start) {
            Ok((_, end)) if end > file_size => beyond.push((name, end)),
            Ok((info, _)) => tensors.push(info),
            Err(problem) => problems.push(format!("tensor {name}: {problem}")),
        }
    }
    // A file that was cut lacks hundreds: one sentence for all.
    if let (Some((first, _)), Some(end)) = (beyond.first(), beyond.iter().map(|(_, end)| end).max()) {
        problems.push(format!(
            "{} tensor(s), tensor {first} first, reach beyond the file's end: it has {file_size} bytes of {end}; copy or download it again",
            beyond.len()
        ));
    }
    if problems.is_empty() { Ok(Header { version, metadata, tensors }) } else { Err(problems) }
}

type Structure = (u32, BTreeMap<String, Value>, Vec<Declared>);

fn structure<R: Read>(cursor: &mut Cursor<R>) -> Broken<Structure> {
    let magic: [u8; 4] = cursor.bytes("the magic number")?;
    if &magic != b"GGUF" {
        return Err("not a GGUF file: it does not begin with the letters GGUF".to_owned());
    }
    let version = cursor.u32("the version")?;
    match version {
        2 | 3 => {}
        _ if matches!(version.swap_bytes(), 2 | 3) => {
            return Err("a big-endian GGUF file; only little-endian ones are read".to_owned());
        }
        other => return Err(format!("version {other} of GGUF; versions 2 and 3 are read")),
    }
    let tensor_count = cursor.count(SMALLEST_TENSOR, "the number of tensors")?;
    let entries = cursor.count(SMALLEST_ENTRY, "the number of metadata keys")?;
    let mut metadata = BTreeMap::new();
    for number in 0..entries {
        let key = cursor.text(&format!("metadata key {number}"))?;
        let value = Value::read(cursor, &key)?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(format!("metadata key {key:?} appears twice"));
        }
    }
    let mut tensors = Vec::new();
    for number in 0..tensor_count {
        let name = cursor.text(&format!("the name of tensor {number}"))?;
        let what = format!("tensor {name}");
        let count = cursor.u32(&what)?;
        if !(1..=MAX_DIMENSIONS).contains(&count) {
            return Err(format!("{what}: {count} dimensions; 1 to {MAX_DIMENSIONS} are possible"));
        }
        let dimensions = (0..count).map(|_| cursor.u64(&what)).collect::<Broken<_>>()?;
        tensors.push(Declared { name, dimensions, code: cursor.u32(&what)?, offset: cursor.u64(&what)? });
    }
    Ok((version, metadata, tensors))
}

fn alignment(metadata: &BTreeMap<String, Value>) -> Broken<u64> {
    let Some(value) = metadata.get("general.alignment") else { return Ok(DEFAULT_ALIGNMENT) };
    match value {
        Value::Integer(value) => u64::try_from(*value).ok(),
        _ => None,
    }
    .filter(|value| value.is_power_of_two() && *value <= MAX_ALIGNMENT)
    .ok_or_else(|| format!("general.alignment: {value:?} is not a power of two up to {MAX_ALIGNMENT}"))
}

/// Where a tensor lies, and where it ends.
fn place(tensor: Declared, alignment: u64, data_start: u64) -> Broken<(TensorInfo, u64)> {
    let storage = Storage::from_code(tensor.code).map_err(|kind| {
        format!("type {kind} is not supported, only F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K and Q6_K; quantise the model anew")
    })?;
    let dimensions = &tensor.dimensions;
    let row = dimensions[0];
    if !row.is_multiple_of(storage.values()) {
        return Err(format!("rows of {row} values are not whole {} blocks of {}", storage.name(), storage.values()));
    }
    let values = dimensions.iter().try_fold(1u64, |product, size| product.checked_mul(*size));
    let size =
        values.filter(|values| *values > 0).and_then(|values| (values / storage.values()).checked_mul(storage.bytes()));
    let Some(size) = size else {
        return Err(format!("the shape {dimensions:?} is empty or too large"));
    };
    if !tensor.offset.is_multiple_of(alignment) {
        return Err(format!("the offset {} is not a multiple of the alignment {alignment}", tensor.offset));
    }
    let begin = data_start.checked_add(tensor.offset);
    let Some((begin, end)) = begin.and_then(|begin| Some((begin, begin.checked_add(size)?))) else {
        return Err(format!("{size} bytes at the offset {} are too large", tensor.offset));
    };
    let shape = dimensions.iter().rev().map(|size| *size as i64).collect();
    Ok((TensorInfo { name: tensor.name, shape, storage, offset: begin, size: size as usize }, end))
}
