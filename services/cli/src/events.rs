//! TensorBoard's event files: TFRecords of `tensorflow.Event` messages (tensorflow/core/util/event.proto, tensorflow/core/lib/io/record_writer.h).

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use crc_fast::CrcAlgorithm;
use prost::Message;

#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// A file of events that is appended to.
pub(crate) struct EventFile(File);

impl EventFile {
    /// Makes an empty file, or empties one.
    pub(crate) fn create(path: &Path, wall_time: f64) -> io::Result<Self> {
        let mut file = Self(OpenOptions::new().create(true).write(true).truncate(true).open(path)?);
        file.append(&Event { wall_time, file_version: Some("brain.Event:2".to_owned()), ..Event::default() })?;
        Ok(file)
    }

    /// Adds figures at a step.
    pub(crate) fn scalars<'a>(
        &mut self,
        wall_time: f64,
        step: i64,
        figures: impl Iterator<Item = (&'a String, &'a f64)>,
    ) -> io::Result<()> {
        let value = figures.map(|(tag, value)| Value { tag: tag.clone(), simple_value: Some(*value as f32) }).collect();
        self.append(&Event { wall_time, step, summary: Some(Summary { value }), ..Event::default() })
    }

    fn append(&mut self, event: &Event) -> io::Result<()> {
        self.0.write_all(&record(&event.encode_to_vec()))
    }
}

/// A record: its length, the check of that, its bytes, the check of those.
fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    [&length[..], &check(&length).to_le_bytes(), bytes, &check(bytes).to_le_bytes()].concat()
}

/// CRC-32C, masked: a file of records may hold records.
fn check(bytes: &[u8]) -> u32 {
    let crc = crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32;
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_those_of_tensorflow() {
        // As tensorboard 2.21's RecordWriter writes it.
        let expected = b"\x08\0\0\0\0\0\0\0\xff\x86\x24\x0ftidemill\x56\xdf\xf1\xb4";
        assert_eq!(record(b"tidemill"), expected);
        // CRC-32C of "123456789" is known: 0xe3069283 (RFC 3720).
        assert_eq!(check(b"123456789"), 0xe306_9283_u32.rotate_right(15).wrapping_add(0xa282_ead8));
    }
}
