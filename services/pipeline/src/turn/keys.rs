//! Ids and request ids that are the same whenever a run is started over.

use prost::Message;
use tidemill_artifacts::Digest;
use tidemill_proto::names;

use super::Turn;

/// Hex digits of a hash in an id.
const DIGITS: usize = 10;

impl Turn {
    /// The id of what this run creates: `{pipeline}-{number}`.
    pub(super) fn id(&self) -> String {
        format!("{}-{}", self.pipeline(), names::last_id(&self.run.name))
    }

    /// The request id of a create in this run.
    pub(super) fn request_id(&self, what: &str) -> String {
        stable(&format!("{}/{what}", self.run.uid))
    }
}

/// A request id made from a text.
pub(super) fn stable(text: &str) -> String {
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, format!("tidemill/pipeline/{text}").as_bytes()).to_string()
}

/// An id that is another one when the content is another: `{prefix}-{hash}`.
pub(super) fn of_content(prefix: &str, content: &impl Message) -> String {
    let hash = Digest::of(content.encode_to_vec()).hex();
    format!("{prefix}-{}", &hash[..DIGITS])
}
