//! How records are prepared.

use tidemill_proto::r#type::v1::recipe::normalize::Form;
use tidemill_proto::r#type::v1::recipe::redact::Kind;
use tidemill_proto::r#type::v1::recipe::{Quality, step::Step};
use tidemill_proto::r#type::v1::tokenizer_spec::Tokenizer;
use tidemill_proto::r#type::v1::{Recipe, Split, TokenizerSpec};

use super::wrong::Wrong;

/// All bytes, and room for special tokens.
const SMALLEST_VOCABULARY: i32 = 264;
const LARGEST_VOCABULARY: i32 = 1 << 20;

/// `rows`: whether the source's records are rows, which keep their text.
pub(super) fn check(recipe: &Recipe, rows: bool, wrong: &mut Wrong) {
    for (index, step) in recipe.steps.iter().enumerate() {
        let field = format!("recipe.steps[{index}]");
        match &step.step {
            None => wrong.add(&field, "say which: normalize, quality, deduplicate or redact"),
            Some(Step::Normalize(normalize)) => {
                wrong.choice::<Form>(&format!("{field}.normalize.form"), normalize.form, true);
            }
            Some(Step::Quality(quality)) => check_quality(&format!("{field}.quality"), quality, wrong),
            Some(Step::Deduplicate(deduplicate)) => {
                wrong.within(&format!("{field}.deduplicate.threshold"), deduplicate.threshold, 0.0, 1.0);
            }
            Some(Step::Redact(redact)) => {
                for (at, kind) in redact.kinds.iter().enumerate() {
                    wrong.choice::<Kind>(&format!("{field}.redact.kinds[{at}]"), *kind, false);
                }
            }
        }
    }
    if let Some(Split { validation_ratio, test_ratio }) = wrong.required("recipe.split", recipe.split.as_ref()) {
        wrong.within("recipe.split.validation_ratio", *validation_ratio, 0.0, 0.5);
        wrong.within("recipe.split.test_ratio", *test_ratio, 0.0, 0.5);
        let rest = 1.0 - validation_ratio - test_ratio;
        wrong.unless(rest > 0.0 || rest.is_nan(), "recipe.split", || "nothing is left to train on".to_owned());
    }
    match recipe.tokenizer.as_ref() {
        None => wrong.unless(rows, "recipe.tokenizer", || "it is required".to_owned()),
        Some(_) if rows => {
            wrong.add(
                "recipe.tokenizer",
                "rows keep their text, and the model that learns them brings its own: leave it out",
            );
        }
        Some(tokenizer) => check_tokenizer(tokenizer, wrong),
    }
}

fn check_quality(field: &str, quality: &Quality, wrong: &mut Wrong) {
    let at = |name: &str| format!("{field}.{name}");
    wrong.count(&at("min_words"), quality.min_words.into());
    wrong.count(&at("max_words"), quality.max_words.into());
    let most = if quality.max_words == 0 { 100_000 } else { quality.max_words };
    wrong.unless(quality.min_words <= most, &at("min_words"), || {
        format!("{} is more than max_words = {most}", quality.min_words)
    });
    wrong.within(&at("min_alphabetic_ratio"), quality.min_alphabetic_ratio, 0.0, 1.0);
    wrong.within(&at("max_symbol_ratio"), quality.max_symbol_ratio, 0.0, f64::MAX);
    wrong.within(&at("min_mean_word_length"), quality.min_mean_word_length, 0.0, f64::MAX);
    wrong.within(&at("max_mean_word_length"), quality.max_mean_word_length, 0.0, f64::MAX);
    wrong.within(&at("max_duplicate_line_ratio"), quality.max_duplicate_line_ratio, 0.0, 1.0);
}

fn check_tokenizer(tokenizer: &TokenizerSpec, wrong: &mut Wrong) {
    match &tokenizer.tokenizer {
        None => wrong.add("recipe.tokenizer", "say which: byte_level_bpe, characters or digest"),
        Some(Tokenizer::ByteLevelBpe(bpe)) => {
            let size = bpe.vocabulary_size;
            let good = (SMALLEST_VOCABULARY..=LARGEST_VOCABULARY).contains(&size);
            wrong.unless(good, "recipe.tokenizer.byte_level_bpe.vocabulary_size", || {
                format!("{size} should be {SMALLEST_VOCABULARY} to {LARGEST_VOCABULARY}")
            });
        }
        Some(Tokenizer::Characters(_)) => {}
        Some(Tokenizer::Digest(digest)) => {
            if let Err(error) = digest.parse::<tidemill_artifacts::Digest>() {
                wrong.add("recipe.tokenizer.digest", error.to_string());
            }
        }
    }
}
