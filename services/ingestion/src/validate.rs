//! Checks of what callers send; every wrong field of a request is named at once.

use std::path::{Component, Path};

use regex::RegexBuilder;
use tidemill_chassis::Fault;
use tidemill_proto::ingestion::v1::feedback::Rating;
use tidemill_proto::ingestion::v1::{DatasetVersion, Feedback, dataset_version::Origin};
use tidemill_proto::names;
use tidemill_proto::r#type::v1::{ConsentBasis, RecordFormat, SourceSpec};

use crate::files::globs;
use crate::https;
use crate::location::Location;
use crate::settings::IngestionSettings;
use crate::topic::Decoder;

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

/// What is wrong with a source, by what the settings allow.
pub(crate) fn source(spec: Option<&SourceSpec>, settings: &IngestionSettings) -> Fields {
    let mut fields = Fields::new();
    let mut wrong = |field: &str, text: String| fields.push((format!("data_source.spec{field}"), text));
    let Some(spec) = spec else {
        wrong("", "it is required".to_owned());
        return fields;
    };
    match Location::parse(&spec.uri) {
        Err(reason) => {
            wrong(".uri", reason);
            files(spec, false, &mut wrong);
        }
        Ok(Location::Topic) => topic(spec, settings.kafka_files_dir(), &mut wrong),
        Ok(Location::Local(_)) => files(spec, false, &mut wrong),
        Ok(Location::Npm { .. }) => files(spec, true, &mut wrong),
        Ok(Location::Https(url)) => {
            if let Err(reason) = https::allowed(settings, &url) {
                wrong(".uri", reason);
            }
            files(spec, true, &mut wrong);
        }
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

/// What is wrong with a source of files.
fn files(spec: &SourceSpec, is_download: bool, wrong: &mut impl FnMut(&str, String)) {
    if spec.sha256.is_empty() && is_download {
        wrong(".sha256", "it is required for npm: and https: sources".to_owned());
    }
    if !spec.sha256.is_empty() && (spec.sha256.len() != 64 || !spec.sha256.bytes().all(|b| b.is_ascii_hexdigit())) {
        wrong(".sha256", "it should be 64 hex digits".to_owned());
    }
    if let Err((index, reason)) = globs(&spec.include) {
        wrong(&format!(".include[{index}]"), reason);
    }
    match RecordFormat::try_from(spec.format) {
        Ok(RecordFormat::Text | RecordFormat::Jsonl | RecordFormat::Rows) => {}
        _ => wrong(".format", "it is required: RECORD_FORMAT_TEXT, _JSONL or _ROWS for files".to_owned()),
    }
    if let Err(error) = RegexBuilder::new(&spec.metadata_pattern).size_limit(PATTERN_BYTES).build() {
        wrong(".metadata_pattern", error.to_string());
    }
    if spec.kafka.is_some() {
        wrong(".kafka", "it is only for kafka: sources".to_owned());
    }
}

/// What is wrong with a topic.
fn topic(spec: &SourceSpec, files_dir: Option<&Path>, wrong: &mut impl FnMut(&str, String)) {
    let for_files = [
        (".sha256", spec.sha256.is_empty()),
        (".include", spec.include.is_empty()),
        (".metadata_pattern", spec.metadata_pattern.is_empty()),
    ];
    for (field, _) in for_files.into_iter().filter(|(_, empty)| !empty) {
        wrong(field, "it is only for sources of files: leave it empty".to_owned());
    }
    if let Err(reason) = named_files(&spec.uri, files_dir) {
        wrong(".uri", reason);
    } else if let Err(error) = tidemill_eventlog::reader::open(&spec.uri, "") {
        wrong(".uri", error.to_string());
    }
    if let Err(found) = Decoder::new(spec) {
        found.into_iter().for_each(|(field, text)| wrong(&field, text));
    }
}

/// Whether the files that a topic's uri names may be read for it.
fn named_files(uri: &str, files_dir: Option<&Path>) -> Result<(), String> {
    let (_, query) = uri.split_once('?').unwrap_or((uri, ""));
    for (name, path) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        if !name.ends_with("_file") {
            continue;
        }
        let path = Path::new(path);
        // Nothing that is read in another way later: neither `..` nor an encoded slash.
        let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
            && !path.to_string_lossy().contains('%');
        match files_dir {
            Some(dir) if plain && path.starts_with(dir) => {}
            Some(dir) => return Err(format!("{name} should be a file below {}", dir.display())),
            None => {
                return Err(format!("{name} needs the setting ingestion.kafka_files_dir, the folder of such files"));
            }
        }
    }
    Ok(())
}

/// What is wrong with where a version should end in a topic.
pub(crate) fn topic_end(version: &DatasetVersion) -> Fields {
    let mut fields = Fields::new();
    let mut wrong =
        |field: &str, text: &str| fields.push((format!("dataset_version.topic_end{field}"), text.to_owned()));
    let Some(end) = &version.topic_end else { return fields };
    if !matches!(version.origin, Some(Origin::DataSource(_))) {
        wrong("", "it is only for versions of a data source");
    }
    if end.wait.is_some_and(|wait| wait.seconds < 0 || wait.nanos < 0) {
        wrong(".wait", "it is negative");
    }
    if end.max_record_count < 0 {
        wrong(".max_record_count", "it is negative; use 0 for the usual limit");
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
