//! Rows of the two tables, in and out.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use crate::{List, OutboxEvent, Pending, Record};

const COLUMNS: &str = "name, collection, uid, etag, body, create_micros, update_micros";

pub(super) fn get(connection: &Connection, name: &str) -> Result<Option<Record>> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM records WHERE name = ?"))?
        .query_row([name], record)
        .optional()
}

pub(super) fn list(connection: &Connection, list: &List) -> Result<Vec<Record>> {
    let (micros, name) = list.after.clone().unwrap_or((i64::MAX, String::new()));
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM records
             WHERE collection = ?1 AND (create_micros, name) < (?2, ?3) AND substr(name, 1, length(?4)) = ?4
             ORDER BY create_micros DESC, name DESC LIMIT ?5"
        ))?
        .query_map(params![list.collection, micros, name, list.name_prefix, limit(list.limit)], record)?
        .collect()
}

pub(super) fn insert(connection: &Connection, record: &Record, request_id: Option<&str>) -> Result<()> {
    let Record { name, collection, uid, etag, body, create_micros, update_micros } = record;
    connection
        .prepare_cached(&format!("INSERT INTO records ({COLUMNS}, request_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"))?
        .execute(params![name, collection, uid, etag, &body[..], create_micros, update_micros, request_id])?;
    Ok(())
}

pub(super) fn append(connection: &Connection, event: &OutboxEvent) -> Result<()> {
    let OutboxEvent { id, topic, key, event_type, payload, headers } = event;
    let headers =
        serde_json::to_string(headers).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    connection
        .prepare_cached("INSERT INTO outbox (id, topic, key, event_type, payload, headers) VALUES (?, ?, ?, ?, ?, ?)")?
        .execute(params![id, topic, key, event_type, &payload[..], headers])?;
    Ok(())
}

pub(super) fn pending(connection: &Connection, count: usize) -> Result<Vec<Pending>> {
    connection
        .prepare_cached(
            "SELECT sequence, id, topic, key, event_type, payload, headers FROM outbox ORDER BY sequence LIMIT ?",
        )?
        .query_map([limit(count)], |row| {
            let headers: String = row.get(6)?;
            let event = OutboxEvent {
                id: row.get(1)?,
                topic: row.get(2)?,
                key: row.get(3)?,
                event_type: row.get(4)?,
                payload: Bytes::from(row.get::<_, Vec<u8>>(5)?),
                headers: serde_json::from_str(&headers).map_err(|error| {
                    rusqlite::Error::FromSqlConversionFailure(6, rusqlite::types::Type::Text, error.into())
                })?,
            };
            Ok(Pending { sequence: row.get(0)?, event })
        })?
        .collect()
}

fn record(row: &Row<'_>) -> Result<Record> {
    Ok(Record {
        name: row.get(0)?,
        collection: row.get(1)?,
        uid: row.get(2)?,
        etag: row.get(3)?,
        body: Bytes::from(row.get::<_, Vec<u8>>(4)?),
        create_micros: row.get(5)?,
        update_micros: row.get(6)?,
    })
}

fn limit(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
