//! A batch as one transaction.

use deadpool_postgres::{GenericClient, Object, Transaction};
use tokio_postgres::error::SqlState;

use super::{Failure, rows};
use crate::{Batch, Error, Record, Write};

/// How often a create looks again at a name that was taken and is free a moment later.
const LOOKS: u32 = 10;

pub(super) async fn commit(connection: &mut Object, batch: &Batch) -> Result<Vec<Record>, Failure> {
    let transaction = connection.transaction().await?;
    let mut micros = times(&transaction, batch.writes.len()).await?;
    let mut records = Vec::with_capacity(batch.writes.len());
    for write in &batch.writes {
        match apply(&transaction, write, micros.next().unwrap_or_default()).await? {
            Some(record) => records.push(record),
            // The whole batch is a retry: what came before the create is undone.
            None => {
                transaction.rollback().await?;
                return present(connection, batch).await;
            }
        }
    }
    if !batch.events.is_empty() {
        // A sequence gives its numbers before the commit, so that by itself it is not in the order of commits. This lock is given back
        // after the commit is visible; whoever takes it next gets later numbers. So who reads the outbox sees it without gaps that
        // are filled later. It comes after all locks of rows: no deadlock goes through it.
        transaction.execute("SELECT pg_advisory_xact_lock('outbox'::regclass::oid::bigint)", &[]).await?;
        for event in &batch.events {
            rows::append(&transaction, event).await?;
        }
    }
    transaction.commit().await?;
    Ok(records)
}

/// Whether PostgreSQL undid a transaction so that another could go on.
pub(super) fn is_deadlock(error: &tokio_postgres::Error) -> bool {
    matches!(error.code(), Some(&SqlState::T_R_DEADLOCK_DETECTED | &SqlState::T_R_SERIALIZATION_FAILURE))
}

/// The times of as many writes: each is later than all that any replica was given before.
async fn times(transaction: &Transaction<'_>, count: usize) -> Result<std::ops::Range<i64>, Failure> {
    let count = count as i64;
    if count == 0 {
        return Ok(0..0);
    }
    let take = transaction.prepare_cached("SELECT next_micros($1)").await?;
    let last: i64 = transaction.query_one(&take, &[&count]).await?.try_get(0)?;
    Ok(last - count + 1..last + 1)
}

/// Applies one write; None says that it is a create that was done before.
async fn apply(transaction: &Transaction<'_>, write: &Write, micros: i64) -> Result<Option<Record>, Failure> {
    match write {
        Write::Create { name, body, request_id } => {
            let request_id = request_id.as_deref().filter(|id| !id.is_empty());
            let insert = format!(
                "INSERT INTO records ({}, request_id) VALUES ($1, $2, $3, $4, $5, $6, $6, $7)
                 ON CONFLICT (name) DO NOTHING RETURNING {}",
                rows::COLUMNS,
                rows::COLUMNS
            );
            let insert = transaction.prepare_cached(&insert).await?;
            let taken = transaction.prepare_cached("SELECT request_id FROM records WHERE name = $1").await?;
            let (collection, uid) = (crate::collection::pattern(name), uuid::Uuid::now_v7().to_string());
            for _ in 0..LOOKS {
                // Waits for another transaction that creates the same name.
                let row = transaction
                    .query_opt(&insert, &[name, &collection, &uid, &etag(), &&body[..], &micros, &request_id])
                    .await?;
                if let Some(row) = row {
                    return Ok(Some(rows::record(&row)?));
                }
                match transaction.query_opt(&taken, &[name]).await? {
                    Some(row) => {
                        let first: Option<String> = row.try_get(0)?;
                        return match request_id {
                            Some(_) if first.as_deref() == request_id => Ok(None),
                            _ => Err(Error::AlreadyExists(name.clone()).into()),
                        };
                    }
                    // Deleted between the two.
                    None => {}
                }
            }
            Err(Error::Conflict(name.clone()).into())
        }
        Write::Update { name, etag: expected, body } => {
            let update = format!(
                "UPDATE records SET etag = $3, body = $4, update_micros = $5 WHERE name = $1 AND etag = $2 RETURNING {}",
                rows::COLUMNS
            );
            let update = transaction.prepare_cached(&update).await?;
            let row = transaction.query_opt(&update, &[name, expected, &etag(), &&body[..], &micros]).await?;
            changed(transaction, name, row).await
        }
        Write::Delete { name, etag } => {
            let delete = format!("DELETE FROM records WHERE name = $1 AND etag = $2 RETURNING {}", rows::COLUMNS);
            let delete = transaction.prepare_cached(&delete).await?;
            let row = transaction.query_opt(&delete, &[name, etag]).await?;
            changed(transaction, name, row).await
        }
    }
}

/// The record that a write with the right etag returned, or why there was none.
async fn changed(
    transaction: &Transaction<'_>,
    name: &str,
    row: Option<tokio_postgres::Row>,
) -> Result<Option<Record>, Failure> {
    match row {
        Some(row) => Ok(Some(rows::record(&row)?)),
        None => match rows::get(transaction, name).await? {
            Some(_) => Err(Error::Conflict(name.to_owned()).into()),
            None => Err(Error::NotFound(name.to_owned()).into()),
        },
    }
}

/// The records that a batch names, as they are.
async fn present(connection: &Object, batch: &Batch) -> Result<Vec<Record>, Failure> {
    let mut records = Vec::with_capacity(batch.writes.len());
    for write in &batch.writes {
        let (Write::Create { name, .. } | Write::Update { name, .. } | Write::Delete { name, .. }) = write;
        let record = rows::get(connection, name).await?;
        records.push(record.ok_or_else(|| Error::NotFound(name.clone()))?);
    }
    Ok(records)
}

/// One that no write had before.
fn etag() -> String {
    let random = uuid::Uuid::new_v4();
    hex::encode(&random.as_bytes()[..8])
}
