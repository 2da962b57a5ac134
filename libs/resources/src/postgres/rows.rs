//! Rows of the two tables, in and out.

use bytes::Bytes;
use deadpool_postgres::GenericClient;
use tokio_postgres::{Error, Row};

use super::server::Server;
use crate::{List, OutboxEvent, Pending, Record};

pub(super) const COLUMNS: &str = "name, collection, uid, etag, body, create_micros, update_micros";

pub(super) async fn get(client: &impl GenericClient, name: &str) -> Result<Option<Record>, Error> {
    let get = client.prepare_cached(&format!("SELECT {COLUMNS} FROM records WHERE name = $1")).await?;
    client.query_opt(&get, &[&name]).await?.map(|row| record(&row)).transpose()
}

pub(super) async fn list(client: &impl GenericClient, list: &List) -> Result<Vec<Record>, Error> {
    let (micros, name) = list.after.clone().unwrap_or((i64::MAX, String::new()));
    let select = format!(
        "SELECT {COLUMNS} FROM records
         WHERE collection = $1 AND (create_micros, name) < ($2, $3) AND starts_with(name, $4)
         ORDER BY create_micros DESC, name DESC LIMIT $5"
    );
    let select = client.prepare_cached(&select).await?;
    let rows =
        client.query(&select, &[&list.collection, &micros, &name, &list.name_prefix, &limit(list.limit)]).await?;
    rows.iter().map(record).collect()
}

pub(super) async fn append(client: &impl GenericClient, event: &OutboxEvent) -> Result<(), Error> {
    let OutboxEvent { id, topic, key, event_type, payload, headers } = event;
    // A list of pairs of texts has a form in JSON.
    let headers =
        serde_json::Value::from_iter(headers.iter().map(|(name, value)| vec![name.as_str(), value])).to_string();
    let insert = "INSERT INTO outbox (id, topic, key, event_type, payload, headers) VALUES ($1, $2, $3, $4, $5, $6)";
    let insert = client.prepare_cached(insert).await?;
    client.execute(&insert, &[id, topic, key, event_type, &&payload[..], &headers]).await?;
    Ok(())
}

/// An event of the outbox, its headers not yet read.
pub(super) struct Waiting {
    pending: Pending,
    headers: String,
}

impl Waiting {
    pub(super) fn read(mut self, server: &Server) -> crate::Result<Pending> {
        self.pending.event.headers = serde_json::from_str(&self.headers).map_err(|error| {
            server.unavailable(format!("the headers of event {} cannot be read: {error}", self.pending.event.id))
        })?;
        Ok(self.pending)
    }
}

pub(super) async fn pending(client: &impl GenericClient, count: usize) -> Result<Vec<Waiting>, Error> {
    let select = "SELECT sequence, id, topic, key, event_type, payload, headers FROM outbox ORDER BY sequence LIMIT $1";
    let select = client.prepare_cached(select).await?;
    let rows = client.query(&select, &[&limit(count)]).await?;
    let waiting = |row: &Row| {
        let event = OutboxEvent {
            id: row.try_get(1)?,
            topic: row.try_get(2)?,
            key: row.try_get(3)?,
            event_type: row.try_get(4)?,
            payload: Bytes::from(row.try_get::<_, Vec<u8>>(5)?),
            headers: Vec::new(),
        };
        Ok(Waiting { pending: Pending { sequence: row.try_get(0)?, event }, headers: row.try_get(6)? })
    };
    rows.iter().map(waiting).collect()
}

pub(super) fn record(row: &Row) -> Result<Record, Error> {
    Ok(Record {
        name: row.try_get(0)?,
        collection: row.try_get(1)?,
        uid: row.try_get(2)?,
        etag: row.try_get(3)?,
        body: Bytes::from(row.try_get::<_, Vec<u8>>(4)?),
        create_micros: row.try_get(5)?,
        update_micros: row.try_get(6)?,
    })
}

fn limit(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
