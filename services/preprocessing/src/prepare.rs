//! Documents through a recipe: steps, split, tokenizer, packing. Plain functions over memory and one folder.

pub(crate) mod near;
pub(crate) mod normalize;
pub(crate) mod pack;
pub(crate) mod quality;
pub(crate) mod steps;
pub(crate) mod tokenize;

use std::{collections::BTreeMap, path::Path};

use tidemill_dataset::{Ratios, Record, RecordId, Split};
use tidemill_proto::r#type::v1::Recipe;
use tidemill_text::Tokenizer;

use crate::{error::Error, watch::Watch};

/// A record on its way.
pub(crate) struct Document {
    pub(crate) id: RecordId,
    pub(crate) text: String,
    /// Judged by a person: always trains, and no rule of thumb drops it.
    pub(crate) feedback: bool,
    /// How often it is packed if it trains.
    pub(crate) repeat: u32,
    /// Personal data replaced.
    pub(crate) redacted: u64,
    /// Why it was dropped: a CODE and words.
    pub(crate) dropped: Option<(&'static str, String)>,
    /// Its ids, end of text included.
    pub(crate) ids: Vec<u32>,
}

impl Document {
    pub(crate) fn drop_for(&mut self, reason: &'static str, detail: impl Into<String>) {
        self.dropped = Some((reason, detail.into()));
    }
}

/// What preparation made, beside the files.
pub(crate) struct Prepared {
    pub(crate) tokenizer: Tokenizer,
    pub(crate) sizes: BTreeMap<Split, tidemill_dataset::SplitSize>,
    pub(crate) dropped_counts: BTreeMap<String, u64>,
    pub(crate) redacted_count: u64,
}

/// Records of all inputs as documents: each once, people's judgements last, so that none displaces a held-out document.
pub(crate) fn documents(inputs: Vec<(Vec<Record>, u32, bool)>) -> Vec<Document> {
    let mut documents = Vec::new();
    for (records, repeat, feedback) in inputs {
        documents.extend(records.into_iter().map(|record| Document {
            feedback: feedback && record.is_feedback(),
            id: record.id,
            text: record.text,
            repeat,
            redacted: 0,
            dropped: None,
            ids: Vec::new(),
        }));
    }
    // Stable: of one record in two inputs, the first input's stays.
    documents.sort_by_key(|document| (document.id, document.feedback));
    documents.dedup_by_key(|document| document.id);
    documents.sort_by_key(|document| (document.feedback, document.id));
    documents
}

/// Prepares documents into the files of `folder`. `tokenizer` is the one to use, where the recipe does not train one.
pub(crate) fn prepare(
    mut documents: Vec<Document>,
    recipe: &Recipe,
    tokenizer: Option<Tokenizer>,
    folder: &Path,
    watch: &Watch,
) -> Result<Prepared, Error> {
    let split = recipe.split.unwrap_or_default();
    let ratios = Ratios::new(split.validation_ratio, split.test_ratio)?;
    for step in recipe.steps.iter().filter_map(|step| step.step.as_ref()) {
        steps::apply(step, &mut documents, watch)?;
    }
    let side = |document: &Document| if document.feedback { Split::Train } else { ratios.side(&document.id) };
    let tokenizer = match tokenizer {
        Some(tokenizer) => tokenizer,
        None => {
            let training =
                documents.iter().filter(|document| document.dropped.is_none() && side(document) == Split::Train);
            let texts: Vec<&str> = training.map(|document| document.text.as_str()).collect();
            if texts.is_empty() {
                return Err(nothing_left(&documents));
            }
            tokenize::train(recipe, &texts, watch)?
        }
    };
    tokenize::encode(&tokenizer, &mut documents, watch)?;
    if !documents.iter().any(|document| document.dropped.is_none() && side(document) == Split::Train) {
        return Err(nothing_left(&documents));
    }
    let sizes = pack::write(&documents, side, &tokenizer, folder, watch)?;
    let redacted_count = documents.iter().map(|document| document.redacted).sum();
    Ok(Prepared { tokenizer, sizes, dropped_counts: dropped(&documents), redacted_count })
}

fn dropped(documents: &[Document]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for (reason, _) in documents.iter().filter_map(|document| document.dropped.as_ref()) {
        *counts.entry((*reason).to_owned()).or_default() += 1;
    }
    counts
}

fn nothing_left(documents: &[Document]) -> Error {
    let reasons: Vec<String> = dropped(documents).iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    let detail = if reasons.is_empty() { String::new() } else { format!(" after dropping {}", reasons.join(", ")) };
    Error::NothingLeft { detail }
}
