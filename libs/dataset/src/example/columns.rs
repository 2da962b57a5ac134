//! The columns of a row: those that are there, and those that make a row.

use serde_json::{Map, Value};

use super::turns::is_empty;

/// Columns that hold what is learned; what stands in others is metadata.
const OF_ROWS: [&str; 16] = [
    "messages",
    "conversations",
    "prompt",
    "completion",
    "chosen",
    "rejected",
    "chosen_messages",
    "rejected_messages",
    "label",
    "answer",
    "instruction",
    "input",
    "output",
    "history",
    "system",
    "text",
];

/// Columns that rows cannot hold, unless they are empty, and what they are.
const REFUSED: [(&str, &str); 9] = [
    ("tools", "definitions of tools"),
    ("image", "pictures"),
    ("images", "pictures"),
    ("video", "videos"),
    ("videos", "videos"),
    ("audio", "sounds"),
    ("audios", "sounds"),
    ("completions", "steps that are judged one by one"),
    ("labels", "judgements of single steps, or token ids"),
];

/// Whether a column is part of what a row teaches, so that it is no metadata.
#[must_use]
pub fn is_row_column(name: &str) -> bool {
    OF_ROWS.contains(&name) || REFUSED.iter().any(|(refused, _)| *refused == name)
}

/// A row's columns. One without a value counts as absent: tables fill the rows that lack a column in this way.
pub(super) struct Columns<'a>(&'a Map<String, Value>);

impl<'a> Columns<'a> {
    /// Refuses a row with a column that would be lost.
    pub(super) fn of(row: &'a Value) -> Result<Self, String> {
        let object = row.as_object().ok_or("the row is not a JSON object: give one object a row")?;
        for (column, what) in REFUSED {
            if object.get(column).is_some_and(|value| !is_empty(value)) {
                return Err(format!("column {column}: rows cannot hold {what}; leave such rows out, or the column"));
            }
        }
        Ok(Self(object))
    }

    pub(super) fn get(&self, column: &str) -> Option<&'a Value> {
        self.0.get(column).filter(|value| !value.is_null())
    }

    pub(super) fn has(&self, column: &str) -> bool {
        self.get(column).is_some()
    }

    pub(super) fn need(&self, column: &str) -> Result<&'a Value, String> {
        self.get(column).ok_or_else(|| format!("column {column}: it is missing"))
    }

    /// A column of text; absent is empty.
    pub(super) fn text(&self, column: &str) -> Result<&'a str, String> {
        match self.get(column) {
            None => Ok(""),
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(format!("column {column}: it should be text")),
        }
    }

    /// The first of these columns that is there.
    pub(super) fn first(&self, columns: &[&'static str]) -> Option<(&'static str, &'a Value)> {
        columns.iter().find_map(|column| Some((*column, self.get(column)?)))
    }
}
