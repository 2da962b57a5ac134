//! The SQLite file: events by place, and how far each group has committed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params};

use super::PARTITIONS;
use super::groups::{Offsets, Slot};
use crate::{Error, Event, Result};

/// Version of the tables below.
const SCHEMA_VERSION: i64 = 1;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS events (
        topic TEXT NOT NULL,
        partition INTEGER NOT NULL,
        offset INTEGER NOT NULL,
        id TEXT NOT NULL,
        key TEXT NOT NULL,
        event_type TEXT NOT NULL,
        time_micros INTEGER NOT NULL,
        headers TEXT NOT NULL,
        payload BLOB NOT NULL,
        PRIMARY KEY (topic, partition, offset)
    );
    CREATE UNIQUE INDEX IF NOT EXISTS ids ON events (topic, id);
    CREATE TABLE IF NOT EXISTS cursors (
        member_group TEXT NOT NULL,
        topic TEXT NOT NULL,
        partition INTEGER NOT NULL,
        offset INTEGER NOT NULL,
        PRIMARY KEY (member_group, topic, partition)
    ) WITHOUT ROWID;";

pub(super) struct Table {
    url: String,
    path: PathBuf,
    connection: Connection,
}

/// Ends by topic, and committed offsets by (group, topic).
pub(super) type Contents = (HashMap<String, Offsets>, HashMap<(String, String), Offsets>);

impl Table {
    /// Opens the file, creating it if need be, with the offsets that it holds.
    pub(super) fn open(url: &str, path: &Path) -> Result<(Table, Contents)> {
        let place = (url, path);
        let connection = sql(place, Connection::open(path))?;
        let found = sql(place, connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)))?;
        if found > SCHEMA_VERSION {
            let reason =
                format!("a newer version of Tidemill wrote it (format {found}, this one knows {SCHEMA_VERSION})");
            return Err(Error::Unavailable { url: url.to_owned(), reason });
        }
        let contents = sql(place, prepare(&connection))?;
        Ok((Table { url: url.to_owned(), path: path.to_owned(), connection }, contents))
    }

    /// Appends the events that are not there yet. Returns the new ends of the partitions that grew.
    pub(super) fn append(&mut self, events: &[Event]) -> Result<HashMap<(String, u32), i64>> {
        let place = (self.url.as_str(), self.path.as_path());
        let connection = &mut self.connection;
        let mut work = || {
            let mut ends = HashMap::new();
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for event in events {
                insert(&transaction, event, &mut ends)?;
            }
            transaction.commit()?;
            Ok(ends)
        };
        sql(place, work())
    }

    pub(super) fn read(&self, slot: &Slot) -> Result<Event> {
        let work = || {
            let mut read = self.connection.prepare_cached(
                "SELECT id, key, event_type, time_micros, headers, payload FROM events
                 WHERE topic = ? AND partition = ? AND offset = ?",
            )?;
            read.query_row(params![slot.topic, slot.partition, slot.offset], |row| {
                let headers: String = row.get(4)?;
                Ok(Event {
                    id: row.get(0)?,
                    topic: slot.topic.clone(),
                    key: row.get(1)?,
                    event_type: row.get(2)?,
                    time_micros: row.get(3)?,
                    headers: serde_json::from_str(&headers).map_err(|error| {
                        rusqlite::Error::FromSqlConversionFailure(4, rusqlite::types::Type::Text, error.into())
                    })?,
                    payload: Bytes::from(row.get::<_, Vec<u8>>(5)?),
                })
            })
        };
        sql((&self.url, &self.path), work())
    }

    /// Moves a group beyond an event, durably; never back.
    pub(super) fn commit(&self, group: &str, slot: &Slot) -> Result<()> {
        let work = || {
            let mut commit = self.connection.prepare_cached(
                "INSERT INTO cursors (member_group, topic, partition, offset) VALUES (?, ?, ?, ?)
                 ON CONFLICT DO UPDATE SET offset = max(offset, excluded.offset)",
            )?;
            commit.execute(params![group, slot.topic, slot.partition, slot.offset + 1])
        };
        sql((&self.url, &self.path), work()).map(|_| ())
    }
}

fn prepare(connection: &Connection) -> rusqlite::Result<Contents> {
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch(SCHEMA)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()?;
    let mut ends: HashMap<String, Offsets> = HashMap::new();
    let mut rows =
        connection.prepare("SELECT topic, partition, max(offset) + 1 FROM events GROUP BY topic, partition")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        ends.entry(row.get(0)?).or_default()[row.get::<_, u32>(1)? as usize] = row.get(2)?;
    }
    let mut cursors: HashMap<(String, String), Offsets> = HashMap::new();
    let mut rows = connection.prepare("SELECT member_group, topic, partition, offset FROM cursors")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        cursors.entry((row.get(0)?, row.get(1)?)).or_default()[row.get::<_, u32>(2)? as usize] = row.get(3)?;
    }
    Ok((ends, cursors))
}

fn insert(connection: &Connection, event: &Event, ends: &mut HashMap<(String, u32), i64>) -> rusqlite::Result<()> {
    let Event { id, topic, key, event_type, time_micros, headers, payload } = event;
    let known = connection
        .prepare_cached("SELECT 1 FROM events WHERE topic = ? AND id = ?")?
        .query_row([topic, id], |_| Ok(()))
        .optional()?;
    if known.is_some() {
        return Ok(());
    }
    // The hash decides where a key's events lie: it must never change.
    let partition = (xxhash_rust::xxh3::xxh3_64(key.as_bytes()) % u64::from(PARTITIONS)) as u32;
    let offset: i64 = match ends.get(&(topic.clone(), partition)) {
        Some(end) => *end,
        None => connection
            .prepare_cached("SELECT coalesce(max(offset) + 1, 0) FROM events WHERE topic = ? AND partition = ?")?
            .query_row(params![topic, partition], |row| row.get(0))?,
    };
    let headers =
        serde_json::to_string(headers).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    connection
        .prepare_cached(
            "INSERT INTO events (topic, partition, offset, id, key, event_type, time_micros, headers, payload)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![topic, partition, offset, id, key, event_type, time_micros, headers, &payload[..]])?;
    ends.insert((topic.clone(), partition), offset + 1);
    Ok(())
}

fn sql<T>((url, path): (&str, &Path), result: rusqlite::Result<T>) -> Result<T> {
    result.map_err(|error| match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Error::DiskFull(url.to_owned()),
        // Where SQLite cannot extend its index of the journal, it does not say that this is for want of space.
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) if is_full(path) => Error::DiskFull(url.to_owned()),
        _ => Error::Unavailable { url: url.to_owned(), reason: error.to_string() },
    })
}

fn is_full(path: &Path) -> bool {
    let room = path.parent().and_then(|folder| rustix::fs::statvfs(folder).ok());
    room.is_some_and(|room| room.f_bavail * room.f_frsize < 256 * 1024)
}

#[cfg(test)]
impl Table {
    /// Bounds the file as a small disk would.
    pub(super) fn bound(&self, pages: i64) -> rusqlite::Result<()> {
        self.connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
    }
}
