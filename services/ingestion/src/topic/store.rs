//! Cursors and segments in the resource store, moved on together.

use std::sync::Arc;

use tidemill_proto::ingestion::v1::{TopicCursor, TopicSegment};
use tidemill_proto::names;
use tidemill_resources::{Batch, Collection, Error, ListPage, Result, Write};

/// Segments asked for at once.
const PAGE: i32 = 500;

/// The cursors and segments of all sources. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Store {
    cursors: Collection<TopicCursor>,
    segments: Collection<TopicSegment>,
}

impl Store {
    pub(crate) fn new(resources: Arc<dyn tidemill_resources::Store>) -> Self {
        Self { cursors: Collection::new(resources.clone()), segments: Collection::new(resources) }
    }

    /// How far a partition has been collected; the beginning, without an etag, if nothing was.
    pub(super) async fn cursor(&self, source: &str, partition: i32) -> Result<TopicCursor> {
        let name = format!("{source}/cursors/{partition:05}");
        match self.cursors.get(&name).await {
            Err(Error::NotFound(_)) => Ok(TopicCursor { name, ..TopicCursor::default() }),
            found => found,
        }
    }

    /// Stores a segment that begins where the cursor is, and moves the cursor to its end: both or neither. Whoever moved the cursor
    /// since it was read makes this a [`Error::Conflict`], [`Error::AlreadyExists`] or [`Error::NotFound`].
    pub(super) async fn commit(&self, cursor: &TopicCursor, segment: &TopicSegment) -> Result<TopicCursor> {
        let partition = names::last_id(&cursor.name);
        let source = names::parent(&cursor.name);
        let name = format!("{source}/segments/{partition}-{:019}", segment.begin_offset);
        let body = Collection::encode(segment);
        let create = Write::Create { name, body, request_id: None };
        let moved = TopicCursor { next_offset: segment.end_offset, ..cursor.clone() };
        let (name, body) = (cursor.name.clone(), Collection::encode(&moved));
        let write = match cursor.etag.as_str() {
            "" => Write::Create { name, body, request_id: None },
            etag => Write::Update { name, etag: etag.to_owned(), body },
        };
        let mut records =
            self.cursors.store().commit(Batch { writes: vec![create, write], events: Vec::new() }).await?;
        // The store answers every write with its record.
        Collection::decode(&records.pop().expect("two writes have two records"))
    }

    /// The segments that hold offsets from `begin` up to `end`, in order.
    pub(super) async fn segments(
        &self,
        source: &str,
        partition: i32,
        begin: i64,
        end: i64,
    ) -> Result<Vec<TopicSegment>> {
        let name_prefix = format!("{source}/segments/{partition:05}-");
        let mut found = Vec::new();
        let mut page_token = String::new();
        // Newest first is last offset first: what lies before `begin` is not even asked for.
        loop {
            let page =
                ListPage { name_prefix: name_prefix.clone(), page_size: PAGE, page_token, ..ListPage::default() };
            let page = self.segments.list(page).await?;
            let passed = page.items.iter().any(|segment| segment.end_offset <= begin);
            found.extend(
                page.items.into_iter().filter(|segment| segment.end_offset > begin && segment.begin_offset < end),
            );
            page_token = page.next_page_token;
            if passed || page_token.is_empty() {
                break;
            }
        }
        found.sort_by_key(|segment| segment.begin_offset);
        Ok(found)
    }
}
