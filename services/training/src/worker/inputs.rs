//! What a run reads: token streams, tokenizer and base model, verified as they come.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use tidemill_artifacts::{Artifacts, Digest, Manifest};
use tidemill_dataset::{PreparedAnnotations, Split, Tokens};
use tidemill_models::Config;
use tidemill_proto::training::v1::TrainingJob;
use tidemill_text::Tokenizer;

use crate::error::{Error, Result};
use crate::learning;

/// What a run reads.
pub(crate) struct Inputs {
    /// The prepared dataset.
    pub(crate) dataset: Digest,
    /// The tokenizer's own artifact, as the dataset names it.
    pub(crate) tokenizer_digest: String,
    /// The tokenizer.
    pub(crate) tokenizer: Tokenizer,
    /// Tokens to learn from.
    pub(crate) train: Tokens,
    /// Tokens to measure on meanwhile.
    pub(crate) validation: Tokens,
    /// The model to start from, and its folder.
    pub(crate) base: Option<(Digest, PathBuf)>,
    /// The shape of the model.
    pub(crate) config: Config,
}

/// Reads all that a job names; a base model is copied below `work_dir`.
pub(crate) async fn read(artifacts: &Artifacts, job: &TrainingJob, work_dir: &Path) -> Result<Inputs> {
    let dataset: Digest = job.dataset_digest.parse()?;
    let manifest = artifacts.manifest(&dataset).await?;
    let failed = |source| Error::Dataset { digest: dataset.to_string(), source };
    if manifest.kind != "prepared-dataset" {
        let reason = format!("{dataset} is a {}, not a prepared-dataset", manifest.kind);
        return Err(Error::Unfit { field: "dataset_digest", reason });
    }
    let annotations = PreparedAnnotations::from_map(&manifest.annotations).map_err(failed)?;
    let json = artifacts.get_entry(&dataset, "tokenizer/tokenizer.json").await?;
    let tokenizer = Tokenizer::from_bytes(&json).map_err(|error| Error::Unfit {
        field: "dataset_digest",
        reason: format!("tokenizer/tokenizer.json of {dataset}: {error}"),
    })?;
    let vocabulary_size = annotations.vocabulary_size as usize;
    if vocabulary_size != tokenizer.vocabulary_size() {
        let reason = format!(
            "{dataset} states a vocabulary of {vocabulary_size}, and its tokenizer has {}; prepare it again",
            tokenizer.vocabulary_size()
        );
        return Err(Error::Unfit { field: "dataset_digest", reason });
    }
    let tokens = async |split: Split| {
        let shards = shards(artifacts, &dataset, &manifest, &format!("{split}/tokens-")).await?;
        Tokens::read(shards, annotations.token_width, vocabulary_size).map_err(failed)
    };
    let (train, validation) = (tokens(Split::Train).await?, tokens(Split::Validation).await?);
    let base = base(artifacts, job, work_dir).await?;
    let config = match &base {
        Some((digest, folder)) => {
            let config = tidemill_models::read_config(folder).map_err(learning::Error::from)?;
            if config.vocabulary_size() < vocabulary_size as i64 {
                let reason = format!(
                    "{digest} knows {} tokens, fewer than the dataset's {vocabulary_size}; prepare the dataset with its tokenizer",
                    config.vocabulary_size()
                );
                return Err(Error::Unfit { field: "base_model_digest", reason });
            }
            config
        }
        None => {
            let architecture = job.spec.as_ref().and_then(|spec| spec.architecture.as_ref());
            let architecture = architecture.ok_or_else(|| Error::Unfit {
                field: "spec.architecture",
                reason: "is required: llama or gpt2".to_owned(),
            })?;
            learning::config_of(architecture, vocabulary_size as i64, tokenizer.end_of_text().map(i64::from))?
        }
    };
    let tokenizer_digest = annotations.tokenizer_digest.clone();
    Ok(Inputs { dataset, tokenizer_digest, tokenizer, train, validation, base, config })
}

async fn shards(artifacts: &Artifacts, digest: &Digest, manifest: &Manifest, prefix: &str) -> Result<Vec<Bytes>> {
    let mut paths: Vec<&str> = manifest.entries.iter().map(|entry| entry.path.as_str()).collect();
    paths.retain(|path| path.starts_with(prefix));
    paths.sort_unstable();
    let mut shards = Vec::new();
    for path in paths {
        shards.push(artifacts.get_entry(digest, path).await?);
    }
    Ok(shards)
}

async fn base(artifacts: &Artifacts, job: &TrainingJob, work_dir: &Path) -> Result<Option<(Digest, PathBuf)>> {
    if job.base_model_digest.is_empty() {
        return Ok(None);
    }
    let digest: Digest = job.base_model_digest.parse()?;
    let folder = work_dir.join("base");
    artifacts.fetch_directory(&digest, &folder).await?;
    Ok(Some((digest, folder)))
}
