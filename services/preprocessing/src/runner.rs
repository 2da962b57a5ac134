//! Runs a preparation: finds an earlier equal result, or reads the inputs, prepares them, and stores the artifact.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use tidemill_artifacts::{Artifacts, Digest};
use tidemill_chassis::Fault;
use tidemill_dataset::{
    Prepared as Annotations, PreparedAnnotations, RawAnnotations, Record, RowType, RowsAnnotations, TokenWidth,
    read_shard,
};
use tidemill_platform::{Clients, Context, Platform, Runner, fault_of_artifacts};
use tidemill_proto::preprocessing::v1::PreprocessingJob;
use tidemill_proto::preprocessing::v1::preprocessing_job::{Input, SplitCounts};
use tidemill_proto::registry::v1::lineage_node::Type;
use tidemill_proto::registry::v1::{LineageEdge, LineageNode, RecordLineageRequest};
use tidemill_proto::r#type::v1::{Recipe, tokenizer_spec};
use tidemill_text::Tokenizer;

use crate::error::Error;
use crate::prepare::{self, Document, Prepared};
use crate::watch::Watch;
use crate::{cache, contents};

/// `source_uri` of datasets made of feedback, as ingestion writes it.
const FEEDBACK: &str = "feedback";

/// Prepares datasets.
pub(crate) struct RecipeRunner {
    artifacts: Artifacts,
    clients: Clients,
    work_dir: PathBuf,
}

impl RecipeRunner {
    pub(crate) fn new(platform: &Platform) -> anyhow::Result<Self> {
        let work_dir = platform.work_dir("preprocessing")?;
        // Whatever is there was left behind by a process that was killed: this one holds the data directory alone.
        for entry in std::fs::read_dir(&work_dir)?.flatten() {
            if let Err(error) = std::fs::remove_dir_all(entry.path()) {
                tracing::warn!(folder = %entry.path().display(), %error, "left-over work cannot be removed");
            }
        }
        Ok(Self { artifacts: platform.artifacts.clone(), clients: platform.clients.clone(), work_dir })
    }

    /// The digest of an earlier equal job's result, if it is still there.
    async fn cached(&self, reference: &str) -> Result<Option<Digest>, Fault> {
        let Some(digest) = self.artifacts.resolve(reference).await.map_err(fault_of_artifacts)? else {
            return Ok(None);
        };
        match self.artifacts.manifest(&digest).await {
            Ok(_) => Ok(Some(digest)),
            Err(tidemill_artifacts::Error::NotFound(_)) => Ok(None),
            Err(error) => Err(fault_of_artifacts(error)),
        }
    }

    async fn compute(&self, job: &PreprocessingJob, recipe: Recipe, watch: &Watch) -> Result<Digest, Fault> {
        let (row_type, documents) = self.read(&job.inputs, watch).await?;
        contents::fits(&recipe, row_type)?;
        let tokenizer = self.tokenizer(&recipe).await?;
        let work = tempfile::Builder::new().prefix("job-").tempdir_in(&self.work_dir);
        let work = work.map_err(|error| Fault::from(Error::file(&self.work_dir, error)))?;
        let folder = work.path().join("prepared");
        let annotated = cache::json(&recipe);
        let prepared = {
            let (folder, watch) = (folder.clone(), watch.clone());
            blocking(move || prepare::prepare(documents, &recipe, tokenizer, &folder, &watch)).await?
        };
        watch.phase("storing", "files", 0)?;
        let mut parents = digests(&job.inputs)?;
        let annotations = match row_type {
            Some(row_type) => rows_annotations(prepared, row_type, annotated).to_map(),
            None => {
                let tokenizer_digest = self.put_tokenizer(&folder, work.path()).await?;
                parents.push(tokenizer_digest);
                annotations(&prepared, tokenizer_digest, annotated)?.to_map()
            }
        };
        let stored = self.artifacts.put_directory(&folder, "prepared-dataset", parents, annotations).await;
        stored.map_err(fault_of_artifacts)
    }

    /// Stores the tokenizer of a prepared folder as an artifact of its own, which for that moment lies beside.
    async fn put_tokenizer(&self, folder: &Path, work: &Path) -> Result<Digest, Fault> {
        let beside = work.join("tokenizer");
        std::fs::rename(folder.join("tokenizer"), &beside).map_err(|error| Error::file(&beside, error))?;
        let stored = self.artifacts.put_directory(&beside, "tokenizer", Vec::new(), [].into()).await;
        let digest = stored.map_err(fault_of_artifacts)?;
        std::fs::rename(&beside, folder.join("tokenizer")).map_err(|error| Error::file(&beside, error))?;
        Ok(digest)
    }

    /// All records of the inputs, and the type of their rows.
    async fn read(&self, inputs: &[Input], watch: &Watch) -> Result<(Option<RowType>, Vec<Document>), Fault> {
        watch.phase("reading", "inputs", inputs.len())?;
        let (mut read, mut types) = (Vec::new(), Vec::new());
        for (input, digest) in inputs.iter().zip(digests(inputs)?) {
            let manifest = self.artifacts.manifest(&digest).await.map_err(fault_of_artifacts)?;
            if manifest.kind != "dataset" {
                return Err(Error::NotADataset { digest: input.digest.clone(), kind: manifest.kind }.into());
            }
            let annotations = RawAnnotations::from_map(&manifest.annotations).map_err(Error::from)?;
            types.push(annotations.row_type);
            let mut paths: Vec<_> = manifest.entries.iter().filter(|entry| entry.path.starts_with("data/")).collect();
            paths.sort_by(|a, b| a.path.cmp(&b.path));
            let mut records = Vec::new();
            for entry in paths {
                let bytes = self.artifacts.get_entry(&digest, &entry.path).await.map_err(fault_of_artifacts)?;
                let (path, watch) = (entry.path.clone(), watch.clone());
                let shard = blocking(move || {
                    let mut rows = Vec::new();
                    for row in read_shard::<Record>(bytes, &path)? {
                        watch.advance(0)?;
                        rows.push(row?);
                    }
                    Ok(rows)
                });
                records.extend(shard.await?);
            }
            read.push((records, u32::try_from(input.repeat).unwrap_or(0).max(1), annotations.source_uri == FEEDBACK));
            watch.advance(1)?;
        }
        let row_type = contents::one_type(&types)?;
        let documents = blocking(move || prepare::documents(read, row_type.is_some())).await?;
        Ok((row_type, documents))
    }

    /// The tokenizer that a recipe names, if it names one.
    async fn tokenizer(&self, recipe: &Recipe) -> Result<Option<Tokenizer>, Fault> {
        let spec = recipe.tokenizer.as_ref().and_then(|spec| spec.tokenizer.as_ref());
        let Some(tokenizer_spec::Tokenizer::Digest(digest)) = spec else { return Ok(None) };
        let digest = digest.parse().map_err(fault_of_artifacts)?;
        let manifest = self.artifacts.manifest(&digest).await.map_err(fault_of_artifacts)?;
        // Models hold it at the top, prepared datasets in a folder.
        let places = ["tokenizer.json", "tokenizer/tokenizer.json"];
        let path = places.into_iter().find(|path| manifest.entry(path).is_some()).unwrap_or(places[0]);
        let json = self.artifacts.get_entry(&digest, path).await.map_err(fault_of_artifacts)?;
        blocking(move || Ok(Some(Tokenizer::from_bytes(&json)?))).await
    }

    async fn record_lineage(&self, job: &PreprocessingJob, digest: &Digest, tokenizer: &str) -> Result<(), Fault> {
        let manifest = self.artifacts.manifest(digest).await.map_err(fault_of_artifacts)?;
        let id = digest.to_string();
        let node =
            |id: &str, r#type: Type| LineageNode { id: id.to_owned(), r#type: r#type.into(), ..Default::default() };
        let edge = |parent: &str, child: &str| LineageEdge { parent: parent.to_owned(), child: child.to_owned() };
        let mut nodes: Vec<_> = job.inputs.iter().map(|input| node(&input.digest, Type::Dataset)).collect();
        let mut edges: Vec<_> = job.inputs.iter().map(|input| edge(&input.digest, &id)).collect();
        nodes.push(LineageNode {
            resource: job.name.clone(),
            record_index_digest: manifest
                .entry("records.index")
                .map_or_else(String::new, |entry| entry.digest.to_string()),
            ..node(&id, Type::PreparedDataset)
        });
        let spec = job.recipe.as_ref().and_then(|recipe| recipe.tokenizer.as_ref());
        if let Some(spec) = spec {
            nodes.push(node(tokenizer, Type::Tokenizer));
            edges.push(match spec.tokenizer {
                // One that existed before is where the dataset came from; one that was trained came from the dataset.
                Some(tokenizer_spec::Tokenizer::Digest(_)) => edge(tokenizer, &id),
                _ => edge(&id, tokenizer),
            });
        }
        self.clients.registry().record_lineage(RecordLineageRequest { nodes, edges }).await?;
        Ok(())
    }
}

#[async_trait]
impl Runner<PreprocessingJob> for RecipeRunner {
    async fn run(
        &self,
        mut job: PreprocessingJob,
        context: &Context<PreprocessingJob>,
    ) -> Result<PreprocessingJob, Fault> {
        // Dropped with this future, so that blocking work ends too when the task is aborted.
        let stop = context.cancelled().child_token();
        let _guard = stop.clone().drop_guard();
        let telling = context.clone();
        let watch = Watch::new(stop, move |progress| telling.progress(progress));
        let recipe = job.recipe.clone().ok_or_else(|| Fault::invalid("preprocessing_job.recipe", "it is required"))?;
        let reference = cache::reference(&job);
        let digest = match self.cached(&reference).await? {
            Some(digest) => digest,
            None => {
                let digest = self.compute(&job, recipe, &watch).await?;
                context.check()?;
                self.claim(&reference, &digest).await?;
                digest
            }
        };
        let manifest = self.artifacts.manifest(&digest).await.map_err(fault_of_artifacts)?;
        let annotations = Annotations::from_map(&manifest.annotations).map_err(Error::from)?;
        fill(&mut job, &digest, annotations);
        self.record_lineage(&job, &digest, &job.tokenizer_digest).await?;
        Ok(job)
    }
}

impl RecipeRunner {
    /// Makes the result findable for equal jobs. A reference to a result that is gone is replaced.
    async fn claim(&self, reference: &str, digest: &Digest) -> Result<(), Fault> {
        match self.artifacts.claim(reference, digest).await {
            Err(tidemill_artifacts::Error::AlreadyExists { present, .. }) => {
                tracing::warn!(reference, %present, %digest, "an earlier equal job gave another result");
                self.artifacts.release(reference).await.map_err(fault_of_artifacts)?;
                self.artifacts.claim(reference, digest).await.map_err(fault_of_artifacts)
            }
            claimed => claimed.map_err(fault_of_artifacts),
        }
    }
}

fn digests(inputs: &[Input]) -> Result<Vec<Digest>, Fault> {
    inputs.iter().map(|input| input.digest.parse().map_err(fault_of_artifacts)).collect()
}

fn rows_annotations(prepared: Prepared, row_type: RowType, recipe: String) -> RowsAnnotations {
    let Prepared { sizes: splits, dropped_counts, redacted_count, .. } = prepared;
    RowsAnnotations { row_type, recipe, splits, dropped_counts, redacted_count }
}

fn annotations(prepared: &Prepared, digest: Digest, recipe: String) -> Result<PreparedAnnotations, Error> {
    let tokenizer = prepared.tokenizer.as_ref().ok_or(Error::NoEndOfText)?;
    let vocabulary_size = tokenizer.vocabulary_size();
    Ok(PreparedAnnotations {
        token_width: TokenWidth::of(vocabulary_size),
        vocabulary_size: vocabulary_size as u64,
        end_of_text_id: tokenizer.end_of_text().ok_or(Error::NoEndOfText)?,
        tokenizer_digest: digest.to_string(),
        recipe,
        splits: prepared.sizes.clone(),
        dropped_counts: prepared.dropped_counts.clone(),
        redacted_count: prepared.redacted_count,
    })
}

fn fill(job: &mut PreprocessingJob, digest: &Digest, annotations: Annotations) {
    let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let (splits, dropped_counts, redacted_count) = match annotations {
        Annotations::Tokens(tokens) => {
            job.tokenizer_digest = tokens.tokenizer_digest;
            (tokens.splits, tokens.dropped_counts, tokens.redacted_count)
        }
        Annotations::Rows(rows) => (rows.splits, rows.dropped_counts, rows.redacted_count),
    };
    job.digest = digest.to_string();
    job.redacted_count = count(redacted_count);
    job.dropped_counts = dropped_counts.into_iter().map(|(reason, dropped)| (reason, count(dropped))).collect();
    let splits = splits.into_iter().map(|(split, size)| {
        let counts = SplitCounts {
            document_count: count(size.document_count),
            text_bytes: count(size.text_bytes),
            token_count: count(size.token_count),
        };
        (split.to_string(), counts)
    });
    job.splits = splits.collect();
}

/// Runs work that blocks on a thread of its own.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Fault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(panic) => Err(Fault::internal(panic)),
    }
}
