//! A new encoder-decoder, which learns rows: its tokenizer is an artifact of its own, and its shape is the spec's.

use tidemill_artifacts::{Artifacts, Digest};
use tidemill_models::Config;
use tidemill_proto::training::v1::TrainingJob;
use tidemill_text::{ChatFormat, Tokenizer};

use super::rows::Files;
use crate::error::{Error, Result};
use crate::learning::config_of;
use crate::validate;

/// The job's tokenizer.
pub(super) async fn files(artifacts: &Artifacts, job: &TrainingJob) -> Result<Files> {
    if let Err(reason) = validate::check_origin(job) {
        return Err(Error::Unfit { field: "base_model_digest", reason });
    }
    let digest: Digest = job.tokenizer_digest.parse()?;
    let manifest = artifacts.manifest(&digest).await?;
    // Models hold it at the top, prepared datasets in a folder.
    let folder =
        ["", "tokenizer/"].into_iter().find(|folder| manifest.entry(&format!("{folder}tokenizer.json")).is_some());
    let Some(folder) = folder else {
        let reason =
            format!("{digest} holds no tokenizer.json: name a tokenizer, a model or a dataset of packed tokens");
        return Err(Error::Unfit { field: "tokenizer_digest", reason });
    };
    let json = artifacts.get_entry(&digest, &format!("{folder}tokenizer.json")).await?;
    let unfit = |error: tidemill_text::Error| Error::Unfit { field: "tokenizer_digest", reason: error.to_string() };
    let tokenizer = Tokenizer::from_bytes(&json).map_err(unfit)?;
    Ok(Files { tokenizer, chat: ChatFormat::default(), ends: Vec::new() })
}

/// The shape that the spec asks for, with the tokenizer's vocabulary.
pub(super) fn config(job: &TrainingJob, tokenizer: &Tokenizer) -> Result<Config> {
    let architecture = job.spec.as_ref().and_then(|spec| spec.architecture.clone()).unwrap_or_default();
    let end = tokenizer.end_of_text().map(i64::from);
    let mut config = config_of(&architecture, tokenizer.vocabulary_size() as i64, end)?;
    if let Config::T5(t5) = &mut config {
        // As transformers has it, what fills up a batch also begins a text.
        t5.decoder_start_token_id = tokenizer.padding().or(tokenizer.end_of_text()).map_or(0, i64::from);
    }
    Ok(config)
}
