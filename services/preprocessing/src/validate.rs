//! Checks of what callers send; every wrong field of a request is named at once.

use std::ops::RangeInclusive;

use tidemill_artifacts::Digest;
use tidemill_chassis::Fault;
use tidemill_dataset::Ratios;
use tidemill_proto::preprocessing::v1::PreprocessingJob;
use tidemill_proto::r#type::v1::recipe::{Quality, normalize, redact, step::Step};
use tidemill_proto::r#type::v1::{Recipe, tokenizer_spec::Tokenizer};

const MOST_REPEATS: i32 = 1000;
const VOCABULARY: RangeInclusive<i32> = 264..=1 << 20;

struct Fields(Vec<(String, String)>);

impl Fields {
    fn add(&mut self, field: &str, text: impl Into<String>) {
        self.0.push((format!("preprocessing_job.{field}"), text.into()));
    }

    fn digest(&mut self, field: &str, value: &str) {
        if let Err(error) = value.parse::<Digest>() {
            self.add(field, error.to_string());
        }
    }
}

/// An error that names every wrong field.
pub(crate) fn job(job: &PreprocessingJob) -> Result<(), Fault> {
    let mut fields = Fields(Vec::new());
    if job.inputs.is_empty() {
        fields.add("inputs", "it is empty: give the digest of at least one dataset version");
    }
    for (i, input) in job.inputs.iter().enumerate() {
        fields.digest(&format!("inputs[{i}].digest"), &input.digest);
        if !(0..=MOST_REPEATS).contains(&input.repeat) {
            fields.add(&format!("inputs[{i}].repeat"), format!("{} should be 0 to {MOST_REPEATS}", input.repeat));
        }
    }
    match &job.recipe {
        Some(recipe) => check_recipe(recipe, &mut fields),
        None => fields.add("recipe", "it is required"),
    }
    if fields.0.is_empty() { Ok(()) } else { Err(Fault::invalid_fields(fields.0)) }
}

fn check_recipe(recipe: &Recipe, fields: &mut Fields) {
    for (i, step) in recipe.steps.iter().enumerate() {
        let path = format!("recipe.steps[{i}]");
        match &step.step {
            None => fields.add(&path, "it is empty: use normalize, quality, deduplicate or redact"),
            Some(Step::Normalize(step)) if normalize::Form::try_from(step.form).is_err() => {
                fields.add(&format!("{path}.normalize.form"), format!("{} is not a form", step.form));
            }
            Some(Step::Normalize(_)) => {}
            Some(Step::Quality(step)) => check_quality(step, &format!("{path}.quality"), fields),
            Some(Step::Deduplicate(step)) if !(0.0..=1.0).contains(&step.threshold) => {
                fields.add(&format!("{path}.deduplicate.threshold"), format!("{} should be 0 to 1", step.threshold));
            }
            Some(Step::Deduplicate(_)) => {}
            Some(Step::Redact(step)) => {
                for (k, kind) in step.kinds.iter().enumerate() {
                    if matches!(redact::Kind::try_from(*kind), Ok(redact::Kind::Unspecified) | Err(_)) {
                        fields.add(&format!("{path}.redact.kinds[{k}]"), "use KIND_EMAIL or KIND_PHONE");
                    }
                }
            }
        }
    }
    match recipe.split {
        None => fields.add("recipe.split", "it is required"),
        Some(split) => {
            if let Err(error) = Ratios::new(split.validation_ratio, split.test_ratio) {
                fields.add("recipe.split", error.to_string());
            }
        }
    }
    // Whether there must be one depends on what the inputs hold.
    let Some(spec) = &recipe.tokenizer else { return };
    match spec.tokenizer.as_ref() {
        None => fields.add("recipe.tokenizer", "say which: byte_level_bpe, characters or digest"),
        Some(Tokenizer::Digest(digest)) => fields.digest("recipe.tokenizer.digest", digest),
        Some(Tokenizer::ByteLevelBpe(bpe)) if !VOCABULARY.contains(&bpe.vocabulary_size) => {
            let text = format!("{} should be {} to {}", bpe.vocabulary_size, VOCABULARY.start(), VOCABULARY.end());
            fields.add("recipe.tokenizer.byte_level_bpe.vocabulary_size", text);
        }
        Some(_) => {}
    }
}

fn check_quality(step: &Quality, path: &str, fields: &mut Fields) {
    for (field, value) in [("min_words", step.min_words), ("max_words", step.max_words)] {
        if value < 0 {
            fields.add(&format!("{path}.{field}"), format!("{value} is negative; 0 takes the usual value"));
        }
    }
    for (field, value) in [
        ("min_alphabetic_ratio", step.min_alphabetic_ratio),
        ("max_symbol_ratio", step.max_symbol_ratio),
        ("min_mean_word_length", step.min_mean_word_length),
        ("max_mean_word_length", step.max_mean_word_length),
        ("max_duplicate_line_ratio", step.max_duplicate_line_ratio),
    ] {
        if !(value >= 0.0 && value.is_finite()) {
            fields.add(
                &format!("{path}.{field}"),
                format!("{value} should be a number from 0 up; 0 takes the usual value"),
            );
        }
    }
}
