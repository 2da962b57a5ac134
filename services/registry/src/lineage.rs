//! Lineage: what came from what. Recorded by those who make things, asked by everybody, edited by nobody.
//!
//! ```text
//!   source ──> dataset ──> prepared dataset ──> model ──> evaluation      record ──> every dataset whose index holds it
//!   feedback ─────^              ^ tokenizer     ^ base model
//! ```

mod find;
mod nodes;
mod record;
mod walk;

use std::sync::Arc;

use tidemill_artifacts::Artifacts;
use tidemill_platform::Platform;
use tidemill_resources::Store;

/// The graph. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Lineage {
    store: Arc<dyn Store>,
    artifacts: Artifacts,
}

impl Lineage {
    pub(crate) fn new(platform: &Platform) -> Self {
        Self { store: platform.resources.clone(), artifacts: platform.artifacts.clone() }
    }
}
