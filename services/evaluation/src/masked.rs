//! How well an encoder guesses hidden tokens of documents: those that training would hide of them, always the same.
//!
//! A document lies between the tokens that the tokenizer puts around a text, and is cut into windows of a whole context.

use std::collections::BTreeMap;

use tidemill_models::IGNORED;
use tidemill_text::{Masking, Supervised};

use crate::error::{Error, Result};
use crate::outcome::rounded;
use crate::sequences::{Loss, Sequence};
use crate::subject::{self, Subject};

/// Key of what is hidden.
const SEED: u64 = 0;

/// The windows of documents, and how many tokens these have.
pub(crate) struct Windows {
    windows: Vec<Supervised>,
    tokens: u64,
}

impl Windows {
    /// Cuts and hides; a document without a token to guess has no part in it.
    pub(crate) fn of(subject: &Subject<'_>, texts: &[String]) -> Result<Self> {
        let digest = subject.model_digest();
        let what = || format!("model {digest}");
        let names = subject::optional(subject.folder, "tokenizer_config.json")?;
        let masking = Masking::of(subject.tokenizer, names.as_deref(), Masking::PROBABILITY)
            .map_err(|source| Error::Text { what: what(), source })?;
        let around = subject.tokenizer.around_document().map_err(|source| Error::Text { what: what(), source })?;
        let (before, after) = around.unwrap_or_default();
        let context = subject.model.config().context_length() as usize;
        let (mut windows, mut tokens, mut number) = (Vec::new(), 0, 0);
        for text in texts {
            let what = format!("a document of dataset {}", subject.evaluation.dataset_digest);
            let ids = subject.tokenizer.encode(text).map_err(|source| Error::Text { what, source })?;
            tokens += ids.len() as u64;
            let ids: Vec<i64> = [&before, &ids, &after].into_iter().flatten().map(|id| i64::from(*id)).collect();
            for ids in ids.chunks(context) {
                let (mut inputs, mut targets) = (ids.to_vec(), vec![IGNORED; ids.len()]);
                masking.hide(SEED, number, &mut inputs, &mut targets);
                number += 1;
                windows.push(Supervised { inputs, targets });
            }
        }
        windows.retain(|window| window.learned() > 0);
        Ok(Self { windows, tokens })
    }

    pub(crate) fn sequences(&self) -> Vec<Sequence<'_>> {
        self.windows.iter().map(|text| Sequence { source: &[], text }).collect()
    }

    /// The figures, from the losses of the windows.
    pub(crate) fn metrics(&self, losses: &[Loss], bytes: u64) -> BTreeMap<String, f64> {
        let mut all = Loss::default();
        losses.iter().for_each(|loss| all.add(*loss));
        BTreeMap::from([
            ("masked_loss".to_owned(), rounded(all.mean())),
            ("perplexity".to_owned(), rounded(all.mean().exp())),
            ("tokens_per_byte".to_owned(), rounded(self.tokens as f64 / bytes as f64)),
        ])
    }
}
