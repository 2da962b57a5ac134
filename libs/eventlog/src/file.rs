//! The embedded adapter: one SQLite file, held by one process.
//!
//! Events and committed cursors are in the file; who is a member of which group and what is in flight is in memory (`groups`), so
//! a crash forgets just that, and what was not committed is delivered again.

mod groups;
mod lock;
mod table;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::{Delivery, Error, Event, Log, Result, Subscription};
use groups::{Groups, Next, Slot};
use lock::LockFile;
use table::Table;

/// Partitions of every topic: how many members of a group can work at a time.
const PARTITIONS: u32 = 8;

/// The longest delay of a release, so that adding it to the clock cannot overflow.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

pub(crate) struct FileLog {
    inner: Arc<Inner>,
}

struct Inner {
    table: Mutex<Table>,
    groups: Mutex<Groups>,
    /// Changes whenever there may be something new for somebody.
    news: watch::Sender<u64>,
    /// Dropped after the table above is closed.
    _lock: LockFile,
}

impl FileLog {
    pub(crate) async fn open(url: &str) -> Result<FileLog> {
        let path = match url.strip_prefix("file://") {
            Some(path) if path.starts_with('/') => PathBuf::from(path),
            _ => {
                let reason = "the path must be absolute: file:///path/to/events.db".to_owned();
                return Err(Error::Address { url: url.to_owned(), reason });
            }
        };
        let url = url.to_owned();
        blocking(move || {
            let folder = path.parent().unwrap_or(Path::new("/"));
            std::fs::create_dir_all(folder).map_err(|error| failed(&url, folder, &error))?;
            let lock = LockFile::take(&url, &path)?;
            let (table, contents) = Table::open(&url, &path)?;
            let inner = Inner {
                table: Mutex::new(table),
                groups: Mutex::new(Groups::new(contents)),
                news: watch::Sender::new(0),
                _lock: lock,
            };
            Ok(FileLog { inner: Arc::new(inner) })
        })
        .await
    }
}

#[async_trait]
impl Log for FileLog {
    async fn append(&self, events: Vec<Event>) -> Result<()> {
        let inner = self.inner.clone();
        blocking(move || {
            let ends = lock(&inner.table).append(&events)?;
            if !ends.is_empty() {
                lock(&inner.groups).appended(ends);
                inner.tell();
            }
            Ok(())
        })
        .await
    }

    async fn subscribe(&self, topics: &[&str], group: &str) -> Result<Box<dyn Subscription>> {
        let mut topics: Vec<String> = topics.iter().map(|topic| (*topic).to_owned()).collect();
        topics.sort();
        topics.dedup();
        let id = lock(&self.inner.groups).new_member();
        let (inner, news) = (self.inner.clone(), self.inner.news.subscribe());
        Ok(Box::new(Member { inner, id, group: group.to_owned(), topics, turn: 0, news }))
    }
}

struct Member {
    inner: Arc<Inner>,
    id: u64,
    group: String,
    topics: Vec<String>,
    /// Where to look first, so that every partition gets its turn.
    turn: usize,
    news: watch::Receiver<u64>,
}

#[async_trait]
impl Subscription for Member {
    async fn next(&mut self) -> Result<Delivery> {
        loop {
            self.news.mark_unchanged();
            let next = lock(&self.inner.groups).claim(&self.group, &self.topics, &mut self.turn, self.id);
            let (slot, attempt) = match next {
                Next::Claimed(slot, attempt) => (slot, attempt),
                Next::Nothing => {
                    self.changed().await;
                    continue;
                }
                Next::At(instant) => {
                    // Whichever comes first, look again.
                    let _ = tokio::time::timeout_at(instant, self.changed()).await;
                    continue;
                }
            };
            // Gives the claim back if this future is dropped, or the read fails.
            let claim = Claim { member: self, slot: Some(slot.clone()) };
            let inner = self.inner.clone();
            let read = slot.clone();
            let event = blocking(move || lock(&inner.table).read(&read)).await?;
            claim.keep();
            let Slot { partition, offset, .. } = slot;
            return Ok(Delivery { event, partition, offset, attempt });
        }
    }

    async fn commit(&mut self, delivery: &Delivery) -> Result<()> {
        let slot = slot(delivery);
        if lock(&self.inner.groups).is_held(&self.group, &slot, self.id)? {
            let (inner, group) = (self.inner.clone(), self.group.clone());
            blocking(move || {
                lock(&inner.table).commit(&group, &slot)?;
                lock(&inner.groups).commit(&group, &slot);
                inner.tell();
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    async fn release(&mut self, delivery: &Delivery, delay: Duration) -> Result<()> {
        let slot = slot(delivery);
        let mut groups = lock(&self.inner.groups);
        if groups.is_held(&self.group, &slot, self.id)? {
            groups.release(&self.group, &slot, Instant::now() + delay.min(LONGEST));
            self.inner.tell();
        }
        Ok(())
    }
}

impl Member {
    async fn changed(&mut self) {
        if self.news.changed().await.is_err() {
            // The sender lives as long as `inner`, which we hold.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        lock(&self.inner.groups).leave(&self.group, self.id);
        self.inner.tell();
    }
}

/// A claim that is undone unless it is kept.
struct Claim<'a> {
    member: &'a Member,
    slot: Option<Slot>,
}

impl Claim<'_> {
    fn keep(mut self) {
        self.slot = None;
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            lock(&self.member.inner.groups).unclaim(&self.member.group, &slot, self.member.id);
            self.member.inner.tell();
        }
    }
}

impl Inner {
    fn tell(&self) {
        self.news.send_modify(|count| *count = count.wrapping_add(1));
    }
}

fn slot(delivery: &Delivery) -> Slot {
    Slot { topic: delivery.event.topic.clone(), partition: delivery.partition, offset: delivery.offset }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic inside left at most an open transaction, which its drop rolled back.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(url: &str, path: &Path, error: &std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::StorageFull => Error::DiskFull(url.to_owned()),
        _ => Error::Unavailable { url: url.to_owned(), reason: format!("{}: {error}", path.display()) },
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down: nobody will look at the result.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests;
