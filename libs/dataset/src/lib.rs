//! Row formats, shards, manifests' annotations, the split and the deterministic sampler.
//! Pure: the same rows give the same bytes, whatever the machine or the time.

mod annotations;
mod error;
mod example;
mod index;
mod merkle;
mod mixture;
mod record;
mod sampler;
mod shard;
mod split;
mod table;
mod tokens;

pub use annotations::{Prepared, PreparedAnnotations, RawAnnotations, RowsAnnotations, SplitSize};
pub use error::Error;
pub use example::{Example, Role, RowType, Turn, Turns, is_row_column};
pub use index::RecordIndex;
pub use merkle::MerkleTree;
pub use mixture::Mixture;
pub use record::{Document, Fate, Quarantined, Record, RecordId};
pub use sampler::Sampler;
pub use shard::{SHARD_TEXT_BYTES, ShardWriter, count_rows, encode_shard, read_file, read_page, read_shard};
pub use split::{Ratios, Split};
pub use table::Row;
pub use tokens::{TOKEN_SHARD_BYTES, TokenWidth, TokenWriter, Tokens};
