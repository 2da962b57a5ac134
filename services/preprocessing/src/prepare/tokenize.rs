//! The tokenizer of a prepared dataset, and its ids for every document.

use tidemill_proto::r#type::v1::{Recipe, tokenizer_spec::Tokenizer as Spec};
use tidemill_text::{SPECIAL_TOKENS, Tokenizer};

use super::{Document, steps::each};
use crate::{error::Error, watch::Watch};

/// Trains the tokenizer that the recipe describes.
pub(crate) fn train(recipe: &Recipe, texts: &[&str], watch: &Watch) -> Result<Tokenizer, Error> {
    watch.phase("training the tokenizer", "records", texts.len())?;
    let spec = recipe.tokenizer.as_ref().and_then(|spec| spec.tokenizer.as_ref());
    // A stop ends the texts early; what comes of them is thrown away below.
    let texts = texts.iter().copied().take_while(|_| watch.advance(1).is_ok());
    let tokenizer = match spec {
        Some(Spec::ByteLevelBpe(bpe)) => {
            let size = usize::try_from(bpe.vocabulary_size).unwrap_or(0);
            Tokenizer::train_bpe(texts, size, &SPECIAL_TOKENS)?
        }
        _ => Tokenizer::train_characters(texts, &SPECIAL_TOKENS)?,
    };
    watch.advance(0)?;
    Ok(tokenizer)
}

/// Gives every document its ids; one with a character that the tokenizer does not know is dropped.
pub(crate) fn encode(tokenizer: &Tokenizer, documents: &mut [Document], watch: &Watch) -> Result<(), Error> {
    let (before, after) = tokenizer.around_document()?.ok_or(Error::NoEndOfText)?;
    each("tokenising", documents, watch, |document| match tokenizer.encode(&document.text) {
        Ok(ids) => document.ids = [before.as_slice(), &ids, &after].concat(),
        Err(error) => document.drop_for("NOT_ENCODABLE", error.to_string()),
    })
}
