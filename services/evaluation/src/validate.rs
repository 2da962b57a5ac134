//! What an evaluation must be: every mistake is found before work begins, and all are told at once.

use tidemill_artifacts::{Digest, Error};
use tidemill_chassis::Fault;
use tidemill_dataset::Split;
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
    check_artifact(platform, "dataset_digest", &asked.dataset_digest, "prepared-dataset", &mut wrong).await?;
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
) -> Result<(), Fault> {
    let mut add = |text: String| wrong.push((field.to_owned(), text));
    if text.is_empty() {
        add(format!("is required: the digest of a {kind}"));
        return Ok(());
    }
    let Ok(digest) = text.parse::<Digest>() else {
        add(format!("{text:?} is not of the form sha256:<64 lowercase hex digits>"));
        return Ok(());
    };
    match platform.artifacts.manifest(&digest).await {
        Ok(manifest) if manifest.kind == kind => {}
        Ok(manifest) => add(format!("{digest} is a {}, not a {kind}", manifest.kind)),
        Err(error @ (Error::NotFound(_) | Error::Mismatch { .. } | Error::Corrupt { .. })) => add(error.to_string()),
        Err(error) => return Err(fault_of_artifacts(error)),
    }
    Ok(())
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
            Ok(Baseline::Xz | Baseline::Unigram) => {}
            _ => {
                add(&format!("baselines[{index}]"), "is not a baseline; use BASELINE_XZ or BASELINE_UNIGRAM".to_owned())
            }
        }
    }
    if suite.max_documents < 0 {
        add("max_documents", format!("{} is negative; use 0 for all", suite.max_documents));
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
    use super::*;

    #[test]
    fn every_mistake_in_a_suite_is_told_at_once() {
        let suite = SuiteSpec {
            split: "exam".to_owned(),
            baselines: vec![1, 0, 7],
            max_documents: -1,
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
        let fields: Vec<&str> = wrong.iter().map(|(field, _)| field.as_str()).take(9).collect();
        let expected = [
            "suite.split",
            "suite.baselines[1]",
            "suite.baselines[2]",
            "suite.max_documents",
            "suite.sampling.temperature",
            "suite.sampling.top_k",
            "suite.sampling.top_p",
            "suite.sampling.max_tokens",
            "suite.sampling.stop",
        ];
        assert_eq!(fields, expected);
        assert_eq!(wrong.len(), 18);
    }

    #[test]
    fn an_empty_suite_is_fine() {
        let mut wrong = Wrong::new();
        check_suite(&SuiteSpec::default(), &mut wrong);
        assert!(wrong.is_empty(), "{wrong:?}");
    }
}
