//! Writes that belong together: records are read with their etags, changed in memory, and committed whole, unless somebody else wrote
//! one of them in between.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tidemill_proto::Resource;
use tidemill_resources::{Batch, Collection, Error, OutboxEvent, Record, Store, Write};

/// How often a draft is made again when others write the same records in between.
const ATTEMPTS: u64 = 100;

/// Writes in preparation.
pub(crate) struct Draft<'a> {
    store: &'a dyn Store,
    seen: BTreeMap<String, Seen>,
    /// Names written, in order.
    written: Vec<String>,
    events: Vec<OutboxEvent>,
}

struct Seen {
    record: Option<Record>,
    body: Option<Bytes>,
}

/// What a commit wrote, by name.
pub(crate) struct Committed(BTreeMap<String, Record>);

impl Committed {
    /// A resource as it is now; `None` if the draft did not write it.
    pub(crate) fn get<R: Resource>(&self, name: &str) -> Result<Option<R>, Error> {
        self.0.get(name).map(Collection::<R>::decode).transpose()
    }
}

impl<'a> Draft<'a> {
    /// Nothing read, nothing written.
    pub(crate) fn new(store: &'a dyn Store) -> Self {
        Self { store, seen: BTreeMap::new(), written: Vec::new(), events: Vec::new() }
    }

    /// The body under a name as this draft would leave it.
    pub(crate) async fn read(&mut self, name: &str) -> Result<Option<Bytes>, Error> {
        let seen = self.look(name).await?;
        Ok(seen.body.clone().or_else(|| seen.record.as_ref().map(|record| record.body.clone())))
    }

    /// A resource as it is stored.
    pub(crate) async fn resource<R: Resource>(&mut self, name: &str) -> Result<Option<R>, Error> {
        let seen = self.look(name).await?;
        seen.record.as_ref().map(Collection::<R>::decode).transpose()
    }

    /// Writes a body under a name that was read before.
    pub(crate) fn write(&mut self, name: &str, body: impl Into<Bytes>) {
        let seen = self.seen.entry(name.to_owned()).or_insert(Seen { record: None, body: None });
        if seen.body.is_none() {
            self.written.push(name.to_owned());
        }
        seen.body = Some(body.into());
    }

    /// Writes a resource under its name.
    pub(crate) fn put<R: Resource>(&mut self, resource: &R) {
        self.write(resource.name(), Collection::<R>::encode(resource));
    }

    /// Publishes an event with the writes.
    pub(crate) fn publish(&mut self, event: OutboxEvent) {
        self.events.push(event);
    }

    /// Commits. `None` says that somebody else was faster: make the draft again, as attempt number `attempt` + 1.
    pub(crate) async fn commit(mut self, attempt: u64) -> Result<Option<Committed>, Error> {
        let mut writes = Vec::with_capacity(self.written.len());
        for name in self.written {
            let Some(Seen { record, body: Some(body) }) = self.seen.remove(&name) else { continue };
            writes.push(match record {
                Some(record) if record.body == body => continue,
                Some(record) => Write::Update { name, etag: record.etag, body },
                None => Write::Create { name, body, request_id: None },
            });
        }
        if writes.is_empty() && self.events.is_empty() {
            return Ok(Some(Committed(BTreeMap::new())));
        }
        match self.store.commit(Batch { writes, events: self.events }).await {
            Ok(records) => Ok(Some(Committed(records.into_iter().map(|r| (r.name.clone(), r)).collect()))),
            Err(Error::Conflict(_) | Error::AlreadyExists(_)) if attempt < ATTEMPTS => {
                tokio::time::sleep(Duration::from_millis(attempt.min(20))).await;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn look(&mut self, name: &str) -> Result<&Seen, Error> {
        if !self.seen.contains_key(name) {
            let record = match self.store.get(name).await {
                Ok(record) => Some(record),
                Err(Error::NotFound(_)) => None,
                Err(error) => return Err(error),
            };
            self.seen.insert(name.to_owned(), Seen { record, body: None });
        }
        Ok(self.seen.get(name).expect("it was inserted above"))
    }
}
