//! The typed face of the store: one kind of resource, with names, etags and times filled in, and pages to list it by.

mod page;

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost_types::Timestamp;
use tidemill_proto::{Meta, Resource};

pub use page::{ListPage, Page};

use crate::{Batch, Error, List, OutboxEvent, Record, Result, Store, Write};

/// How often a change is tried again when others write the same resource in between.
const ATTEMPTS: u64 = 100;

/// One kind of resource in the store. Cheap to clone.
pub struct Collection<R> {
    store: Arc<dyn Store>,
    kind: PhantomData<fn() -> R>,
}

impl<R> Clone for Collection<R> {
    fn clone(&self) -> Self {
        Collection { store: self.store.clone(), kind: PhantomData }
    }
}

impl<R: Resource> Collection<R> {
    /// The resources of this kind in a store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Collection { store, kind: PhantomData }
    }

    /// The store beneath, for batches over several kinds; make their bodies with [`Collection::encode`].
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Reads a resource.
    pub async fn get(&self, name: &str) -> Result<R> {
        if pattern(name) != R::COLLECTION {
            return Err(Error::NotFound(name.to_owned()));
        }
        Self::decode(&self.store.get(name).await?)
    }

    /// Creates a resource under the name that it carries. Returns it, and whether this call created it: a retry with the `request_id`
    /// of the first call returns what is there, and its events are dropped. An empty `request_id` is none.
    pub async fn create(&self, resource: &R, request_id: Option<&str>, events: Vec<OutboxEvent>) -> Result<(R, bool)> {
        let name = resource.name().to_owned();
        if pattern(&name) != R::COLLECTION {
            let reason = format!("{name:?} does not look like {}", R::COLLECTION);
            return Err(Error::InvalidArgument { field: "name".to_owned(), reason });
        }
        // The store keeps the uid beside the body and nobody reads the one inside it: a mark there tells whose create it was.
        let mark = uuid::Uuid::new_v4().to_string();
        let mut marked = resource.clone();
        marked.set_meta(Meta { uid: mark.clone(), ..Meta::default() });
        let body = Bytes::from(marked.encode_to_vec());
        let create = Write::Create { name, body, request_id: request_id.map(str::to_owned) };
        let record = self.commit(create, events).await?;
        let created = decode_body::<R>(&record)?.uid() == mark;
        Ok((Self::decode(&record)?, created))
    }

    /// Replaces a resource, if it still has the etag that `resource` carries; an empty etag replaces whatever is there.
    pub async fn replace(&self, resource: &R, events: Vec<OutboxEvent>) -> Result<R> {
        let body = Self::encode(resource);
        let name = resource.name();
        let update = async |etag| {
            let update = Write::Update { name: name.to_owned(), etag, body: body.clone() };
            Self::decode(&self.commit(update, events.clone()).await?)
        };
        match resource.etag() {
            "" => self.retrying(async || update(self.get(name).await?.etag().to_owned()).await).await,
            etag => update(etag.to_owned()).await,
        }
    }

    /// Reads, changes and writes a resource, again whenever somebody else wrote it in between; `change` returns the events of the
    /// change. Writes nothing if the resource stays as it is and there are no events.
    pub async fn modify<E: From<Error>>(
        &self,
        name: &str,
        mut change: impl FnMut(&mut R) -> std::result::Result<Vec<OutboxEvent>, E>,
    ) -> std::result::Result<R, E> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let before = self.get(name).await?;
            let mut after = before.clone();
            let events = change(&mut after)?;
            if after == before && events.is_empty() {
                return Ok(before);
            }
            let body = Self::encode(&after);
            let update = Write::Update { name: name.to_owned(), etag: before.etag().to_owned(), body };
            match self.commit(update, events).await {
                Ok(record) => return Ok(Self::decode(&record)?),
                Err(Error::Conflict(_)) if attempt < ATTEMPTS => backoff(attempt).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Deletes a resource, if it still has this etag; an empty etag deletes whatever is there. Returns what was deleted.
    pub async fn delete(&self, name: &str, etag: &str, events: Vec<OutboxEvent>) -> Result<R> {
        let delete = async |etag| {
            Self::decode(&self.commit(Write::Delete { name: name.to_owned(), etag }, events.clone()).await?)
        };
        match etag {
            "" => self.retrying(async || delete(self.get(name).await?.etag().to_owned()).await).await,
            etag if pattern(name) == R::COLLECTION => delete(etag.to_owned()).await,
            _ => Err(Error::NotFound(name.to_owned())),
        }
    }

    /// Lists a page, newest first.
    pub async fn list(&self, page: ListPage) -> Result<Page<R>> {
        let limit = page.limit()?;
        let after = page.position(R::COLLECTION)?;
        let list = List {
            collection: R::COLLECTION.to_owned(),
            name_prefix: page.name_prefix.clone(),
            // One more than asked for tells whether there is a next page.
            limit: limit + 1,
            after,
        };
        let mut records = self.store.list(list).await?;
        let next_page_token = if records.len() > limit {
            records.truncate(limit);
            records.last().map_or_else(String::new, |last| page.token(R::COLLECTION, last.create_micros, &last.name))
        } else {
            String::new()
        };
        let items = records.iter().map(Self::decode).collect::<Result<_>>()?;
        Ok(Page { items, next_page_token })
    }

    /// Lists all whose names start with `name_prefix`, newest first.
    pub async fn all(&self, name_prefix: &str) -> Result<Vec<R>> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let list = List {
                collection: R::COLLECTION.to_owned(),
                name_prefix: name_prefix.to_owned(),
                limit: page::MOST,
                after: after.take(),
            };
            let records = self.store.list(list).await?;
            for record in &records {
                all.push(Self::decode(record)?);
            }
            match records.last() {
                Some(last) if records.len() == page::MOST => after = Some((last.create_micros, last.name.clone())),
                _ => return Ok(all),
            }
        }
    }

    /// The body of a resource, as a [`Write`] wants it: the store keeps name, uid, etag and times beside it.
    pub fn encode(resource: &R) -> Bytes {
        let mut bare = resource.clone();
        bare.set_meta(Meta::default());
        Bytes::from(bare.encode_to_vec())
    }

    /// The resource of a record.
    pub fn decode(record: &Record) -> Result<R> {
        let mut resource = decode_body::<R>(record)?;
        resource.set_meta(Meta {
            name: record.name.clone(),
            uid: record.uid.clone(),
            etag: record.etag.clone(),
            create_time: Some(timestamp(record.create_micros)),
            update_time: Some(timestamp(record.update_micros)),
        });
        Ok(resource)
    }

    async fn commit(&self, write: Write, events: Vec<OutboxEvent>) -> Result<Record> {
        let records = self.store.commit(Batch { writes: vec![write], events }).await?;
        // The store answers every write with its record.
        Ok(records.into_iter().next().expect("one write has one record"))
    }

    async fn retrying(&self, write: impl AsyncFn() -> Result<R>) -> Result<R> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match write().await {
                Err(Error::Conflict(_)) if attempt < ATTEMPTS => backoff(attempt).await,
                other => return other,
            }
        }
    }
}

/// Lets others finish first, for longer the more often that was needed.
async fn backoff(attempt: u64) {
    tokio::time::sleep(Duration::from_millis(attempt.min(20))).await;
}

fn decode_body<R: Resource>(record: &Record) -> Result<R> {
    R::decode(&record.body[..]).map_err(|error| Error::Corrupt { name: record.name.clone(), reason: error.to_string() })
}

/// The collection of a name: `models/-/versions/-` for `models/sotu/versions/1`.
pub(crate) fn pattern(name: &str) -> String {
    let segments = name.split('/').enumerate();
    segments.map(|(index, segment)| if index % 2 == 1 { "-" } else { segment }).collect::<Vec<_>>().join("/")
}

fn timestamp(micros: i64) -> Timestamp {
    Timestamp { seconds: micros.div_euclid(1_000_000), nanos: (micros.rem_euclid(1_000_000) * 1000) as i32 }
}

#[cfg(test)]
mod tests;
