//! Files of pipelines and studies: YAML with its line numbers, checked against the protobuf descriptor of what it describes.

mod check;
mod node;
mod places;
mod scalar;
#[cfg(test)]
mod tests;

pub(crate) use places::Places;

use prost::{Message, Name};
use tidemill_proto::pipeline::v1::PipelineSpec;
use tidemill_proto::training::v1::Study;

/// One mistake in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// Line, from 1.
    pub(crate) line: usize,
    /// Path of the field: `training.steps`; empty for the document itself.
    pub(crate) field: String,
    /// What is wrong, and what to write instead.
    pub(crate) text: String,
}

impl Mistake {
    /// As it is printed: `file:line: field: text`.
    pub(crate) fn in_file(&self, file: &str) -> String {
        let field = if self.field.is_empty() { String::new() } else { format!("{}: ", self.field) };
        format!("{file}:{}: {field}{}", self.line, self.text)
    }
}

/// Reads a pipeline's document.
///
/// # Errors
/// Every mistake, in the order of lines.
pub(crate) fn pipeline(text: &str) -> Result<(PipelineSpec, Places), Vec<Mistake>> {
    read(text)
}

/// Reads a study's document.
///
/// # Errors
/// Every mistake, in the order of lines.
pub(crate) fn study(text: &str) -> Result<(Study, Places), Vec<Mistake>> {
    read(text)
}

fn read<M: Message + Name + Default>(text: &str) -> Result<(M, Places), Vec<Mistake>> {
    let root = node::parse(text).map_err(|mistake| vec![mistake])?;
    let descriptor =
        tidemill_proto::pool().get_message_by_name(&M::full_name()).expect("the pool holds every message of ours");
    let (message, places) = check::check(&root, &descriptor)?;
    let message = message.transcode_to().expect("a message built by its descriptor has its type's encoding");
    Ok((message, places))
}
