//! Documents through a recipe: steps, split, tokenizer, packing. Plain functions over memory and one folder.

pub(crate) mod near;
pub(crate) mod normalize;
pub(crate) mod pack;
pub(crate) mod quality;
pub(crate) mod steps;
pub(crate) mod tokenize;

use std::{collections::BTreeMap, path::Path};

use tidemill_dataset::{Example, Ratios, Record, RecordId, Split};
use tidemill_proto::r#type::v1::Recipe;
use tidemill_text::Tokenizer;

use crate::{error::Error, watch::Watch};

/// A record on its way.
pub(crate) struct Document {
    pub(crate) id: RecordId,
    /// What rules look at, and what is packed; of a row, all its texts.
    pub(crate) text: String,
    /// The row, where records are rows.
    pub(crate) row: Option<Example>,
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

    /// Changes the text, or every text of the row; drops what is of no use any more.
    pub(crate) fn change(&mut self, mut change: impl FnMut(&str) -> String) {
        match &mut self.row {
            None => self.text = change(&self.text),
            Some(row) => {
                row.texts_mut().into_iter().for_each(|text| *text = change(text));
                self.text = row.joined();
                if let Err(detail) = row.check() {
                    self.drop_for("UNUSABLE_ROW", detail);
                }
            }
        }
    }
}

/// What preparation made, beside the files.
pub(crate) struct Prepared {
    /// None for rows.
    pub(crate) tokenizer: Option<Tokenizer>,
    pub(crate) sizes: BTreeMap<Split, tidemill_dataset::SplitSize>,
    pub(crate) dropped_counts: BTreeMap<String, u64>,
    pub(crate) redacted_count: u64,
}

/// Records of all inputs as documents: each once, people's judgements last, so that none displaces a held-out document.
pub(crate) fn documents(inputs: Vec<(Vec<Record>, u32, bool)>, rows: bool) -> Result<Vec<Document>, Error> {
    let mut documents = Vec::new();
    for (records, repeat, feedback) in inputs {
        for record in records {
            let feedback = feedback && record.is_feedback();
            let row = if rows { Some(row(&record)?) } else { None };
            let text = row.as_ref().map_or(record.text, Example::joined);
            documents.push(Document {
                id: record.id,
                text,
                row,
                feedback,
                repeat,
                redacted: 0,
                dropped: None,
                ids: Vec::new(),
            });
        }
    }
    // Stable: of one record in two inputs, the first input's stays.
    documents.sort_by_key(|document| (document.id, document.feedback));
    documents.dedup_by_key(|document| document.id);
    documents.sort_by_key(|document| (document.feedback, document.id));
    Ok(documents)
}

fn row(record: &Record) -> Result<Example, Error> {
    let read = serde_json::from_str(&record.text).map_err(|error| error.to_string());
    read.and_then(|value| Example::from_json(&value)).map_err(|detail| {
        Error::Damaged(tidemill_dataset::Error::Corrupt { what: format!("row {}", record.id), detail })
    })
}

/// Prepares documents into the files of `folder`. `tokenizer` is the one to use, where the recipe names one; for rows it names none,
/// and none is trained.
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
    let tokenizer = match (tokenizer, &recipe.tokenizer) {
        (Some(tokenizer), _) => Some(tokenizer),
        (None, None) => None,
        (None, Some(_)) => {
            let training =
                documents.iter().filter(|document| document.dropped.is_none() && side(document) == Split::Train);
            let texts: Vec<&str> = training.map(|document| document.text.as_str()).collect();
            if texts.is_empty() {
                return Err(nothing_left(&documents));
            }
            Some(tokenize::train(recipe, &texts, watch)?)
        }
    };
    if let Some(tokenizer) = &tokenizer {
        tokenize::encode(tokenizer, &mut documents, watch)?;
    }
    if !documents.iter().any(|document| document.dropped.is_none() && side(document) == Split::Train) {
        return Err(nothing_left(&documents));
    }
    let sizes = pack::write(&documents, side, tokenizer.as_ref(), folder, watch)?;
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
