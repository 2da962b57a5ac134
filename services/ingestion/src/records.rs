//! Bytes of a file into records or refusals, with memory bounded by the largest record.

mod elements;
mod rows;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use regex::Regex;
use serde_json::Value;
use tidemill_dataset::{Quarantined, Record};
use tidemill_proto::r#type::v1::RecordFormat;

use crate::{
    error::Error,
    files::{Content, EXCERPT_BYTES, SourceFile},
    watch::Watch,
};

pub(crate) use rows::{OneType, record as row_record};

/// Characters of a refused record that are shown.
const EXCERPT_CHARACTERS: usize = 256;

/// A record, or why there is none.
pub(crate) type Outcome = Result<Record, Quarantined>;

/// How files become records.
pub(crate) struct Reading<'a> {
    /// What the files hold.
    pub(crate) format: RecordFormat,
    /// Named groups over the path become metadata.
    pub(crate) metadata_pattern: Option<Regex>,
    /// Larger records are refused.
    pub(crate) max_record_bytes: u64,
    /// The job.
    pub(crate) watch: &'a Watch,
}

impl Reading<'_> {
    /// Gives every outcome of a file, in its order.
    pub(crate) fn read(
        &self,
        file: &SourceFile,
        mut give: impl FnMut(Outcome) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let origin = file.origin.as_str();
        let (path, size) = match &file.content {
            Content::At(path, size) => (path, *size),
            Content::TooLarge(size, excerpt) => return give(Err(self.too_large(origin, excerpt, *size))),
            Content::Unreadable(why) => return give(Err(refuse(origin, "UNREADABLE", why.clone(), &[], 0))),
        };
        let opened = match File::open(path) {
            Ok(opened) => opened,
            Err(error) => return give(Err(refuse(origin, "UNREADABLE", error.to_string(), &[], size))),
        };
        let reader = self.watch.reader(opened);
        let buffered = |reader| BufReader::with_capacity(1 << 16, reader);
        let read = match self.format {
            RecordFormat::Jsonl => {
                let metadata = self.metadata(origin);
                let make = |origin: &str, bytes| self.object(origin, bytes, metadata.clone());
                return self.lines(origin, path, buffered(reader), make, give);
            }
            RecordFormat::Rows => return self.rows(origin, path, buffered(reader), give),
            _ => self.text(origin, reader, size),
        };
        match read {
            Ok(outcome) => give(outcome),
            Err(_) if self.watch.check().is_err() => Err(Error::Stopped),
            Err(error) => give(Err(refuse(origin, "UNREADABLE", error.to_string(), &[], size))),
        }
    }

    fn text(&self, origin: &str, reader: impl Read, size: u64) -> io::Result<Outcome> {
        let mut bytes = Vec::with_capacity(usize::try_from(size.min(self.max_record_bytes) + 1).unwrap_or(0));
        reader.take(self.max_record_bytes + 1).read_to_end(&mut bytes)?;
        self.watch.advance(bytes.len() as u64);
        if bytes.len() as u64 > self.max_record_bytes {
            bytes.truncate(EXCERPT_BYTES);
            return Ok(Err(self.too_large(origin, &bytes, size)));
        }
        Ok(decode(origin, bytes).and_then(|text| keep(origin, text, self.metadata(origin))))
    }

    /// One record a line. A line without an end is dropped as it is read, beyond what a record may hold.
    fn lines(
        &self,
        origin: &str,
        path: &Path,
        mut reader: impl BufRead,
        make: impl Fn(&str, Vec<u8>) -> Outcome,
        mut give: impl FnMut(Outcome) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for number in 1u64.. {
            let line = match self.line(&mut reader) {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(_) if self.watch.check().is_err() => return Err(Error::Stopped),
                Err(error) => return Err(Error::file(path, error)),
            };
            self.watch.advance(line.size + 1);
            let origin = format!("{origin}:{number}");
            if line.size > self.max_record_bytes {
                give(Err(self.too_large(&origin, &line.bytes, line.size)))?;
            } else if !line.bytes.trim_ascii().is_empty() {
                give(make(&origin, line.bytes))?;
            }
        }
        Ok(())
    }

    fn line(&self, reader: &mut impl BufRead) -> io::Result<Option<Line>> {
        let mut line = Line { bytes: Vec::new(), size: 0 };
        loop {
            let buffer = reader.fill_buf()?;
            if buffer.is_empty() {
                return Ok((line.size > 0).then_some(line));
            }
            let end = buffer.iter().position(|&byte| byte == b'\n');
            let part = &buffer[..end.unwrap_or(buffer.len())];
            line.size += part.len() as u64;
            if line.size <= self.max_record_bytes {
                line.bytes.extend_from_slice(part);
            } else {
                // Too large: only the beginning is of use.
                if line.bytes.len() < EXCERPT_BYTES {
                    line.bytes.extend_from_slice(&part[..part.len().min(EXCERPT_BYTES)]);
                }
                line.bytes.truncate(EXCERPT_BYTES);
                line.bytes.shrink_to_fit();
            }
            let used = part.len() + usize::from(end.is_some());
            reader.consume(used);
            if end.is_some() {
                return Ok(Some(line));
            }
        }
    }

    fn object(&self, origin: &str, bytes: Vec<u8>, mut metadata: BTreeMap<String, String>) -> Outcome {
        let line = decode(origin, bytes)?;
        let malformed = |detail: String| refuse(origin, "MALFORMED_JSON", detail, line.as_bytes(), line.len() as u64);
        let object = match serde_json::from_str(&line) {
            Ok(Value::Object(object)) => object,
            Ok(_) => return Err(malformed("the line is not a JSON object".to_owned())),
            Err(error) => return Err(malformed(error.to_string())),
        };
        let mut text = None;
        for (key, value) in object {
            match value {
                Value::String(value) if key == "text" => text = Some(value),
                Value::String(value) => drop(metadata.insert(key, value)),
                Value::Number(value) if key != "text" => drop(metadata.insert(key, value.to_string())),
                Value::Bool(value) if key != "text" => drop(metadata.insert(key, value.to_string())),
                _ => {}
            }
        }
        let text = text.ok_or_else(|| malformed("the object has no string field `text`".to_owned()))?;
        keep(origin, text, metadata)
    }

    fn metadata(&self, origin: &str) -> BTreeMap<String, String> {
        let Some(pattern) = &self.metadata_pattern else { return BTreeMap::new() };
        let Some(found) = pattern.captures(origin) else { return BTreeMap::new() };
        let named = pattern.capture_names().flatten();
        named.filter_map(|name| Some((name.to_owned(), found.name(name)?.as_str().to_owned()))).collect()
    }

    fn too_large(&self, origin: &str, excerpt: &[u8], size: u64) -> Quarantined {
        let detail = format!("{size} bytes are more than the {} allowed by max_record_bytes", self.max_record_bytes);
        refuse(origin, "RECORD_TOO_LARGE", detail, excerpt, size)
    }
}

struct Line {
    /// The line, or the beginning of one that is too large.
    bytes: Vec<u8>,
    size: u64,
}

fn decode(origin: &str, bytes: Vec<u8>) -> Result<String, Quarantined> {
    text_of(origin, &bytes).map(str::to_owned)
}

/// Bytes as text, or why they are none.
pub(crate) fn text_of<'a>(origin: &str, bytes: &'a [u8]) -> Result<&'a str, Quarantined> {
    if let Some(at) = bytes.iter().position(|&byte| byte == 0) {
        let utf16 = bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]);
        let hint = if utf16 { "; it looks like UTF-16, convert it to UTF-8" } else { "" };
        let detail = format!("a zero byte at {at} is not text{hint}");
        return Err(refuse(origin, "BINARY", detail, bytes, bytes.len() as u64));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        let detail = format!("byte {at} (0x{:02x}) is not valid UTF-8", bytes[at]);
        refuse(origin, "INVALID_UTF8", detail, bytes, bytes.len() as u64)
    })
}

/// A record of a text that says something.
pub(crate) fn keep(origin: &str, text: String, metadata: BTreeMap<String, String>) -> Outcome {
    if text.trim().is_empty() {
        let detail = "it holds nothing but white space";
        return Err(refuse(origin, "EMPTY", detail, text.as_bytes(), text.len() as u64));
    }
    Ok(Record::new(origin, text, metadata))
}

/// A refusal.
pub(crate) fn refuse(origin: &str, reason: &str, detail: impl Into<String>, bytes: &[u8], size: u64) -> Quarantined {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(EXCERPT_BYTES)]);
    Quarantined {
        origin: origin.to_owned(),
        reason: reason.to_owned(),
        detail: detail.into(),
        excerpt: shown.chars().take(EXCERPT_CHARACTERS).collect(),
        size,
    }
}
