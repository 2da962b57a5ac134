//! Training: byte-level BPE, and one id a character.

use std::collections::BTreeSet;

use tokenizers::{
    AddedToken,
    decoders::fuse::Fuse,
    models::{
        TrainerWrapper,
        bpe::{BPE, BpeTrainer},
        wordlevel::WordLevel,
    },
    pre_tokenizers::{
        byte_level::ByteLevel,
        split::{Split, SplitPattern},
    },
    tokenizer::SplitDelimiterBehavior,
};

use super::{Tokenizer, pieces};
use crate::Error;

/// Splits into characters; also how a character tokenizer is recognised.
pub(super) const ANY_CHARACTER: &str = r"[\s\S]";
const BYTES: usize = 256;

impl Tokenizer {
    /// Trains a byte-level BPE, GPT-2's scheme. Special tokens take the first ids, then the 256 bytes, then merges by frequency.
    /// A short text gives fewer ids than asked for.
    pub fn train_bpe<'a>(
        texts: impl IntoIterator<Item = &'a str>,
        vocabulary_size: usize,
        special_tokens: &[&str],
    ) -> Result<Self, Error> {
        let least = BYTES + special_tokens.len();
        if vocabulary_size < least {
            return Err(Error::Invalid(format!(
                "vocabulary_size is {vocabulary_size}: bytes and special tokens alone need {least}"
            )));
        }
        let mut tokenizer = tokenizers::Tokenizer::new(BPE::default());
        let scheme = ByteLevel::new(false, false, true);
        tokenizer.with_pre_tokenizer(Some(scheme)).with_decoder(Some(scheme));
        let trainer = BpeTrainer::builder()
            .show_progress(false)
            .vocab_size(vocabulary_size)
            .min_frequency(2)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens(added(special_tokens))
            .build();
        let texts: Vec<&str> = texts.into_iter().flat_map(pieces).collect();
        tokenizer
            .train(&mut TrainerWrapper::from(trainer), texts.into_iter())
            .map_err(|e| Error::Failed(e.to_string()))?;
        finish(tokenizer)
    }

    /// One id for each character of the texts, in the characters' order; special tokens follow.
    pub fn train_characters<'a>(
        texts: impl IntoIterator<Item = &'a str>,
        special_tokens: &[&str],
    ) -> Result<Self, Error> {
        let characters: BTreeSet<char> = texts.into_iter().flat_map(str::chars).collect();
        if characters.is_empty() {
            return Err(Error::Invalid("the training text is empty: a character tokenizer needs characters".into()));
        }
        let failed = |e: tokenizers::Error| Error::Failed(e.to_string());
        let vocabulary = characters.into_iter().map(String::from).zip(0..).collect();
        let model = WordLevel::builder().vocab(vocabulary).build().map_err(|e| Error::Failed(e.to_string()))?;
        let pattern = SplitPattern::Regex(ANY_CHARACTER.into());
        let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(failed)?;
        let mut tokenizer = tokenizers::Tokenizer::new(model);
        tokenizer.with_pre_tokenizer(Some(split)).with_decoder(Some(Fuse::new()));
        tokenizer.add_special_tokens(added(special_tokens)).map_err(failed)?;
        finish(tokenizer)
    }
}

fn added(tokens: &[&str]) -> Vec<AddedToken> {
    tokens.iter().map(|token| AddedToken::from(*token, true)).collect()
}

/// What was trained is used only as it will be loaded.
fn finish(tokenizer: tokenizers::Tokenizer) -> Result<Tokenizer, Error> {
    let json = tokenizer.to_string(false).map_err(|e| Error::Failed(e.to_string()))?;
    Tokenizer::from_bytes(json.as_bytes())
}
