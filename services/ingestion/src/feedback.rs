//! Feedback into records: what a model should have said, without names, times or ids, so that equal judgements give equal digests.

use std::{collections::BTreeMap, path::Path};

use tidemill_dataset::{Quarantined, RawAnnotations, Record};
use tidemill_proto::ingestion::v1::{Feedback, feedback::Rating};

use crate::{
    collect::Collection,
    error::Error,
    records::{Outcome, refuse},
};

/// Stands in the place of a source's uri, and of a record's origin.
pub(crate) const ORIGIN: &str = "feedback";

/// Whether feedback can become a record: the person agreed, and there is a good answer or a correction to learn from.
pub(crate) fn is_usable(feedback: &Feedback) -> bool {
    let good = feedback.rating() == Rating::Up && !feedback.completion.is_empty();
    feedback.consent && (good || !feedback.correction.is_empty())
}

/// Renders feedback and writes a version's files, in the order of record ids.
pub(crate) fn write(feedback: &[Feedback], folder: &Path) -> Result<RawAnnotations, Error> {
    let (mut records, mut refused): (Vec<Record>, Vec<Quarantined>) = Default::default();
    for outcome in feedback.iter().map(render) {
        match outcome {
            Ok(record) => records.push(record),
            Err(quarantined) => refused.push(quarantined),
        }
    }
    records.sort_by(|a, b| (a.id, &a.metadata).cmp(&(b.id, &b.metadata)));
    refused.sort_by(|a, b| (&a.reason, &a.detail, a.size).cmp(&(&b.reason, &b.detail, b.size)));
    let mut collection = Collection::create(folder)?;
    for outcome in records.into_iter().map(Ok).chain(refused.into_iter().map(Err)) {
        collection.add(outcome)?;
    }
    let annotations = collection.finish(ORIGIN)?;
    Ok(RawAnnotations {
        consent_basis: "CONSENT_BASIS_CONSENT".to_owned(),
        source_uri: ORIGIN.to_owned(),
        ..annotations
    })
}

fn render(feedback: &Feedback) -> Outcome {
    let answer = if feedback.correction.is_empty() { &feedback.completion } else { &feedback.correction };
    let text = format!("{}{answer}", feedback.prompt);
    // No excerpt: without consent the words are nobody's to show.
    let no = |reason, detail: &str| Err(refuse(ORIGIN, reason, detail, &[], text.len() as u64));
    if !feedback.consent {
        return no("NO_CONSENT", "its author did not agree to training");
    }
    if !is_usable(feedback) {
        return no("NOT_USABLE", "it is neither rated up nor corrected");
    }
    if text.trim().is_empty() {
        return no("EMPTY", "it holds nothing but white space");
    }
    let mut metadata = BTreeMap::from([("kind".to_owned(), "feedback".to_owned())]);
    let rating = match feedback.rating() {
        Rating::Unspecified => "none",
        Rating::Up => "up",
        Rating::Down => "down",
    };
    metadata.insert("rating".to_owned(), rating.to_owned());
    metadata.insert("corrected".to_owned(), (!feedback.correction.is_empty()).to_string());
    if !feedback.model_digest.is_empty() {
        metadata.insert("model_digest".to_owned(), feedback.model_digest.clone());
    }
    Ok(Record::new(ORIGIN, text, metadata))
}
