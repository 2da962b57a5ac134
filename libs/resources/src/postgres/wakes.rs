//! Wakes: a commit of this replica wakes its own waiters at once and those of the others a moment later, by LISTEN and NOTIFY.
//!
//! The notice is a statement of its own after the commit: a NOTIFY inside would make all commits of the database wait for each other. It
//! may be lost; whoever waits also looks from time to time.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio_postgres::AsyncMessage;

use super::server::Server;
use crate::Result;

/// How long to wait before connecting again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the server may take for a notice.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Wakes {
    /// Commits of this replica.
    own: watch::Sender<u64>,
    /// Commits of all.
    all: watch::Sender<u64>,
}

impl Wakes {
    /// Starts the exchange with other replicas; it ends when this is dropped.
    pub(super) fn start(server: Arc<Server>) -> Wakes {
        let (own, all) = (watch::Sender::new(0), watch::Sender::new(0));
        tokio::spawn(exchange(server, own.subscribe(), all.clone()));
        Wakes { own, all }
    }

    pub(super) fn committed_here(&self) {
        self.own.send_modify(|count| *count += 1);
        self.all.send_modify(|count| *count += 1);
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.all.subscribe()
    }
}

async fn exchange(server: Arc<Server>, mut own: watch::Receiver<u64>, all: watch::Sender<u64>) {
    // Whoever holds the sender of `own` has dropped it: the store is closed.
    while own.has_changed().is_ok() {
        if let Err(error) = connected(&server, &mut own, &all).await {
            tracing::warn!(%error, "other replicas are not heard; looking from time to time instead");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Exchanges notices over one connection until it fails, or the store is closed.
async fn connected(server: &Server, own: &mut watch::Receiver<u64>, all: &watch::Sender<u64>) -> Result<()> {
    let (client, mut driver) = server.connect().await?;
    let (heard, mut notices) = mpsc::unbounded_channel();
    let messages = futures::stream::poll_fn(move |context| driver.poll_message(context));
    let mut messages = std::pin::pin!(messages);
    let listen = async {
        let me: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await?.try_get(0)?;
        client.batch_execute(&format!("LISTEN {}", server.channel())).await?;
        Ok::<_, tokio_postgres::Error>(me)
    };
    let talk = async {
        let me = listen.await.map_err(|error| server.failed(&error))?;
        // What was missed meanwhile is made up for.
        all.send_modify(|count| *count += 1);
        loop {
            tokio::select! {
                changed = own.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let notify = format!("NOTIFY {}", server.channel());
                    match tokio::time::timeout(PATIENCE, client.batch_execute(&notify)).await {
                        Ok(sent) => sent.map_err(|error| server.failed(&error))?,
                        Err(_) => return Err(server.unavailable("it does not take a notice".to_owned())),
                    }
                }
                Some(sender) = notices.recv() => {
                    if sender != me {
                        all.send_modify(|count| *count += 1);
                    }
                }
            }
        }
    };
    let drive = async {
        while let Some(message) = messages.next().await {
            match message {
                // The receiver lives as long as this does.
                Ok(AsyncMessage::Notification(notice)) => drop(heard.send(notice.process_id())),
                Ok(_) => {}
                Err(error) => return Err(server.failed(&error)),
            }
        }
        Err(server.unavailable("the connection was closed".to_owned()))
    };
    tokio::select! {
        done = talk => done,
        failed = drive => failed,
    }
}
