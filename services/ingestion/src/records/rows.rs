//! Rows for fine-tuning: a line of JSONL, an element of a JSON array or a message of a topic becomes a record whose text is the row's
//! canonical JSON.

use std::{collections::BTreeMap, io::BufRead, path::Path};

use serde_json::Value;
use tidemill_dataset::{Example, Record, RowType, is_row_column};

use super::elements::{Broken, Elements};
use super::{Outcome, Reading, refuse, text_of};
use crate::error::Error;

/// The key of a record's metadata that says which type of row it is.
const ROW_TYPE: &str = "row_type";

impl Reading<'_> {
    /// Rows of a file: of one array, where the file begins with a bracket, else one a line.
    pub(super) fn rows(
        &self,
        origin: &str,
        path: &Path,
        mut reader: impl BufRead,
        mut give: impl FnMut(Outcome) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let metadata = self.metadata(origin);
        let make = |origin: &str, bytes: Vec<u8>| row(origin, &bytes, metadata.clone());
        let unreadable = |error| if self.watch.check().is_err() { Error::Stopped } else { Error::file(path, error) };
        if !begins_array(&mut reader).map_err(unreadable)? {
            return self.lines(origin, path, reader, make, give);
        }
        let mut elements = Elements::new(reader, self.max_record_bytes);
        for number in 1u64.. {
            let element = match elements.next() {
                Ok(Some(element)) => element,
                Ok(None) => break,
                Err(Broken::Unreadable(error)) => return Err(unreadable(error)),
                Err(Broken::Malformed(detail)) => return Err(Error::Damaged { uri: origin.to_owned(), detail }),
            };
            self.watch.advance(element.size + 1);
            let origin = format!("{origin}:{number}");
            if element.size > self.max_record_bytes {
                give(Err(self.too_large(&origin, &element.bytes, element.size)))?;
            } else {
                give(make(&origin, element.bytes))?;
            }
        }
        Ok(())
    }
}

fn begins_array(reader: &mut impl BufRead) -> std::io::Result<bool> {
    loop {
        let buffer = reader.fill_buf()?;
        match buffer.iter().position(|byte| !byte.is_ascii_whitespace()) {
            Some(at) => {
                let begins = buffer[at] == b'[';
                reader.consume(at);
                return Ok(begins);
            }
            None if buffer.is_empty() => return Ok(false),
            None => {
                let blank = buffer.len();
                reader.consume(blank);
            }
        }
    }
}

fn row(origin: &str, bytes: &[u8], metadata: BTreeMap<String, String>) -> Outcome {
    let malformed = |reason, detail| refuse(origin, reason, detail, bytes, bytes.len() as u64);
    let value = serde_json::from_str(text_of(origin, bytes)?)
        .map_err(|error: serde_json::Error| malformed("MALFORMED_JSON", error.to_string()))?;
    record(origin, &value, metadata).map_err(|detail| malformed("MALFORMED_ROW", detail))
}

/// The record of a row; an error says what is wrong with the row. Scalars in columns that teach nothing are metadata.
pub(crate) fn record(origin: &str, row: &Value, mut metadata: BTreeMap<String, String>) -> Result<Record, String> {
    let example = Example::from_json(row)?;
    for (column, value) in row.as_object().into_iter().flatten().filter(|(column, _)| !is_row_column(column)) {
        match value {
            Value::String(value) => drop(metadata.insert(column.clone(), value.clone())),
            Value::Number(value) => drop(metadata.insert(column.clone(), value.to_string())),
            Value::Bool(value) => drop(metadata.insert(column.clone(), value.to_string())),
            Value::Null | Value::Array(_) | Value::Object(_) => {}
        }
    }
    metadata.insert(ROW_TYPE.to_owned(), example.row_type().to_string());
    Ok(Record::new(origin, example.to_json(), metadata))
}

/// The one type of the rows of a version, and where the first of them stood.
#[derive(Debug, Default)]
pub(crate) struct OneType {
    first: Option<(RowType, Box<str>)>,
}

impl OneType {
    /// Refuses a row of another type than the first one.
    pub(crate) fn admit(&mut self, record: &Record) -> Result<(), Error> {
        let named = record.metadata.get(ROW_TYPE).map_or("", String::as_str);
        let row_type: RowType = named.parse()?;
        match &self.first {
            None => self.first = Some((row_type, record.origin.as_str().into())),
            Some((first, _)) if *first == row_type => {}
            Some((first, origin)) => {
                return Err(Error::MixedRows {
                    first: *first,
                    first_origin: origin.to_string(),
                    second: row_type,
                    second_origin: record.origin.clone(),
                });
            }
        }
        Ok(())
    }

    /// The type, once there is a row.
    pub(crate) fn row_type(&self) -> Option<RowType> {
        self.first.as_ref().map(|(row_type, _)| *row_type)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn other_scalars_of_a_row_are_metadata() {
        let value =
            json!({"prompt": "p", "completion": "c", "source": "x", "score": 4.5, "tags": ["a"], "row_type": "own"});
        let record = record("a:1", &value, [("file".to_owned(), "a".to_owned())].into()).unwrap();
        assert_eq!(record.text, r#"{"prompt":"p","completion":"c"}"#);
        let expected = [("file", "a"), ("row_type", "prompt-completion"), ("score", "4.5"), ("source", "x")];
        assert_eq!(record.metadata, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        let refused = row("a:1", b"{\"messages\": 1}", BTreeMap::new()).unwrap_err();
        assert_eq!((refused.reason.as_str(), refused.excerpt.as_str()), ("MALFORMED_ROW", "{\"messages\": 1}"));
        assert!(refused.detail.contains("column messages"), "{}", refused.detail);
        assert_eq!(row("a:1", b"{", BTreeMap::new()).unwrap_err().reason, "MALFORMED_JSON");
    }
}
