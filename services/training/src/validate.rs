//! What a training job must be: every mistake is found before work begins, and all are told at once.

mod spec;

use tidemill_artifacts::{Digest, Error, Manifest};
use tidemill_chassis::Fault;
use tidemill_dataset::{Prepared, RowType, Split};
use tidemill_models::Config;
use tidemill_platform::{Platform, fault_of_artifacts};
use tidemill_proto::names;
use tidemill_proto::registry::v1::GetModelRequest;
use tidemill_proto::training::v1::TrainingJob;
use tidemill_proto::r#type::v1::ImportSpec;
use tidemill_proto::r#type::v1::training_spec::Method;
use tonic::Code;

use crate::learning::method_of;
use spec::Violations;

/// Checks a job that is asked for.
///
/// # Errors
/// All wrong fields; or what is needed to check them is away.
pub(crate) async fn check(platform: &Platform, id: &str, job: &TrainingJob) -> Result<(), Fault> {
    let mut wrong = Violations::default();
    if !id.is_empty()
        && let Err(error) = names::check_id(id)
    {
        wrong.add("training_job_id", error.to_string());
    }
    if let Some(import) = &job.import {
        check_import(job, import, &mut wrong);
        check_model(platform, &job.model, &mut wrong).await?;
        return wrong.into_result();
    }
    match &job.spec {
        None => wrong.add("spec", "is required, unless `import` is given"),
        Some(spec) => spec::check(spec, !job.base_model_digest.is_empty(), &mut wrong),
    }
    check_model(platform, &job.model, &mut wrong).await?;
    let dataset = manifest(platform, "dataset_digest", &job.dataset_digest, "prepared-dataset", &mut wrong).await?;
    if let Some(dataset) = &dataset {
        check_dataset(job, "dataset_digest", dataset, &mut wrong);
    }
    for (index, more) in job.mixed_datasets.iter().enumerate() {
        let field = format!("mixed_datasets[{index}]");
        let digest = format!("{field}.dataset_digest");
        if let Some(more) = manifest(platform, &digest, &more.dataset_digest, "prepared-dataset", &mut wrong).await? {
            check_dataset(job, &digest, &more, &mut wrong);
        }
        if !(more.weight.is_finite() && more.weight > 0.0) {
            wrong.add(format!("{field}.weight"), format!("{} is not a positive number", more.weight));
        }
    }
    if let Some(distillation) = job.spec.as_ref().and_then(|spec| spec.distillation.as_ref()) {
        const FIELD: &str = "spec.distillation.teacher_model_digest";
        manifest(platform, FIELD, &distillation.teacher_model_digest, "model", &mut wrong).await?;
    }
    check_tokenizer(platform, job, &mut wrong).await?;
    if !job.base_model_digest.is_empty()
        && let Some(base) = manifest(platform, "base_model_digest", &job.base_model_digest, "model", &mut wrong).await?
    {
        check_base(platform, job, dataset.as_ref(), &base, &mut wrong).await?;
    }
    wrong.into_result()
}

fn check_import(job: &TrainingJob, import: &ImportSpec, wrong: &mut Violations) {
    if let Err(text) = crate::import::path_of(&import.uri) {
        wrong.add("import.uri", text);
    }
    let is_digest = import.sha256.len() == 64 && import.sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !import.sha256.is_empty() && !is_digest {
        wrong.add("import.sha256", format!("{:?} is not 64 hex digits", import.sha256));
    }
    let others = [
        ("spec", job.spec.is_some()),
        ("dataset_digest", !job.dataset_digest.is_empty()),
        ("base_model_digest", !job.base_model_digest.is_empty()),
        ("mixed_datasets", !job.mixed_datasets.is_empty()),
        ("tokenizer_digest", !job.tokenizer_digest.is_empty()),
    ];
    for (field, _) in others.into_iter().filter(|(_, given)| *given) {
        wrong.add(field, "must be absent where `import` is given: nothing is trained");
    }
}

async fn check_model(platform: &Platform, model: &str, wrong: &mut Violations) -> Result<(), Fault> {
    if model.is_empty() {
        wrong.add("model", "is required: the model that gets the new version, models/{model}");
        return Ok(());
    }
    match names::ids(model, "models/-") {
        Err(error) => wrong.add("model", error.to_string()),
        Ok(ids) if ids == ["-"] => wrong.add("model", "must name one model"),
        Ok(_) => match platform.clients.registry().get_model(GetModelRequest { name: model.to_owned() }).await {
            Ok(_) => {}
            Err(status) if status.code() == Code::NotFound => {
                wrong.add("model", format!("{model} does not exist; create it first"));
            }
            Err(status) => return Err(Fault::from(status)),
        },
    }
    Ok(())
}

/// The manifest that a field names, if it is what it should be.
async fn manifest(
    platform: &Platform,
    field: &str,
    text: &str,
    kind: &str,
    wrong: &mut Violations,
) -> Result<Option<Manifest>, Fault> {
    if text.is_empty() {
        wrong.add(field, format!("is required: the digest of a {kind}"));
        return Ok(None);
    }
    let digest: Digest = match text.parse() {
        Ok(digest) => digest,
        Err(_) => {
            wrong.add(field, format!("{text:?} is not of the form sha256:<64 lowercase hex digits>"));
            return Ok(None);
        }
    };
    match platform.artifacts.manifest(&digest).await {
        Ok(manifest) if manifest.kind == kind => return Ok(Some(manifest)),
        Ok(manifest) => wrong.add(field, format!("{digest} is a {}, not a {kind}", manifest.kind)),
        Err(error @ (Error::NotFound(_) | Error::Mismatch { .. } | Error::Corrupt { .. })) => {
            wrong.add(field, error.to_string());
        }
        Err(error) => return Err(fault_of_artifacts(error)),
    }
    Ok(None)
}

/// Whether the job's method can learn what the dataset holds, and whether there is enough of it.
fn check_dataset(job: &TrainingJob, field: &str, dataset: &Manifest, wrong: &mut Violations) {
    let method = job.spec.as_ref().and_then(|spec| spec.method.as_ref());
    match Prepared::from_map(&dataset.annotations) {
        Err(error) => wrong.add(field, format!("its manifest cannot be used: {error}")),
        Ok(Prepared::Tokens(annotations)) => {
            if !matches!(method, None | Some(Method::MaskedLanguageModeling(_))) {
                wrong.add("spec.method", "needs a dataset of rows, and this one holds packed tokens: leave it out");
            }
            let length = job.spec.as_ref().map_or(0, |spec| u64::try_from(spec.sequence_length).unwrap_or(0));
            let tokens = annotations.splits.get(&Split::Train).map_or(0, |size| size.token_count);
            if length > 0 && tokens <= length {
                let text = format!(
                    "{length} needs more tokens than the {tokens} of the training split of {field}; shorten it or add text"
                );
                wrong.add("spec.sequence_length", text);
            }
        }
        Ok(Prepared::Rows(annotations)) => {
            if let Err(text) = check_method(method, annotations.row_type) {
                wrong.add("spec.method", text);
            }
            if let Err(text) = check_origin(job) {
                wrong.add("base_model_digest", text);
            }
        }
    }
}

/// Whether a job that learns rows says whose tokens they become; if not, why.
pub(crate) fn check_origin(job: &TrainingJob) -> Result<(), String> {
    let method = job.spec.as_ref().and_then(|spec| spec.method.as_ref());
    let may_be_new = matches!(method, Some(Method::SequenceToSequence(_)));
    let text = match may_be_new {
        _ if !job.base_model_digest.is_empty() => return Ok(()),
        true if !job.tokenizer_digest.is_empty() => return Ok(()),
        true => "is required, or tokenizer_digest: rows are learned in the tokens of a model, or of a tokenizer",
        false => "is required: rows are learned in the tokens and the chat template of a model",
    };
    Err(text.to_owned())
}

/// Only a new encoder-decoder has a tokenizer that neither its dataset nor its base brings.
async fn check_tokenizer(platform: &Platform, job: &TrainingJob, wrong: &mut Violations) -> Result<(), Fault> {
    const FIELD: &str = "tokenizer_digest";
    if job.tokenizer_digest.is_empty() {
        return Ok(());
    }
    let method = job.spec.as_ref().and_then(|spec| spec.method.as_ref());
    if !job.base_model_digest.is_empty() || !matches!(method, Some(Method::SequenceToSequence(_))) {
        let text = "is for sequence_to_sequence from random weights; other jobs take the tokenizer of their base or dataset: leave it out";
        wrong.add(FIELD, text);
        return Ok(());
    }
    let Ok(digest) = job.tokenizer_digest.parse() else {
        wrong.add(FIELD, format!("{:?} is not of the form sha256:<64 lowercase hex digits>", job.tokenizer_digest));
        return Ok(());
    };
    match platform.artifacts.manifest(&digest).await {
        Ok(manifest) => {
            let held = ["tokenizer.json", "tokenizer/tokenizer.json"].iter().any(|path| manifest.entry(path).is_some());
            if !held {
                wrong.add(FIELD, format!("{digest} holds no tokenizer.json: name a tokenizer or a model"));
            }
        }
        Err(error @ (Error::NotFound(_) | Error::Mismatch { .. } | Error::Corrupt { .. })) => {
            wrong.add(FIELD, error.to_string());
        }
        Err(error) => return Err(fault_of_artifacts(error)),
    }
    Ok(())
}

/// Whether a method learns rows of a type; if not, why.
pub(crate) fn check_method(method: Option<&Method>, row_type: RowType) -> Result<(), String> {
    let (fits, wanted) = match method {
        None => {
            let text = "is required for a dataset of rows: supervised_fine_tuning, direct_preference_optimization, \
                        kahneman_tversky_optimization, group_relative_policy_optimization or sequence_to_sequence";
            return Err(text.to_owned());
        }
        Some(Method::SupervisedFineTuning(_)) => {
            let fits = matches!(row_type, RowType::Conversation | RowType::PromptCompletion);
            (fits, "conversations, or prompts with completions")
        }
        Some(Method::DirectPreferenceOptimization(_)) => {
            (row_type == RowType::Preference, "pairs of a chosen and a rejected answer")
        }
        Some(Method::KahnemanTverskyOptimization(_)) => (row_type == RowType::Judged, "judged answers"),
        Some(Method::GroupRelativePolicyOptimization(_)) => {
            let fits = matches!(row_type, RowType::Prompt | RowType::PromptCompletion | RowType::Conversation);
            (fits, "prompts, prompts with completions, or conversations")
        }
        Some(Method::SequenceToSequence(_)) => (row_type == RowType::PromptCompletion, "prompts with completions"),
        Some(Method::MaskedLanguageModeling(_)) => (false, "packed tokens"),
    };
    if fits { Ok(()) } else { Err(format!("learns {wanted}, and the dataset's rows are of type {row_type:?}")) }
}

/// A model goes on with its own tokenizer, within its own context.
async fn check_base(
    platform: &Platform,
    job: &TrainingJob,
    dataset: Option<&Manifest>,
    base: &Manifest,
    wrong: &mut Violations,
) -> Result<(), Fault> {
    let own = base.entry("tokenizer.json").map(|entry| entry.digest);
    let datasets = dataset.and_then(|dataset| dataset.entry("tokenizer/tokenizer.json")).map(|entry| entry.digest);
    if datasets.is_some() && own != datasets {
        let text = "the model has another tokenizer than the dataset; prepare the dataset with the model's tokenizer";
        wrong.add("base_model_digest", text);
    }
    let Ok(digest) = job.base_model_digest.parse() else { return Ok(()) };
    let bytes = match platform.artifacts.get_entry(&digest, "config.json").await {
        Ok(bytes) => bytes,
        Err(error @ (Error::NotFound(_) | Error::Mismatch { .. } | Error::Corrupt { .. })) => {
            wrong.add("base_model_digest", error.to_string());
            return Ok(());
        }
        Err(error) => return Err(fault_of_artifacts(error)),
    };
    match (Config::from_json(&String::from_utf8_lossy(&bytes)), &job.spec) {
        (Ok(config), Some(spec)) => {
            let context = config.context_length();
            if i64::from(spec.sequence_length) > context {
                let text = format!("{} is more than the base model's context of {context}", spec.sequence_length);
                wrong.add("spec.sequence_length", text);
            }
            if let Err(text) = method_of(spec.method.as_ref()).check_model(&config) {
                wrong.add("spec.method", text);
            }
        }
        (Err(problems), _) => wrong.add("base_model_digest", format!("its config.json: {}", problems.join("; "))),
        (Ok(_), None) => {}
    }
    Ok(())
}
