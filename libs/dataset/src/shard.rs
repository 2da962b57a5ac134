//! Parquet shards `<stem>-00000.parquet`, ... in one folder: rolled by bytes of text, with fixed writer properties, so that
//! equal rows give equal bytes. Memory is bounded by one row group.

use std::{
    fs::File,
    io::BufWriter,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use parquet::{
    arrow::{
        ArrowWriter,
        arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder},
    },
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::{
        properties::{EnabledStatistics, WriterProperties, WriterVersion},
        reader::ChunkReader,
    },
};

use crate::{Error, Row};

/// Text bytes after which the next shard begins.
pub const SHARD_TEXT_BYTES: usize = 64 << 20;
const ROW_GROUP_TEXT_BYTES: usize = 16 << 20;
const BATCH_ROWS: usize = 1024;
const BATCH_TEXT_BYTES: usize = 4 << 20;
const ZSTD_LEVEL: i32 = 3;
/// For shards that live until a version is made of them.
const FAST_ZSTD_LEVEL: i32 = 1;

/// Writes rows of one kind into a folder's shards. Even no rows give one shard, so that a reader always finds one.
pub struct ShardWriter<T: Row> {
    folder: PathBuf,
    stem: &'static str,
    pending: Vec<T>,
    pending_bytes: usize,
    group_bytes: usize,
    shard_bytes: usize,
    roll_bytes: usize,
    open: Option<ArrowWriter<BufWriter<File>>>,
    names: Vec<String>,
    rows: u64,
}

impl<T: Row> ShardWriter<T> {
    /// A writer of `part-00000.parquet`, ... into `folder`, which it creates.
    pub fn create(folder: impl Into<PathBuf>) -> Result<Self, Error> {
        Self::named(folder, "part")
    }

    /// A writer of `<stem>-00000.parquet`, ... into `folder`, which it creates.
    pub fn named(folder: impl Into<PathBuf>, stem: &'static str) -> Result<Self, Error> {
        Self::rolling(folder, stem, SHARD_TEXT_BYTES)
    }

    fn rolling(folder: impl Into<PathBuf>, stem: &'static str, roll_bytes: usize) -> Result<Self, Error> {
        let folder = folder.into();
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        Ok(Self {
            folder,
            stem,
            pending: Vec::new(),
            pending_bytes: 0,
            group_bytes: 0,
            shard_bytes: 0,
            roll_bytes,
            open: None,
            names: Vec::new(),
            rows: 0,
        })
    }

    /// Adds a row.
    pub fn push(&mut self, row: T) -> Result<(), Error> {
        let bytes = row.text_bytes();
        if self.shard_bytes > 0 && self.shard_bytes + bytes > self.roll_bytes {
            self.close()?;
        }
        self.pending_bytes += bytes;
        self.shard_bytes += bytes;
        self.pending.push(row);
        self.rows += 1;
        if self.pending.len() == BATCH_ROWS || self.pending_bytes >= BATCH_TEXT_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Rows pushed so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Completes the last shard and returns the names of all of them, in order.
    pub fn finish(mut self) -> Result<Vec<String>, Error> {
        if self.names.is_empty() {
            self.writer()?;
        }
        self.close()?;
        Ok(self.names)
    }

    fn writer(&mut self) -> Result<&mut ArrowWriter<BufWriter<File>>, Error> {
        if self.open.is_none() {
            let name = format!("{}-{:05}.parquet", self.stem, self.names.len());
            let path = self.folder.join(&name);
            let file = File::create(&path).map_err(Error::io(&path))?;
            let writer = ArrowWriter::try_new(BufWriter::new(file), T::schema(), Some(properties(ZSTD_LEVEL)?))
                .map_err(Error::write(&path))?;
            self.names.push(name);
            self.open = Some(writer);
        }
        Ok(self.open.as_mut().expect("opened above"))
    }

    fn flush(&mut self) -> Result<(), Error> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let batch = T::to_batch(&self.pending).map_err(|e| Error::Write(ParquetError::from(e)))?;
        self.pending.clear();
        self.group_bytes += std::mem::take(&mut self.pending_bytes);
        let ends_group = self.group_bytes >= ROW_GROUP_TEXT_BYTES;
        let folder = self.folder.clone();
        let writer = self.writer()?;
        writer.write(&batch).map_err(Error::write(&folder))?;
        if ends_group {
            writer.flush().map_err(Error::write(&folder))?;
            self.group_bytes = 0;
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), Error> {
        self.flush()?;
        self.group_bytes = 0;
        self.shard_bytes = 0;
        if let Some(writer) = self.open.take() {
            let path = self.folder.join(self.names.last().map_or("", String::as_str));
            let buffered = writer.into_inner().map_err(Error::write(&path))?;
            let file = buffered.into_inner().map_err(|e| e.into_error()).map_err(Error::io(&path))?;
            file.sync_all().map_err(Error::io(&path))?;
        }
        Ok(())
    }
}

/// Rows as a shard in memory, packed in a hurry: for what is read again soon, and once.
pub fn encode_shard<T: Row>(rows: &[T]) -> Result<Bytes, Error> {
    let mut writer =
        ArrowWriter::try_new(Vec::new(), T::schema(), Some(properties(FAST_ZSTD_LEVEL)?)).map_err(Error::Write)?;
    for rows in rows.chunks(BATCH_ROWS) {
        let batch = T::to_batch(rows).map_err(|e| Error::Write(ParquetError::from(e)))?;
        writer.write(&batch).map_err(Error::Write)?;
    }
    Ok(writer.into_inner().map_err(Error::Write)?.into())
}

/// The rows of a shard held in memory; `name` appears in errors.
pub fn read_shard<T: Row>(bytes: Bytes, name: &str) -> Result<impl Iterator<Item = Result<T, Error>> + use<T>, Error> {
    Ok(rows(reader::<T, _>(bytes, name, None)?, name))
}

/// The rows of a shard on disk, read batch by batch.
pub fn read_file<T: Row>(path: &Path) -> Result<impl Iterator<Item = Result<T, Error>> + use<T>, Error> {
    let file = File::open(path).map_err(Error::io(path))?;
    let name = path.display().to_string();
    Ok(rows(reader::<T, _>(file, &name, None)?, &name))
}

/// `limit` rows of a shard from row `offset` on.
pub fn read_page<T: Row>(bytes: Bytes, name: &str, offset: usize, limit: usize) -> Result<Vec<T>, Error> {
    rows(reader::<T, _>(bytes, name, Some((offset, limit)))?, name).collect()
}

/// How many rows a shard holds, from its footer alone.
pub fn count_rows(bytes: Bytes, name: &str) -> Result<usize, Error> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| Error::corrupt(name, e))?;
    usize::try_from(builder.metadata().file_metadata().num_rows()).map_err(|e| Error::corrupt(name, e))
}

fn properties(zstd_level: i32) -> Result<WriterProperties, Error> {
    Ok(WriterProperties::builder()
        .set_created_by("tidemill".into())
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(zstd_level).map_err(Error::Write)?))
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_max_row_group_row_count(Some(1 << 20))
        .build())
}

fn reader<T: Row, R: ChunkReader + 'static>(
    source: R,
    name: &str,
    page: Option<(usize, usize)>,
) -> Result<ParquetRecordBatchReader, Error> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(source).map_err(|e| Error::corrupt(name, e))?;
    let (found, wanted) = (builder.schema().clone(), T::schema());
    if found.fields() != wanted.fields() {
        let names = |schema: &arrow_schema::Schema| {
            schema
                .fields()
                .iter()
                .map(|field| format!("{} {}", field.name(), field.data_type()))
                .collect::<Vec<_>>()
                .join(", ")
        };
        return Err(Error::corrupt(name, format!("columns are [{}], expected [{}]", names(&found), names(&wanted))));
    }
    // Rows can be large: few a batch bound the memory.
    let builder = builder.with_batch_size(64);
    let builder = match page {
        Some((offset, limit)) => builder.with_offset(offset).with_limit(limit),
        None => builder,
    };
    builder.build().map_err(|e| Error::corrupt(name, e))
}

fn rows<T: Row>(reader: ParquetRecordBatchReader, name: &str) -> impl Iterator<Item = Result<T, Error>> + use<T> {
    let name = name.to_owned();
    let mut failed = false;
    // The reader of a damaged file may give the same error for ever: the first one ends the rows.
    let batches = reader.map_while(move |batch| {
        let rows = batch.map_err(|e| Error::corrupt(&name, e));
        let rows = rows.and_then(|batch| T::from_batch(&batch).map_err(|e| Error::corrupt(&name, e)));
        (!std::mem::replace(&mut failed, rows.is_err())).then_some(rows)
    });
    batches.flat_map(|rows| match rows {
        Ok(rows) => rows.into_iter().map(Ok).collect::<Vec<_>>(),
        Err(error) => vec![Err(error)],
    })
}

#[cfg(test)]
mod tests;
