//! What a run reads: token streams or rows, tokenizer and base model, verified as they come.

mod fresh;
mod rows;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use tidemill_artifacts::{Artifacts, Digest, Manifest};
use tidemill_dataset::{Prepared, PreparedAnnotations, Split, Tokens};
use tidemill_models::Config;
use tidemill_proto::training::v1::TrainingJob;
use tidemill_text::{Masking, Tokenizer};

use crate::error::{Error, Result};
use crate::learning::{self, Data, Method, Row, Rows, Spec, Train, Validation, method_of};

/// What a run reads.
pub(crate) struct Inputs {
    /// The prepared dataset.
    pub(crate) dataset: Digest,
    /// Those that are mixed in.
    pub(crate) mixed: Vec<Digest>,
    /// The tokenizer's own artifact, as the dataset names it.
    pub(crate) tokenizer_digest: String,
    /// The tokenizer.
    pub(crate) tokenizer: Tokenizer,
    /// Tokens that end an answer, where rows are learned.
    pub(crate) ends: Vec<u32>,
    /// What to learn from, and what to measure on meanwhile.
    pub(crate) material: Material,
    /// The artifact that the tokenizer of a new model's rows is from.
    pub(crate) tokenizer_source: Option<Digest>,
    /// The model to start from, and its folder.
    pub(crate) base: Option<(Digest, PathBuf)>,
    /// The model to learn from, and its folder.
    pub(crate) teacher: Option<(Digest, PathBuf)>,
    /// The shape of the model.
    pub(crate) config: Config,
}

impl Inputs {
    /// All artifacts that the weights depend on.
    pub(crate) fn parents(&self) -> Vec<Digest> {
        let models = [&self.base, &self.teacher].into_iter().flatten().map(|(digest, _)| *digest);
        let tokenizer = self.tokenizer_source.into_iter();
        std::iter::once(self.dataset).chain(self.mixed.iter().copied()).chain(models).chain(tokenizer).collect()
    }
}

/// What is learned from: of each dataset that is mixed its part for training, with its weight.
pub(crate) enum Material {
    /// Streams of tokens, and how an encoder's are hidden.
    Tokens { train: Vec<(Tokens, f64)>, validation: Tokens, masking: Option<Masking> },
    /// Rows, in the model's ids.
    Rows { train: Vec<(Vec<Row>, f64)>, validation: Vec<Row> },
}

impl Material {
    /// The data of a run, in the order that its spec says.
    pub(crate) fn data(&self, spec: &Spec) -> learning::Result<Data> {
        let rows = |parts: Vec<(Vec<Row>, f64)>| Rows::mixed(parts, spec.order, spec.seed, spec.sequence_length);
        match self {
            Self::Tokens { train, validation, masking } => {
                let data = Data::mixed(train.clone(), Some(validation.clone()), spec)?;
                Ok(match masking {
                    Some(masking) => data.masked(masking.clone(), spec.seed),
                    None => data,
                })
            }
            Self::Rows { train, validation } => Ok(Data {
                train: Train::Rows(rows(train.clone())?),
                validation: match validation.is_empty() {
                    true => Validation::None,
                    false => Validation::Rows(rows(vec![(validation.clone(), 1.0)])?),
                },
            }),
        }
    }

    /// Takes in what is learned from another dataset; gives it back if that is of another kind.
    fn mix(&mut self, other: Self, weight: f64) -> bool {
        match (self, other) {
            (Self::Tokens { train, .. }, Self::Tokens { train: more, .. }) => {
                train.extend(more.into_iter().map(|(tokens, _)| (tokens, weight)));
            }
            (Self::Rows { train, .. }, Self::Rows { train: more, .. }) => {
                train.extend(more.into_iter().map(|(rows, _)| (rows, weight)));
            }
            _ => return false,
        }
        true
    }
}

/// Reads all that a job names; a base model is copied below `work_dir`.
pub(crate) async fn read(artifacts: &Artifacts, job: &TrainingJob, work_dir: &Path) -> Result<Inputs> {
    let base = base(artifacts, job, work_dir).await?;
    let teacher = teacher(artifacts, job, work_dir).await?;
    let mut inputs = of_dataset(artifacts, job, job.dataset_digest.parse()?, base.clone()).await?;
    for more in &job.mixed_datasets {
        let other = of_dataset(artifacts, job, more.dataset_digest.parse()?, base.clone()).await?;
        let same_tokens = other.tokenizer.json() == inputs.tokenizer.json();
        if !same_tokens || !inputs.material.mix(other.material, more.weight) {
            let reason = format!(
                "{} was prepared as something else, or with another tokenizer, than {}: datasets that are mixed must be alike",
                more.dataset_digest, job.dataset_digest
            );
            return Err(Error::Unfit { field: "mixed_datasets", reason });
        }
        inputs.mixed.push(other.dataset);
    }
    Ok(Inputs { teacher, ..inputs })
}

async fn of_dataset(artifacts: &Artifacts, job: &TrainingJob, dataset: Digest, base: Option<Base>) -> Result<Inputs> {
    let manifest = &artifacts.manifest(&dataset).await?;
    if manifest.kind != "prepared-dataset" {
        let reason = format!("{dataset} is a {}, not a prepared-dataset", manifest.kind);
        return Err(Error::Unfit { field: "dataset_digest", reason });
    }
    let failed = |source| Error::Dataset { digest: dataset.to_string(), source };
    match Prepared::from_map(&manifest.annotations).map_err(failed)? {
        Prepared::Tokens(annotations) => of_tokens(artifacts, job, dataset, manifest, &annotations, base).await,
        Prepared::Rows(annotations) => {
            let files = match &base {
                Some(base) => rows::files(&base.folder)?,
                None => fresh::files(artifacts, job).await?,
            };
            let config = match &base {
                Some(base) => tidemill_models::read_config(&base.folder).map_err(learning::Error::from)?,
                None => fresh::config(job, &files.tokenizer)?,
            };
            let known = config.vocabulary_size();
            if (files.tokenizer.vocabulary_size() as i64) > known {
                let reason = format!(
                    "its tokenizer has {} ids, and the model knows {known}: the two do not belong together",
                    files.tokenizer.vocabulary_size()
                );
                return Err(Error::Unfit { field: "base_model_digest", reason });
            }
            let read = rows::read(artifacts, job, &dataset, manifest, annotations.row_type, &files, &config).await?;
            let [train, validation] = read;
            let material = Material::Rows { train: vec![(train, 1.0)], validation };
            let (tokenizer, ends, mixed) = (files.tokenizer, files.ends, Vec::new());
            let tokenizer_source: Option<Digest> =
                if base.is_none() { Some(job.tokenizer_digest.parse()?) } else { None };
            let tokenizer_digest = match &base {
                Some(base) => base.tokenizer_digest.clone(),
                None => job.tokenizer_digest.clone(),
            };
            let base = base.map(|base| (base.digest, base.folder));
            Ok(Inputs {
                dataset,
                mixed,
                tokenizer_digest,
                tokenizer,
                ends,
                material,
                tokenizer_source,
                base,
                teacher: None,
                config,
            })
        }
    }
}

async fn of_tokens(
    artifacts: &Artifacts,
    job: &TrainingJob,
    dataset: Digest,
    manifest: &Manifest,
    annotations: &PreparedAnnotations,
    base: Option<Base>,
) -> Result<Inputs> {
    let failed = |source| Error::Dataset { digest: dataset.to_string(), source };
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
        let shards = shards(artifacts, &dataset, manifest, &format!("{split}/tokens-")).await?;
        Tokens::read(shards, annotations.token_width, vocabulary_size).map_err(failed)
    };
    let material = Material::Tokens {
        train: vec![(tokens(Split::Train).await?, 1.0)],
        validation: tokens(Split::Validation).await?,
        masking: masking(job, &tokenizer, base.as_ref())?,
    };
    let config = match &base {
        Some(Base { digest, folder, .. }) => {
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
                reason: "is required: llama, gpt2, bert or t5".to_owned(),
            })?;
            learning::config_of(architecture, vocabulary_size as i64, tokenizer.end_of_text().map(i64::from))?
        }
    };
    let tokenizer_digest = annotations.tokenizer_digest.clone();
    let base = base.map(|base| (base.digest, base.folder));
    let (mixed, ends, tokenizer_source) = (Vec::new(), Vec::new(), None);
    Ok(Inputs {
        dataset,
        mixed,
        tokenizer_digest,
        tokenizer,
        ends,
        material,
        tokenizer_source,
        base,
        teacher: None,
        config,
    })
}

/// How tokens are hidden, for the method that guesses them.
fn masking(job: &TrainingJob, tokenizer: &Tokenizer, base: Option<&Base>) -> Result<Option<Masking>> {
    let asked = job.spec.as_ref().and_then(|spec| spec.method.as_ref());
    let Method::MaskedLanguage { mask_probability } = method_of(asked) else { return Ok(None) };
    let names = match base {
        Some(base) => rows::file(&base.folder, "tokenizer_config.json")?,
        None => None,
    };
    let unfit = |error: tidemill_text::Error| Error::Unfit { field: "dataset_digest", reason: error.to_string() };
    Masking::of(tokenizer, names.as_deref(), mask_probability).map(Some).map_err(unfit)
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

/// A model to start from.
#[derive(Clone)]
struct Base {
    digest: Digest,
    folder: PathBuf,
    /// Its tokenizer's own artifact, where it names one.
    tokenizer_digest: String,
}

async fn teacher(artifacts: &Artifacts, job: &TrainingJob, work_dir: &Path) -> Result<Option<(Digest, PathBuf)>> {
    let Some(asked) = job.spec.as_ref().and_then(|spec| spec.distillation.as_ref()) else { return Ok(None) };
    let (digest, folder) = (asked.teacher_model_digest.parse()?, work_dir.join("teacher"));
    tidemill_platform::models::fetch(artifacts, &digest, &folder).await?;
    Ok(Some((digest, folder)))
}

async fn base(artifacts: &Artifacts, job: &TrainingJob, work_dir: &Path) -> Result<Option<Base>> {
    if job.base_model_digest.is_empty() {
        return Ok(None);
    }
    let digest: Digest = job.base_model_digest.parse()?;
    let folder = work_dir.join("base");
    let manifest = tidemill_platform::models::fetch(artifacts, &digest, &folder).await?;
    let tokenizer_digest = manifest.annotations.get("tokenizer_digest").cloned().unwrap_or_default();
    Ok(Some(Base { digest, folder, tokenizer_digest }))
}
