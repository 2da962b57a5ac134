//! The recipe's steps, each over all documents that are still there.

use rayon::prelude::*;
use tidemill_proto::r#type::v1::recipe::{redact, step::Step};
use tidemill_safety::Kind;

use super::{Document, near, normalize::normalized, quality::Rules};
use crate::{error::Error, watch::Watch};

/// Applies one step.
pub(crate) fn apply(step: &Step, documents: &mut [Document], watch: &Watch) -> Result<(), Error> {
    match step {
        Step::Normalize(step) => each("normalising", documents, watch, |document| {
            document.change(|text| normalized(text, step.form()));
            if document.text.trim().is_empty() {
                document.drop_for("EMPTY", "nothing but white space was left after normalisation");
            }
        }),
        Step::Quality(step) => {
            let rules = Rules::of(step);
            each("filtering", documents, watch, |document| {
                // A person has judged feedback already, and answers are short.
                if !document.feedback
                    && let Err((reason, detail)) = rules.check(&document.text)
                {
                    document.drop_for(reason, detail);
                }
            })
        }
        Step::Deduplicate(step) => near::deduplicate(documents, step.threshold, watch),
        Step::Redact(step) => {
            let kinds: Vec<Kind> = match step.kinds.as_slice() {
                [] => Kind::ALL.to_vec(),
                _ => step.kinds().filter_map(kind).collect(),
            };
            each("redacting", documents, watch, |document| {
                let mut redacted = 0;
                document.change(|text| {
                    let (text, findings) = tidemill_safety::redact(text, &kinds);
                    redacted += findings.len() as u64;
                    text
                });
                document.redacted += redacted;
            })
        }
    }
}

/// Changes every document that is still there, on all cores.
pub(crate) fn each(
    phase: &'static str,
    documents: &mut [Document],
    watch: &Watch,
    change: impl Fn(&mut Document) + Sync,
) -> Result<(), Error> {
    watch.phase(phase, "records", documents.len())?;
    documents.par_iter_mut().try_for_each(|document| {
        if document.dropped.is_none() {
            change(document);
        }
        watch.advance(1)
    })
}

fn kind(kind: redact::Kind) -> Option<Kind> {
    match kind {
        redact::Kind::Unspecified => None,
        redact::Kind::Email => Some(Kind::Email),
        redact::Kind::Phone => Some(Kind::Phone),
    }
}
