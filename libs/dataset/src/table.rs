//! How each kind of row lies in Parquet columns. Reading checks names and types, so a foreign file is refused, not misread.

use std::{collections::BTreeMap, sync::Arc};

use arrow_array::{
    Array, ArrayRef, FixedSizeBinaryArray, RecordBatch, StringArray, UInt64Array, builder::FixedSizeBinaryBuilder,
};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};

use crate::{Document, Error, Fate, Quarantined, Record, RecordId};

/// A kind of row that shards can hold.
pub trait Row: Sized {
    /// Names and types of the columns.
    fn schema() -> SchemaRef;
    /// Bytes of text in the row, by which shards roll.
    fn text_bytes(&self) -> usize;
    /// Columns of these rows.
    fn to_batch(rows: &[Self]) -> Result<RecordBatch, ArrowError>;
    /// Rows of a batch whose schema was checked.
    fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>, Error>;
}

impl Row for Record {
    fn schema() -> SchemaRef {
        schema([id(), text("origin"), text("text"), text("metadata")])
    }

    fn text_bytes(&self) -> usize {
        self.text.len()
    }

    fn to_batch(rows: &[Self]) -> Result<RecordBatch, ArrowError> {
        let metadata = rows
            .iter()
            .map(|row| serde_json::to_string(&row.metadata).map_err(|e| ArrowError::JsonError(e.to_string())))
            .collect::<Result<Vec<_>, _>>()?;
        RecordBatch::try_new(
            Self::schema(),
            vec![
                ids(rows.iter().map(|row| row.id))?,
                strings(rows.iter().map(|row| row.origin.as_str())),
                strings(rows.iter().map(|row| row.text.as_str())),
                strings(metadata.iter().map(String::as_str)),
            ],
        )
    }

    fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>, Error> {
        let (ids, origins, texts, metadata) =
            (Ids::of(batch)?, Texts::of(batch, "origin")?, Texts::of(batch, "text")?, Texts::of(batch, "metadata")?);
        (0..batch.num_rows())
            .map(|i| {
                let metadata: BTreeMap<String, String> =
                    serde_json::from_str(metadata.get(i)).map_err(|e| Error::corrupt("column metadata", e))?;
                Ok(Self { id: ids.get(i), origin: origins.get(i).into(), text: texts.get(i).into(), metadata })
            })
            .collect()
    }
}

impl Row for Quarantined {
    fn schema() -> SchemaRef {
        schema([text("origin"), text("reason"), text("detail"), text("excerpt"), count("size")])
    }

    fn text_bytes(&self) -> usize {
        self.excerpt.len() + self.detail.len()
    }

    fn to_batch(rows: &[Self]) -> Result<RecordBatch, ArrowError> {
        RecordBatch::try_new(
            Self::schema(),
            vec![
                strings(rows.iter().map(|row| row.origin.as_str())),
                strings(rows.iter().map(|row| row.reason.as_str())),
                strings(rows.iter().map(|row| row.detail.as_str())),
                strings(rows.iter().map(|row| row.excerpt.as_str())),
                counts(rows.iter().map(|row| row.size)),
            ],
        )
    }

    fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>, Error> {
        let (origins, reasons) = (Texts::of(batch, "origin")?, Texts::of(batch, "reason")?);
        let (details, excerpts) = (Texts::of(batch, "detail")?, Texts::of(batch, "excerpt")?);
        let sizes = Counts::of(batch, "size")?;
        let row = |i| Self {
            origin: origins.get(i).into(),
            reason: reasons.get(i).into(),
            detail: details.get(i).into(),
            excerpt: excerpts.get(i).into(),
            size: sizes.get(i),
        };
        Ok((0..batch.num_rows()).map(row).collect())
    }
}

impl Row for Document {
    fn schema() -> SchemaRef {
        schema([id(), text("text")])
    }

    fn text_bytes(&self) -> usize {
        self.text.len()
    }

    fn to_batch(rows: &[Self]) -> Result<RecordBatch, ArrowError> {
        let columns = vec![ids(rows.iter().map(|row| row.id))?, strings(rows.iter().map(|row| row.text.as_str()))];
        RecordBatch::try_new(Self::schema(), columns)
    }

    fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>, Error> {
        let (ids, texts) = (Ids::of(batch)?, Texts::of(batch, "text")?);
        Ok((0..batch.num_rows()).map(|i| Self { id: ids.get(i), text: texts.get(i).into() }).collect())
    }
}

impl Row for Fate {
    fn schema() -> SchemaRef {
        schema([id(), text("split"), text("reason"), text("detail"), count("redacted_count"), count("token_count")])
    }

    fn text_bytes(&self) -> usize {
        self.detail.len()
    }

    fn to_batch(rows: &[Self]) -> Result<RecordBatch, ArrowError> {
        RecordBatch::try_new(
            Self::schema(),
            vec![
                ids(rows.iter().map(|row| row.id))?,
                strings(rows.iter().map(|row| row.split.map_or("", |split| split.as_str()))),
                strings(rows.iter().map(|row| row.reason.as_str())),
                strings(rows.iter().map(|row| row.detail.as_str())),
                counts(rows.iter().map(|row| row.redacted_count)),
                counts(rows.iter().map(|row| row.token_count)),
            ],
        )
    }

    fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>, Error> {
        let (ids, splits) = (Ids::of(batch)?, Texts::of(batch, "split")?);
        let (reasons, details) = (Texts::of(batch, "reason")?, Texts::of(batch, "detail")?);
        let (redacted, tokens) = (Counts::of(batch, "redacted_count")?, Counts::of(batch, "token_count")?);
        (0..batch.num_rows())
            .map(|i| {
                let split = match splits.get(i) {
                    "" => None,
                    name => Some(name.parse().map_err(|e| Error::corrupt("column split", e))?),
                };
                Ok(Self {
                    id: ids.get(i),
                    split,
                    reason: reasons.get(i).into(),
                    detail: details.get(i).into(),
                    redacted_count: redacted.get(i),
                    token_count: tokens.get(i),
                })
            })
            .collect()
    }
}

fn schema<const N: usize>(fields: [Field; N]) -> SchemaRef {
    Arc::new(Schema::new(fields.to_vec()))
}

fn id() -> Field {
    Field::new("id", DataType::FixedSizeBinary(32), false)
}

fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, false)
}

fn count(name: &str) -> Field {
    Field::new(name, DataType::UInt64, false)
}

fn ids(values: impl ExactSizeIterator<Item = RecordId>) -> Result<ArrayRef, ArrowError> {
    let mut builder = FixedSizeBinaryBuilder::with_capacity(values.len(), 32);
    for value in values {
        builder.append_value(value.0)?;
    }
    Ok(Arc::new(builder.finish()))
}

fn strings<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn counts(values: impl Iterator<Item = u64>) -> ArrayRef {
    Arc::new(UInt64Array::from_iter_values(values))
}

fn column<'a, A: 'static>(batch: &'a RecordBatch, name: &str) -> Result<&'a A, Error> {
    batch
        .column_by_name(name)
        .filter(|column| column.null_count() == 0)
        .and_then(|column| column.as_any().downcast_ref())
        .ok_or_else(|| Error::corrupt(format!("column {name}"), "missing, of another type, or with empty values"))
}

struct Ids<'a>(&'a FixedSizeBinaryArray);

impl<'a> Ids<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self, Error> {
        let ids: &FixedSizeBinaryArray = column(batch, "id")?;
        if ids.value_length() != 32 {
            return Err(Error::corrupt("column id", "not 32 bytes wide"));
        }
        Ok(Self(ids))
    }

    fn get(&self, i: usize) -> RecordId {
        let mut id = [0; 32];
        id.copy_from_slice(self.0.value(i));
        RecordId(id)
    }
}

struct Texts<'a>(&'a StringArray);

impl<'a> Texts<'a> {
    fn of(batch: &'a RecordBatch, name: &str) -> Result<Self, Error> {
        Ok(Self(column(batch, name)?))
    }

    fn get(&self, i: usize) -> &'a str {
        self.0.value(i)
    }
}

struct Counts<'a>(&'a UInt64Array);

impl<'a> Counts<'a> {
    fn of(batch: &'a RecordBatch, name: &str) -> Result<Self, Error> {
        Ok(Self(column(batch, name)?))
    }

    fn get(&self, i: usize) -> u64 {
        self.0.value(i)
    }
}
