//! What an evaluation must be: every mistake is found before work begins, and all are told at once.

use tidemill_artifacts::{Digest, Error, Manifest};
use tidemill_chassis::Fault;
use tidemill_dataset::{Prepared, RowType, Split};
use tidemill_platform::{Platform, fault_of_artifacts};
use tidemill_proto::evaluation::v1::Evaluation;
use tidemill_proto::names;
use tidemill_proto::registry::v1::GetModelVersionRequest;
use tidemill_proto::r#type::v1::suite_spec::Baseline;
use tidemill_proto::r#type::v1::{SamplingParameters, SuiteSpec};
use tonic::Code;

/// Most stop strings.
const MOST_STOPS: usize = 8;

/// Wrong fields: (path, what is wrong).
type Wrong = Vec<(String, String)>;

/// Checks an evaluation that is asked for; returns the digest of the model that it measures.
///
/// # Errors
/// All wrong fields; or what is needed to check them is away.
pub(crate) async fn check(platform: &Platform, id: &str, asked: &Evaluation) -> Result<String, Fault> {
    let mut wrong = Wrong::new();
    if !id.is_empty()
        && let Err(error) = names::check_id(id)
    {
        wrong.push(("evaluation_id".to_owned(), error.to_string()));
    }
    match &asked.suite {
        None => wrong.push(("suite".to_owned(), "is required".to_owned())),
        Some(suite) => check_suite(suite, &mut wrong),
    }
    let dataset =
        check_artifact(platform, "dataset_digest", &asked.dataset_digest, "prepared-dataset", &mut wrong).await?;
    if let (Some(dataset), Some(suite)) = (dataset, &asked.suite) {
        check_content(&dataset, suite, &mut wrong);
    }
    let model_digest = check_version(platform, asked, &mut wrong).await?;
    if !model_digest.is_empty() {
        check_artifact(platform, "model_digest", &model_digest, "model", &mut wrong).await?;
    }
    if wrong.is_empty() { Ok(model_digest) } else { Err(Fault::invalid_fields(wrong)) }
}

/// The digest of the version, which must be the one that the caller expects, if any.
async fn check_version(platform: &Platform, asked: &Evaluation, wrong: &mut Wrong) -> Result<String, Fault> {
    let version = asked.model_version.as_str();
    let mut add = |field: &str, text: String| wrong.push((field.to_owned(), text));
    if version.is_empty() {
        add("model_version", "is required: models/{model}/versions/{version}".to_owned());
        return Ok(String::new());
    }
    match names::ids(version, "models/-/versions/-") {
        Err(error) => add("model_version", error.to_string()),
        Ok(ids) if ids.contains(&"-") => add("model_version", "must name one version".to_owned()),
        Ok(_) => {
            let request = GetModelVersionRequest { name: version.to_owned() };
            match platform.clients.registry().get_model_version(request).await {
                Ok(found) => {
                    let digest = found.into_inner().digest;
                    if asked.model_digest.is_empty() || asked.model_digest == digest {
                        return Ok(digest);
                    }
                    add("model_digest", format!("{} is not {version}, which has {digest}", asked.model_digest));
                }
                Err(status) if status.code() == Code::NotFound => {
                    add("model_version", format!("{version} does not exist"));
                }
                Err(status) => return Err(Fault::from(status)),
            }
        }
    }
    Ok(String::new())
}

async fn check_artifact(
    platform: &Platform,
    field: &str,
    text: &str,
    kind: &str,
    wrong: &mut Wrong,
) -> Result<Option<Manifest>, Fault> {
    let mut add = |text: String| wrong.push((field.to_owned(), text));
    if text.is_empty() {
        add(format!("is required: the digest of a {kind}"));
        return Ok(None);
    }
    let Ok(digest) = text.parse::<Digest>() else {
        add(format!("{text:?} is not of the form sha256:<64 lowercase hex digits>"));
        return Ok(None);
    };
    match platform.artifacts.manifest(&digest).await {
        Ok(manifest) if manifest.kind == kind => return Ok(Some(manifest)),
        Ok(manifest) => add(format!("{digest} is a {}, not a {kind}", manifest.kind)),
        Err(error @ (Error::NotFound(_) | Error::Mismatch { .. } | Error::Corrupt { .. })) => add(error.to_string()),
        Err(error) => return Err(fault_of_artifacts(error)),
    }
    Ok(None)
}

/// Compressors are for text, and the base model is for rows; of prompts alone nothing can be measured.
fn check_content(dataset: &Manifest, suite: &SuiteSpec, wrong: &mut Wrong) {
    let Ok(prepared) = Prepared::from_map(&dataset.annotations) else { return };
    let rows = matches!(prepared, Prepared::Rows(_));
    for (index, baseline) in suite.baselines().enumerate() {
        if rows != (baseline == Baseline::BaseModel) {
            let held = if rows { "rows" } else { "text" };
            let text = format!("{} is not for a dataset of {held}: leave it out", baseline.as_str_name());
            wrong.push((format!("suite.baselines[{index}]"), text));
        }
    }
    if matches!(prepared, Prepared::Rows(rows) if rows.row_type == RowType::Prompt) {
        let text = "its rows are prompts alone, of which nothing can be measured".to_owned();
        wrong.push(("dataset_digest".to_owned(), text));
    }
}

fn check_suite(suite: &SuiteSpec, wrong: &mut Wrong) {
    let mut add = |field: &str, text: String| wrong.push((format!("suite.{field}"), text));
    if !suite.split.is_empty()
        && let Err(error) = suite.split.parse::<Split>()
    {
        add("split", error.to_string());
    }
    for (index, baseline) in suite.baselines.iter().enumerate() {
        match Baseline::try_from(*baseline) {
            Ok(Baseline::Xz | Baseline::Unigram | Baseline::BaseModel) => {}
            _ => add(
                &format!("baselines[{index}]"),
                "is not a baseline; use BASELINE_XZ, _UNIGRAM or _BASE_MODEL".to_owned(),
            ),
        }
    }
    if suite.max_documents < 0 {
        add("max_documents", format!("{} is negative; use 0 for all", suite.max_documents));
    }
    if suite.max_completion_length < 0 {
        add("max_completion_length", format!("{} is negative; use 0 for all", suite.max_completion_length));
    }
    if let Some(sampling) = &suite.sampling {
        check_sampling(sampling, add);
    }
}

fn check_sampling(sampling: &SamplingParameters, mut add: impl FnMut(&str, String)) {
    if let Some(value) = sampling.temperature.filter(|value| !(0.0..=2.0).contains(value)) {
        add("sampling.temperature", format!("{value} is not between 0 and 2"));
    }
    if let Some(value) = sampling.top_k.filter(|value| *value < 0) {
        add("sampling.top_k", format!("{value} is negative; use 0 to keep all"));
    }
    if let Some(value) = sampling.top_p.filter(|value| !(*value > 0.0 && *value <= 1.0)) {
        add("sampling.top_p", format!("{value} is not above 0 and at most 1"));
    }
    if let Some(value) = sampling.max_tokens.filter(|value| *value < 1) {
        add("sampling.max_tokens", format!("{value} is not a number of tokens; use at least 1"));
    }
    if sampling.stop.len() > MOST_STOPS {
        add("sampling.stop", format!("{} are more than the {MOST_STOPS} allowed", sampling.stop.len()));
    }
    for (index, _) in sampling.stop.iter().enumerate().filter(|(_, stop)| stop.is_empty()) {
        add(&format!("sampling.stop[{index}]"), "is empty".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use tidemill_dataset::RowsAnnotations;

    use super::*;

    #[test]
    fn every_mistake_in_a_suite_is_told_at_once() {
        let suite = SuiteSpec {
            split: "exam".to_owned(),
            baselines: vec![1, 0, 7],
            max_documents: -1,
            max_completion_length: -1,
            sampling: Some(SamplingParameters {
                temperature: Some(2.5),
                top_k: Some(-1),
                top_p: Some(0.0),
                max_tokens: Some(0),
                stop: vec![String::new(); 9],
                ..SamplingParameters::default()
            }),
            ..SuiteSpec::default()
        };
        let mut wrong = Wrong::new();
        check_suite(&suite, &mut wrong);
        let fields: Vec<&str> = wrong.iter().map(|(field, _)| field.as_str()).take(10).collect();
        let expected = [
            "suite.split",
            "suite.baselines[1]",
            "suite.baselines[2]",
            "suite.max_documents",
            "suite.max_completion_length",
            "suite.sampling.temperature",
            "suite.sampling.top_k",
            "suite.sampling.top_p",
            "suite.sampling.max_tokens",
            "suite.sampling.stop",
        ];
        assert_eq!(fields, expected);
        assert_eq!(wrong.len(), 19);
    }

    #[test]
    fn of_rows_no_compressors_are_measured_and_of_prompts_nothing() {
        let mut annotations = RowsAnnotations {
            row_type: RowType::Preference,
            recipe: "{}".to_owned(),
            splits: Default::default(),
            dropped_counts: Default::default(),
            redacted_count: 0,
        };
        let suite = SuiteSpec { baselines: vec![2, 3], ..SuiteSpec::default() };
        let fields = |annotations: &RowsAnnotations| {
            let mut wrong = Wrong::new();
            let (kind, annotations) = ("prepared-dataset".to_owned(), annotations.to_map());
            let manifest = Manifest { kind, entries: Vec::new(), parents: Vec::new(), annotations };
            check_content(&manifest, &suite, &mut wrong);
            wrong.into_iter().map(|(field, _)| field).collect::<Vec<_>>()
        };
        assert_eq!(fields(&annotations), ["suite.baselines[0]"]);
        annotations.row_type = RowType::Prompt;
        assert_eq!(fields(&annotations), ["suite.baselines[0]", "dataset_digest"]);
    }

    #[test]
    fn an_empty_suite_is_fine() {
        let mut wrong = Wrong::new();
        check_suite(&SuiteSpec::default(), &mut wrong);
        assert!(wrong.is_empty(), "{wrong:?}");
    }
}
