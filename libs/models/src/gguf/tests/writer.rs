//! Writes GGUF files for tests: plain bytes, so that each can be broken in any place.

/// The number of a value's type, and its bytes.
pub(super) type Raw = (u32, Vec<u8>);

pub(super) struct Writer {
    pub(super) version: u32,
    pub(super) entries: Vec<(String, Raw)>,
    pub(super) tensors: Vec<Entry>,
}

pub(super) struct Entry {
    pub(super) name: String,
    /// Fastest first, as in the file.
    pub(super) dimensions: Vec<u64>,
    pub(super) code: u32,
    pub(super) data: Vec<u8>,
    pub(super) offset: Option<u64>,
}

pub(super) fn integer(value: u32) -> Raw {
    (4, value.to_le_bytes().to_vec())
}

pub(super) fn float(value: f32) -> Raw {
    (6, value.to_le_bytes().to_vec())
}

pub(super) fn text(value: &str) -> Raw {
    (8, string(value))
}

pub(super) fn texts(values: &[&str]) -> Raw {
    let mut bytes = 8u32.to_le_bytes().to_vec();
    bytes.extend((values.len() as u64).to_le_bytes());
    bytes.extend(values.iter().flat_map(|value| string(value)));
    (9, bytes)
}

pub(super) fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn string(value: &str) -> Vec<u8> {
    let mut bytes = (value.len() as u64).to_le_bytes().to_vec();
    bytes.extend(value.as_bytes());
    bytes
}

impl Writer {
    pub(super) fn new() -> Self {
        Self { version: 3, entries: Vec::new(), tensors: Vec::new() }
    }

    pub(super) fn entry(&mut self, key: &str, value: Raw) {
        self.entries.retain(|(name, _)| name != key);
        self.entries.push((key.to_owned(), value));
    }

    /// A float32 tensor of consecutive numbers, so that every row can be recognised.
    pub(super) fn counting(&mut self, name: &str, shape: &[u64]) {
        let count = shape.iter().product::<u64>();
        let data = floats(&(0..count).map(|value| value as f32).collect::<Vec<_>>());
        let dimensions = shape.iter().rev().copied().collect();
        self.tensors.push(Entry { name: name.to_owned(), dimensions, code: 0, data, offset: None });
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.entries.len() as u64).to_le_bytes());
        for (key, (code, value)) in &self.entries {
            out.extend(string(key));
            out.extend(code.to_le_bytes());
            out.extend(value);
        }
        let mut data = Vec::new();
        for tensor in &self.tensors {
            out.extend(string(&tensor.name));
            out.extend((tensor.dimensions.len() as u32).to_le_bytes());
            out.extend(tensor.dimensions.iter().flat_map(|size| size.to_le_bytes()));
            out.extend(tensor.code.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(&tensor.data);
            data.resize(data.len().next_multiple_of(32), 0);
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(data);
        out
    }
}
