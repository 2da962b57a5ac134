//! The embedded adapter: one SQLite file in WAL mode, synced at every commit.
//!
//! One connection writes, so the outbox is in commit order; another reads and never waits for the writer. SQLite blocks, so both
//! are used on tokio's blocking threads.

mod rows;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params};
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedMutexGuard, watch};

use crate::{Batch, Error, Leadership, List, Pending, Record, Result, Store, Write};

/// How long to wait for a process that has locked the file: a backup, a curious person with the sqlite3 shell.
const PATIENCE: Duration = Duration::from_secs(2);

/// Version of the tables below.
const SCHEMA_VERSION: i64 = 1;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS records (
        name TEXT PRIMARY KEY NOT NULL,
        collection TEXT NOT NULL,
        uid TEXT NOT NULL,
        etag TEXT NOT NULL,
        body BLOB NOT NULL,
        create_micros INTEGER NOT NULL,
        update_micros INTEGER NOT NULL,
        request_id TEXT
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS newest ON records (collection, create_micros DESC, name DESC);
    CREATE TABLE IF NOT EXISTS outbox (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL,
        topic TEXT NOT NULL,
        key TEXT NOT NULL,
        event_type TEXT NOT NULL,
        payload BLOB NOT NULL,
        headers TEXT NOT NULL
    );";

pub(crate) struct SqliteStore {
    place: Place,
    writer: Arc<Mutex<Writer>>,
    /// None where only one connection can see the data: in memory.
    reader: Option<Arc<Mutex<Connection>>>,
    committed: watch::Sender<u64>,
    /// One process uses the file, so whoever leads in it leads.
    leader: Arc<tokio::sync::Mutex<()>>,
}

struct Writer {
    connection: Connection,
    committed: watch::Sender<u64>,
    /// The last time given to a write: each is later, so that newest first is one order even when the clock stands still.
    last_micros: i64,
}

/// Where the data is, for messages.
#[derive(Clone)]
struct Place {
    url: String,
    path: Option<PathBuf>,
}

impl SqliteStore {
    pub(crate) async fn open(url: &str) -> Result<SqliteStore> {
        let path = match url.strip_prefix("sqlite:") {
            Some(":memory:") => None,
            Some(rest) if rest.starts_with("///") => Some(PathBuf::from(&rest[2..])),
            _ => {
                let reason = "the path must be absolute: sqlite:///path/to/file.db".to_owned();
                return Err(Error::Unavailable { url: url.to_owned(), reason });
            }
        };
        let place = Place { url: url.to_owned(), path };
        blocking(move || SqliteStore::open_at(place)).await
    }

    fn open_at(place: Place) -> Result<SqliteStore> {
        if let Some(folder) = place.path.as_deref().and_then(Path::parent) {
            std::fs::create_dir_all(folder).map_err(|error| place.io(folder, &error))?;
        }
        let mut writer = place.connect()?;
        let found: i64 = place.sql(writer.query_row("PRAGMA user_version", [], |row| row.get(0)))?;
        if found > SCHEMA_VERSION {
            let reason =
                format!("a newer version of Tidemill wrote it (format {found}, this one knows {SCHEMA_VERSION})");
            return Err(Error::Unavailable { url: place.url, reason });
        }
        let create = |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute_batch(SCHEMA)?;
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
            transaction.commit()?;
            connection.query_row("SELECT coalesce(max(update_micros), 0) FROM records", [], |row| row.get(0))
        };
        let last_micros = place.sql(create(&mut writer))?;
        let reader = match place.path {
            Some(_) => Some(Arc::new(Mutex::new(place.connect()?))),
            None => None,
        };
        let committed = watch::Sender::new(0);
        let writer = Writer { connection: writer, committed: committed.clone(), last_micros };
        Ok(SqliteStore { place, writer: Arc::new(Mutex::new(writer)), reader, committed, leader: Arc::default() })
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer, &Place) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (writer, place) = (self.writer.clone(), self.place.clone());
        blocking(move || work(&mut lock(&writer), &place)).await
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let place = self.place.clone();
        match self.reader.clone() {
            Some(reader) => blocking(move || place.sql(work(&lock(&reader)))).await,
            None => self.write(|writer, place| place.sql(work(&writer.connection))).await,
        }
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn commit(&self, batch: Batch) -> Result<Vec<Record>> {
        self.write(move |writer, place| writer.commit(&batch, place)).await
    }

    async fn get(&self, name: &str) -> Result<Record> {
        let owned = name.to_owned();
        let found = self.read(move |connection| rows::get(connection, &owned)).await?;
        found.ok_or_else(|| Error::NotFound(name.to_owned()))
    }

    async fn list(&self, list: List) -> Result<Vec<Record>> {
        self.read(move |connection| rows::list(connection, &list)).await
    }

    async fn pending(&self, limit: usize) -> Result<Vec<Pending>> {
        self.read(move |connection| rows::pending(connection, limit)).await
    }

    async fn published(&self, sequence: i64) -> Result<()> {
        self.write(move |writer, place| {
            let forget = "DELETE FROM outbox WHERE sequence <= ?";
            place.sql(writer.connection.prepare_cached(forget).and_then(|mut forget| forget.execute([sequence])))?;
            Ok(())
        })
        .await
    }

    async fn lead(&self) -> Result<Option<Box<dyn Leadership>>> {
        let leader = self.leader.clone().try_lock_owned().ok();
        Ok(leader.map(|leader| Box::new(Leader { _lock: leader }) as Box<dyn Leadership>))
    }

    fn committed(&self) -> watch::Receiver<u64> {
        self.committed.subscribe()
    }
}

struct Leader {
    _lock: OwnedMutexGuard<()>,
}

#[async_trait]
impl Leadership for Leader {
    /// It ends with the process.
    async fn lost(&mut self) {
        std::future::pending().await
    }
}

impl Writer {
    fn commit(&mut self, batch: &Batch, place: &Place) -> Result<Vec<Record>> {
        let mut last_micros = self.last_micros;
        let transaction = place.sql(self.connection.transaction_with_behavior(TransactionBehavior::Immediate))?;
        let mut records = Vec::with_capacity(batch.writes.len());
        for write in &batch.writes {
            last_micros = jiff::Timestamp::now().as_microsecond().max(last_micros + 1);
            match apply(&transaction, write, last_micros, place)? {
                Some(record) => records.push(record),
                // The whole batch is a retry. Dropping the transaction undoes what came before the create.
                None => {
                    drop(transaction);
                    return present(&self.connection, batch, place);
                }
            }
        }
        for event in &batch.events {
            place.sql(rows::append(&transaction, event))?;
        }
        place.sql(transaction.commit())?;
        self.last_micros = last_micros;
        // Here and not in the caller, who may have gone away meanwhile.
        self.committed.send_modify(|count| *count += 1);
        Ok(records)
    }
}

/// Applies one write; None says that it is a create that was done before.
fn apply(connection: &Connection, write: &Write, micros: i64, place: &Place) -> Result<Option<Record>> {
    match write {
        Write::Create { name, body, request_id } => {
            let request_id = request_id.as_deref().filter(|id| !id.is_empty());
            let taken: Option<Option<String>> = place.sql(
                connection
                    .prepare_cached("SELECT request_id FROM records WHERE name = ?")
                    .and_then(|mut taken| taken.query_row([name], |row| row.get(0)).optional()),
            )?;
            match taken {
                Some(first) if request_id.is_some() && first.as_deref() == request_id => return Ok(None),
                Some(_) => return Err(Error::AlreadyExists(name.clone())),
                None => {}
            }
            let uid = uuid::Uuid::now_v7().to_string();
            let record = Record {
                name: name.clone(),
                collection: crate::collection::pattern(name),
                etag: etag(&uid, micros, body),
                uid,
                body: body.clone(),
                create_micros: micros,
                update_micros: micros,
            };
            place.sql(rows::insert(connection, &record, request_id))?;
            Ok(Some(record))
        }
        Write::Update { name, etag: expected, body } => {
            let mut record = expect(connection, name, expected, place)?;
            record.etag = etag(&record.uid, micros, body);
            record.body = body.clone();
            record.update_micros = micros;
            let update = "UPDATE records SET etag = ?2, body = ?3, update_micros = ?4 WHERE name = ?1";
            let changed = connection
                .prepare_cached(update)
                .and_then(|mut update| update.execute(params![name, record.etag, &record.body[..], micros]));
            place.sql(changed)?;
            Ok(Some(record))
        }
        Write::Delete { name, etag } => {
            let record = expect(connection, name, etag, place)?;
            let delete = "DELETE FROM records WHERE name = ?";
            place.sql(connection.prepare_cached(delete).and_then(|mut delete| delete.execute([name])))?;
            Ok(Some(record))
        }
    }
}

/// Reads a record that must have an etag.
fn expect(connection: &Connection, name: &str, etag: &str, place: &Place) -> Result<Record> {
    match place.sql(rows::get(connection, name))? {
        None => Err(Error::NotFound(name.to_owned())),
        Some(record) if record.etag == etag => Ok(record),
        Some(_) => Err(Error::Conflict(name.to_owned())),
    }
}

/// The records that a batch names, as they are.
fn present(connection: &Connection, batch: &Batch, place: &Place) -> Result<Vec<Record>> {
    let read = |write: &Write| {
        let (Write::Create { name, .. } | Write::Update { name, .. } | Write::Delete { name, .. }) = write;
        place.sql(rows::get(connection, name))?.ok_or_else(|| Error::NotFound(name.clone()))
    };
    batch.writes.iter().map(read).collect()
}

fn etag(uid: &str, micros: i64, body: &Bytes) -> String {
    let mut hasher = Sha256::new();
    hasher.update(uid);
    hasher.update(micros.to_le_bytes());
    hasher.update(body);
    hex::encode(&hasher.finalize()[..8])
}

impl Place {
    fn connect(&self) -> Result<Connection> {
        let opened = match &self.path {
            Some(path) => Connection::open(path),
            None => Connection::open_in_memory(),
        };
        let connection = self.sql(opened)?;
        let prepare = || {
            connection.busy_timeout(PATIENCE)?;
            // In memory there is no journal to choose; SQLite answers with the mode it has.
            connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
            connection.pragma_update(None, "synchronous", "FULL")
        };
        self.sql(prepare())?;
        Ok(connection)
    }

    fn sql<T>(&self, result: rusqlite::Result<T>) -> Result<T> {
        result.map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Error::DiskFull(self.url.clone()),
            // Where SQLite cannot extend its index of the journal, it does not say that this is for want of space.
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) if self.is_full() => {
                Error::DiskFull(self.url.clone())
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                let reason = "another process has locked it; close that, then retry".to_owned();
                Error::Unavailable { url: self.url.clone(), reason }
            }
            _ => Error::Unavailable { url: self.url.clone(), reason: error.to_string() },
        })
    }

    fn io(&self, path: &Path, error: &std::io::Error) -> Error {
        match error.kind() {
            std::io::ErrorKind::StorageFull => Error::DiskFull(self.url.clone()),
            _ => Error::Unavailable { url: self.url.clone(), reason: format!("{}: {error}", path.display()) },
        }
    }

    fn is_full(&self) -> bool {
        let folder = self.path.as_deref().and_then(Path::parent);
        let room = folder.and_then(|folder| rustix::fs::statvfs(folder).ok());
        room.is_some_and(|room| room.f_bavail * room.f_frsize < 256 * 1024)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic inside left at most an open transaction, which its drop rolled back.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
