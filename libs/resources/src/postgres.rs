//! The adapter for PostgreSQL: many replicas share one database.
//!
//! Each write is one statement that PostgreSQL judges on the newest committed version of its row, under the row's lock: so READ COMMITTED
//! suffices for the rules of etags and creates (`write.rs`). Events take a lock that is held until their commit (`write.rs`), one
//! replica relays them (`lead.rs`), and commits of one replica wake the others (`wakes.rs`).

mod lead;
mod rows;
mod server;
mod tls;
mod wakes;
mod write;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use tokio::sync::watch;

use crate::{Batch, Error, Leadership, List, Pending, Record, Result, Store};
pub(crate) use server::EXAMPLE;
use server::Server;

/// Connections that calls share.
const CONNECTIONS: usize = 16;
/// How long a call waits for a connection, and for the whole of its work: beyond what the server allows a statement.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a batch is tried that PostgreSQL has chosen as the victim of a deadlock.
const ATTEMPTS: u32 = 5;

pub(crate) struct PostgresStore {
    server: Arc<Server>,
    pool: Pool,
    wakes: wakes::Wakes,
}

/// Why a piece of work failed.
enum Failure {
    /// By a rule of the store: the connection is as good as before.
    Rule(Error),
    /// By the database or the way to it.
    Database(tokio_postgres::Error),
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Failure {
        Failure::Database(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Rule(error)
    }
}

impl PostgresStore {
    /// Connects, and brings the tables to this version.
    pub(crate) async fn open(url: &str) -> Result<PostgresStore> {
        let server = Arc::new(Server::parse(url)?);
        server.migrate().await?;
        let manager = Manager::from_config(
            server.config.clone(),
            server.tls.clone(),
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        let pool = Pool::builder(manager)
            .max_size(CONNECTIONS)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(PATIENCE))
            .create_timeout(Some(server::CONNECT))
            .recycle_timeout(Some(server::CONNECT))
            .build()
            .map_err(|error| server.unavailable(error.to_string()))?;
        let wakes = wakes::Wakes::start(server.clone());
        Ok(PostgresStore { server, pool, wakes })
    }

    /// Does a piece of work on a connection of the pool. One that failed, or did not end in time, is closed: with it ends whatever it was
    /// in the middle of.
    async fn on_connection<T>(
        &self,
        work: impl AsyncFnOnce(&mut Object) -> std::result::Result<T, Failure>,
    ) -> Result<T> {
        let mut connection = self.pool.get().await.map_err(|error| match error {
            deadpool_postgres::PoolError::Backend(error) => self.server.failed(&error),
            error => self.server.unavailable(error.to_string()),
        })?;
        let error = match tokio::time::timeout(PATIENCE, work(&mut connection)).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(Failure::Rule(error))) => return Err(error),
            Ok(Err(Failure::Database(error))) => self.server.failed(&error),
            Err(_) => self.server.unavailable(format!("no answer within {} s", PATIENCE.as_secs())),
        };
        drop(Object::take(connection));
        Err(error)
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn commit(&self, batch: Batch) -> Result<Vec<Record>> {
        let batch = &batch;
        let records = self
            .on_connection(async |connection: &mut Object| {
                let mut attempt = 1;
                loop {
                    match write::commit(connection, batch).await {
                        Err(Failure::Database(error)) if write::is_deadlock(&error) && attempt < ATTEMPTS => {
                            attempt += 1
                        }
                        other => return other,
                    }
                }
            })
            .await?;
        self.wakes.committed_here();
        Ok(records)
    }

    async fn get(&self, name: &str) -> Result<Record> {
        let found = self.on_connection(async |connection: &mut Object| Ok(rows::get(connection, name).await?)).await?;
        found.ok_or_else(|| Error::NotFound(name.to_owned()))
    }

    async fn list(&self, list: List) -> Result<Vec<Record>> {
        self.on_connection(async |connection: &mut Object| Ok(rows::list(connection, &list).await?)).await
    }

    async fn pending(&self, limit: usize) -> Result<Vec<Pending>> {
        let pending = self.on_connection(async |connection: &mut Object| Ok(rows::pending(connection, limit).await?));
        pending.await?.into_iter().map(|row| row.read(&self.server)).collect()
    }

    async fn published(&self, sequence: i64) -> Result<()> {
        self.on_connection(async |connection: &mut Object| {
            let forget = connection.prepare_cached("DELETE FROM outbox WHERE sequence <= $1").await?;
            connection.execute(&forget, &[&sequence]).await?;
            Ok(())
        })
        .await
    }

    async fn lead(&self) -> Result<Option<Box<dyn Leadership>>> {
        // Who does not lead asks often: not each time by a new connection.
        let taken = self.on_connection(async |connection: &mut Object| Ok(lead::is_taken(connection).await?)).await?;
        if taken { Ok(None) } else { lead::lead(&self.server).await }
    }

    fn committed(&self) -> watch::Receiver<u64> {
        self.wakes.subscribe()
    }
}

#[cfg(test)]
mod tests;
