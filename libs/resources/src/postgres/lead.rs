//! Which replica relays: the one whose connection holds a lock of the database.
//!
//! The lock goes with the connection. The leader asks the server for a sign of life every second, and gives up as soon as it gets none;
//! the server closes a leader's connection that says nothing for five seconds, so that a stopped process stands in nobody's way. Who
//! comes after one that did not step down waits until that one must have noticed.

use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use tokio::sync::oneshot;
use tokio_postgres::Client;

use super::server::{Driver, Server};
use crate::{Leadership, Result};

/// Between two signs of life, and how long one may take.
const PULSE: Duration = Duration::from_secs(1);
/// Longer than a leader needs to notice that it is none.
const NOTICE: Duration = Duration::from_secs(3);

struct Leader {
    lost: oneshot::Receiver<()>,
    /// Dropped with the leader: then it steps down.
    _resign: oneshot::Sender<()>,
}

#[async_trait]
impl Leadership for Leader {
    async fn lost(&mut self) {
        // Nothing is ever sent: the other end is dropped.
        let _ = (&mut self.lost).await;
    }
}

/// Whether somebody leads at the moment.
pub(super) async fn is_taken(client: &impl GenericClient) -> std::result::Result<bool, tokio_postgres::Error> {
    // A lock by one number of 64 bits is listed by its halves, with 1 beside them.
    let look =
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = 0 AND objsubid = 1
                AND objid = 'leader'::regclass::oid
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))";
    let look = client.prepare_cached(look).await?;
    client.query_one(&look, &[]).await?.try_get(0)
}

pub(super) async fn lead(server: &Server) -> Result<Option<Box<dyn Leadership>>> {
    let (client, mut driver) = server.connect().await?;
    let won = tokio::select! {
        won = win(&client) => won.map_err(|error| server.failed(&error))?,
        _ = &mut driver => return Err(server.unavailable("the connection was closed".to_owned())),
    };
    if !won {
        return Ok(None);
    }
    let (alive, lost) = oneshot::channel();
    let (resign, resigned) = oneshot::channel();
    tokio::spawn(reign(client, driver, alive, resigned));
    Ok(Some(Box::new(Leader { lost, _resign: resign })))
}

async fn win(client: &Client) -> std::result::Result<bool, tokio_postgres::Error> {
    let lock = "SELECT pg_try_advisory_lock('leader'::regclass::oid::bigint)";
    let won: bool = client.query_one(lock, &[]).await?.try_get(0)?;
    if won {
        let present: bool = client.query_one("SELECT present FROM leader", &[]).await?.try_get(0)?;
        if present {
            tokio::time::sleep(NOTICE).await;
        }
        client.batch_execute("UPDATE leader SET present = true; SET idle_session_timeout = '5s'").await?;
    }
    Ok(won)
}

/// Holds the lock until it is lost or given back. `_alive` is dropped with it, and tells the leader.
async fn reign(client: Client, mut driver: Driver, _alive: oneshot::Sender<()>, mut resigned: oneshot::Receiver<()>) {
    let pulses = async {
        loop {
            tokio::select! {
                _ = &mut resigned => {
                    // Should this fail, the next leader waits a little longer than it would have to.
                    let _ = tokio::time::timeout(PULSE, client.batch_execute("UPDATE leader SET present = false")).await;
                    return;
                }
                () = tokio::time::sleep(PULSE) => {}
            }
            match tokio::time::timeout(PULSE, client.batch_execute("")).await {
                Ok(Ok(())) => {}
                _ => return,
            }
        }
    };
    tokio::select! {
        () = pulses => {}
        _ = &mut driver => {}
    }
}
