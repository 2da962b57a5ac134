//! Checks of what callers send; every wrong field of a request is named at once.

use regex::RegexBuilder;
use tidemill_chassis::Fault;
use tidemill_proto::ingestion::v1::feedback::Rating;
use tidemill_proto::ingestion::v1::{Feedback, dataset_version::Origin};
use tidemill_proto::names;
use tidemill_proto::r#type::v1::{ConsentBasis, RecordFormat, SourceSpec};

use crate::files::globs;
use crate::location::Location;

/// A record becomes one cell of a Parquet column with 32-bit offsets.
const MOST_RECORD_BYTES: i64 = 1 << 30;
/// A stored resource must still fit into one message.
const MOST_TEXT_BYTES: usize = 1 << 20;
const PATTERN_BYTES: usize = 1 << 20;

type Fields = Vec<(String, String)>;

/// An error if any field is wrong.
pub(crate) fn check(fields: Fields) -> Result<(), Fault> {
    if fields.is_empty() { Ok(()) } else { Err(Fault::invalid_fields(fields)) }
}

/// What is wrong with a source.
pub(crate) fn source(spec: Option<&SourceSpec>) -> Fields {
    let mut fields = Fields::new();
    let mut wrong = |field: &str, text: String| fields.push((format!("data_source.spec{field}"), text));
    let Some(spec) = spec else {
        wrong("", "it is required".to_owned());
        return fields;
    };
    match Location::parse(&spec.uri) {
        Err(reason) => wrong(".uri", reason),
        Ok(Location::Npm { .. }) if spec.sha256.is_empty() => {
            wrong(".sha256", "it is required for npm: sources".to_owned())
        }
        Ok(_) => {}
    }
    if !spec.sha256.is_empty() && (spec.sha256.len() != 64 || !spec.sha256.bytes().all(|b| b.is_ascii_hexdigit())) {
        wrong(".sha256", "it should be 64 hex digits".to_owned());
    }
    if let Err((index, reason)) = globs(&spec.include) {
        wrong(&format!(".include[{index}]"), reason);
    }
    match RecordFormat::try_from(spec.format) {
        Ok(RecordFormat::Text | RecordFormat::Jsonl) => {}
        _ => wrong(".format", "it is required: RECORD_FORMAT_TEXT or RECORD_FORMAT_JSONL".to_owned()),
    }
    if let Err(error) = RegexBuilder::new(&spec.metadata_pattern).size_limit(PATTERN_BYTES).build() {
        wrong(".metadata_pattern", error.to_string());
    }
    if spec.license.is_empty() {
        wrong(".license", "it is required: an SPDX expression or a name".to_owned());
    }
    if matches!(ConsentBasis::try_from(spec.consent_basis), Ok(ConsentBasis::Unspecified) | Err(_)) {
        wrong(".consent_basis", "it is required: say why these records may be used".to_owned());
    }
    if !(0..=MOST_RECORD_BYTES).contains(&spec.max_record_bytes) {
        wrong(".max_record_bytes", format!("{} should be 0 to {MOST_RECORD_BYTES}", spec.max_record_bytes));
    }
    fields
}

/// What is wrong with a version's origin.
pub(crate) fn origin(origin: Option<&Origin>) -> Fields {
    let name = |field: String, value: &str, pattern: &str| one_name(value, pattern).err().map(|reason| (field, reason));
    match origin {
        Some(Origin::DataSource(source)) => {
            name("dataset_version.data_source".to_owned(), source, "dataSources/-").into_iter().collect()
        }
        Some(Origin::Feedback(selection)) if selection.feedback.is_empty() => {
            vec![("dataset_version.feedback.feedback".to_owned(), "it is empty: name the feedback to use".to_owned())]
        }
        Some(Origin::Feedback(selection)) => {
            let named = selection.feedback.iter().enumerate();
            named
                .filter_map(|(i, value)| name(format!("dataset_version.feedback.feedback[{i}]"), value, "feedback/-"))
                .collect()
        }
        None => vec![("dataset_version.data_source".to_owned(), "it is required, or feedback is".to_owned())],
    }
}

/// What is wrong with feedback.
pub(crate) fn feedback(feedback: &Feedback) -> Fields {
    let mut fields = Fields::new();
    let mut wrong = |field: &str, text: String| fields.push((format!("feedback.{field}"), text));
    if !feedback.answer.strip_prefix("answers/").is_some_and(|id| !id.is_empty() && !id.contains('/')) {
        wrong("answer", format!("{:?} should look like answers/{{answer}}", feedback.answer));
    }
    match Rating::try_from(feedback.rating) {
        Err(_) => wrong("rating", format!("{} is not a rating", feedback.rating)),
        Ok(Rating::Unspecified) if feedback.correction.is_empty() => {
            wrong("rating", "it is required where there is no correction".to_owned());
        }
        Ok(_) => {}
    }
    for (field, text) in
        [("prompt", &feedback.prompt), ("completion", &feedback.completion), ("correction", &feedback.correction)]
    {
        if text.len() > MOST_TEXT_BYTES {
            wrong(field, format!("{} bytes are more than the {MOST_TEXT_BYTES} allowed", text.len()));
        }
    }
    if !feedback.model.is_empty()
        && let Err(reason) = one_name(&feedback.model, "models/-")
    {
        wrong("model", reason);
    }
    fields
}

/// A name of exactly one resource.
pub(crate) fn one_name(value: &str, pattern: &str) -> Result<(), String> {
    match names::ids(value, pattern) {
        Ok(ids) if ids.contains(&"-") => Err(format!("{value:?} names many; name one")),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}
