//! A small prepared dataset in an artifact store of its own, and runs on it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use tidemill_artifacts::{Artifacts, Digest};
use tidemill_chassis::Fault;
use tidemill_dataset::{
    Document, Example, PreparedAnnotations, RecordId, RowType, RowsAnnotations, ShardWriter, Split, SplitSize,
    TokenWidth, TokenWriter,
};
use tidemill_platform::worker::{Ended, WorkerArguments, result_reference};
use tidemill_proto::training::v1::TrainingJob;
use tidemill_proto::r#type::v1::architecture::{self, Llama};
use tidemill_proto::r#type::v1::{AdamW, Architecture, Schedule, TrainingSpec};
use tidemill_text::{SPECIAL_TOKENS, Tokenizer};

use super::super::{Assignment, run};

/// Steps of a run.
pub(crate) const STEPS: i64 = 30;

pub(crate) fn spec() -> TrainingSpec {
    let shape = Llama {
        hidden_size: 32,
        intermediate_size: 64,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        max_position_embeddings: 32,
        tie_word_embeddings: true,
        ..Llama::default()
    };
    TrainingSpec {
        architecture: Some(Architecture { architecture: Some(architecture::Architecture::Llama(shape)) }),
        steps: STEPS,
        batch_size: 2,
        accumulation: 2,
        sequence_length: 16,
        optimizer: Some(AdamW { learning_rate: 1e-2, ..AdamW::default() }),
        schedule: Some(Schedule { warmup_steps: 3, ..Schedule::default() }),
        seed: 5,
        checkpoint_every_steps: 8,
        validate_every_steps: 7,
        ..TrainingSpec::default()
    }
}

pub(super) struct World {
    pub(super) folder: tempfile::TempDir,
    pub(super) artifacts: Artifacts,
    pub(super) dataset: Digest,
}

impl World {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::connect(&format!("file://{}/artifacts", folder.path().display())).await.unwrap();
        let dataset = put_dataset(&artifacts, &folder.path().join("dataset")).await;
        Self { folder, artifacts, dataset }
    }

    pub(super) fn job(&self, spec: TrainingSpec) -> TrainingJob {
        TrainingJob {
            name: "trainingJobs/a".to_owned(),
            spec: Some(spec),
            dataset_digest: self.dataset.to_string(),
            ..TrainingJob::default()
        }
    }

    pub(super) fn arguments_of(&self, uid: &str, job: TrainingJob) -> WorkerArguments {
        WorkerArguments {
            job: job.name.clone(),
            uid: uid.to_owned(),
            artifacts_url: format!("file://{}/artifacts", self.folder.path().display()),
            work_dir: self.folder.path().join("work").join(uid),
            spec: Assignment { threads: 1, job }.encode(),
        }
    }

    pub(super) fn arguments(&self, uid: &str, spec: TrainingSpec) -> WorkerArguments {
        self.arguments_of(uid, self.job(spec))
    }

    pub(super) async fn run(&self, uid: &str, spec: TrainingSpec) -> Result<Ended, Fault> {
        run(&self.arguments(uid, spec), &self.artifacts, &|| false).await
    }

    /// The digest of the model that a run left.
    pub(super) async fn result(&self, uid: &str) -> Digest {
        self.artifacts.resolve(&result_reference(uid)).await.unwrap().expect("a run that ended leaves a result")
    }

    /// Changes a byte of an artifact's file; returns the digests before and after.
    pub(super) async fn damage(&self, artifact: &Digest, file: &str) -> (Digest, Digest) {
        let manifest = self.artifacts.manifest(artifact).await.unwrap();
        let digest = manifest.entry(file).unwrap().digest;
        let path = self.blob(&digest);
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        // Blobs are read-only; damage does not ask.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &bytes).unwrap();
        (digest, Digest::of(&bytes))
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.folder.path().join("artifacts/blobs/sha256").join(&hex[..2]).join(hex)
    }

    /// Blobs and manifests in the store.
    pub(super) fn blob_count(&self) -> usize {
        let folders = std::fs::read_dir(self.folder.path().join("artifacts/blobs/sha256")).unwrap();
        folders.map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap().count()).sum()
    }
}

pub(crate) async fn put_dataset(artifacts: &Artifacts, folder: &Path) -> Digest {
    put_dataset_of(artifacts, folder, 0..24).await
}

/// A dataset of which these texts are for training; the tokenizer is the same for all.
pub(super) async fn put_dataset_of(artifacts: &Artifacts, folder: &Path, train: Range<usize>) -> Digest {
    put_dataset_with(artifacts, folder, train, &SPECIAL_TOKENS).await
}

/// The same with a tokenizer of these special tokens.
pub(super) async fn put_dataset_with(
    artifacts: &Artifacts,
    folder: &Path,
    train: Range<usize>,
    special_tokens: &[&str],
) -> Digest {
    let words = ["we ", "the ", "people ", "of ", "a ", "more ", "perfect ", "union, ", "ordain ", "it.\n"];
    let text =
        |seed: usize| -> String { (0..80).map(|at| words[(seed + at * at * 7 + at / 3) % words.len()]).collect() };
    let texts: Vec<String> = (0..30).map(text).collect();
    let tokenizer = Tokenizer::train_bpe(texts.iter().map(String::as_str), 300, special_tokens).unwrap();
    let end = tokenizer.end_of_text().unwrap();
    let mut sizes = BTreeMap::new();
    for (split, seeds) in [(Split::Train, train), (Split::Validation, 24..30), (Split::Test, 0..0)] {
        let mut writer = TokenWriter::create(folder.join(split.as_str()), TokenWidth::U16).unwrap();
        for text in &texts[seeds] {
            writer.push(&tokenizer.encode(text).unwrap()).unwrap();
            writer.push(&[end]).unwrap();
        }
        sizes.insert(split, SplitSize { token_count: writer.tokens(), ..SplitSize::default() });
        writer.finish().unwrap();
    }
    std::fs::create_dir_all(folder.join("tokenizer")).unwrap();
    std::fs::write(folder.join("tokenizer/tokenizer.json"), tokenizer.json()).unwrap();
    let annotations = PreparedAnnotations {
        token_width: TokenWidth::U16,
        vocabulary_size: tokenizer.vocabulary_size() as u64,
        end_of_text_id: end,
        tokenizer_digest: "sha256:tokenizer".to_owned(),
        recipe: "{}".to_owned(),
        splits: sizes,
        dropped_counts: BTreeMap::new(),
        redacted_count: 0,
    };
    artifacts.put_directory(folder, "prepared-dataset", Vec::new(), annotations.to_map()).await.unwrap()
}

/// A dataset of rows: prompts with completions.
pub(crate) async fn put_rows(artifacts: &Artifacts, folder: &Path) -> Digest {
    for (split, rows) in [(Split::Train, 0..24), (Split::Validation, 24..30), (Split::Test, 0..0)] {
        let mut shard = ShardWriter::<Document>::named(folder.join(split.as_str()), "text").unwrap();
        for index in rows {
            let completion = format!("perfect union {}", index % 5);
            let row = serde_json::json!({"prompt": format!("we the people {index}"), "completion": completion});
            let text = Example::from_json(&row).unwrap().to_json();
            shard.push(Document { id: RecordId::of(text.as_bytes()), text }).unwrap();
        }
        shard.finish().unwrap();
    }
    let annotations = RowsAnnotations {
        row_type: RowType::PromptCompletion,
        recipe: "{}".to_owned(),
        splits: BTreeMap::new(),
        dropped_counts: BTreeMap::new(),
        redacted_count: 0,
    };
    artifacts.put_directory(folder, "prepared-dataset", Vec::new(), annotations.to_map()).await.unwrap()
}
