mod families;
mod rows;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tidemill_dataset::{Document, PreparedAnnotations, RecordId, ShardWriter, SplitSize, TokenWidth};
use tidemill_models::{Attention, Config, LlamaConfig, LlamaMember, Model, Rope};
use tidemill_proto::evaluation::v1::Evaluation;
use tidemill_proto::r#type::v1::SamplingParameters;
use tidemill_proto::r#type::v1::suite_spec::Baseline;
use tidemill_text::SPECIAL_TOKENS;
use tonic::Code;

use super::*;

const CONTEXT: i64 = 32;
const WORDS: [&str; 12] =
    ["we ", "the ", "people ", "of ", "a ", "more ", "perfect ", "union, ", "do ", "ordain ", "it.\n", "always "];

/// Some text without end: `seed` chooses which.
fn text(seed: usize, words: usize) -> String {
    (0..words).map(|at| WORDS[(seed * 31 + at * at * 7 + at / 3) % WORDS.len()]).collect()
}

fn tokenizer() -> Tokenizer {
    let texts: Vec<String> = (0..20).map(|seed| text(seed, 60)).collect();
    Tokenizer::train_bpe(texts.iter().map(String::as_str), 300, &SPECIAL_TOKENS).unwrap()
}

struct World {
    folder: tempfile::TempDir,
    artifacts: Artifacts,
    model: Digest,
    dataset: Digest,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::connect(&format!("file://{}/artifacts", folder.path().display())).await.unwrap();
        let model = put_model(&artifacts, &folder.path().join("model")).await;
        let dataset = put_dataset(&artifacts, &folder.path().join("dataset")).await;
        Self { folder, artifacts, model, dataset }
    }

    fn arguments(&self, uid: &str, suite: SuiteSpec) -> WorkerArguments {
        let evaluation = Evaluation {
            uid: uid.to_owned(),
            model_digest: self.model.to_string(),
            dataset_digest: self.dataset.to_string(),
            suite: Some(suite),
            ..Evaluation::default()
        };
        WorkerArguments {
            job: "evaluations/a".to_owned(),
            uid: uid.to_owned(),
            artifacts_url: String::new(),
            work_dir: self.folder.path().join(uid),
            spec: Assignment { threads: 1, evaluation }.encode(),
        }
    }

    async fn run(&self, uid: &str, suite: SuiteSpec) -> std::result::Result<Ended, Fault> {
        run(&self.arguments(uid, suite), &self.artifacts, &|| false).await
    }

    async fn outcome(&self, uid: &str) -> Option<(Digest, Outcome)> {
        let digest = self.artifacts.resolve(&worker::result_reference(uid)).await.unwrap()?;
        Some((digest, serde_json::from_slice(&self.artifacts.get(&digest).await.unwrap()).unwrap()))
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.folder.path().join("artifacts/blobs/sha256").join(&hex[..2]).join(hex)
    }
}

async fn put_model(artifacts: &Artifacts, folder: &Path) -> Digest {
    put_model_of(artifacts, folder, 1).await
}

/// A model of random weights with a tokenizer.
async fn put_any(artifacts: &Artifacts, folder: &Path, config: Config, tokenizer: &Tokenizer) -> Digest {
    let model = Model::new(config, 1, tch::Device::Cpu).unwrap();
    std::fs::create_dir_all(folder).unwrap();
    tidemill_models::save(&model, folder).unwrap();
    std::fs::write(folder.join("tokenizer.json"), tokenizer.json()).unwrap();
    artifacts.put_directory(folder, "model", Vec::new(), BTreeMap::new()).await.unwrap()
}

async fn put_model_of(artifacts: &Artifacts, folder: &Path, seed: u64) -> Digest {
    let tokenizer = tokenizer();
    let config = LlamaConfig {
        member: LlamaMember::Llama,
        vocab_size: tokenizer.vocabulary_size() as i64,
        hidden_size: 32,
        intermediate_size: 64,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        max_position_embeddings: CONTEXT,
        rope: Rope::default(),
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        head_norms: false,
        windows: Vec::new(),
        rms_norm_eps: 1e-5,
        tie_word_embeddings: true,
        initializer_range: 0.3,
        bos_token_id: None,
        eos_token_id: Some(0),
    };
    let model = Model::new(Config::Llama(config), seed, tch::Device::Cpu).unwrap();
    std::fs::create_dir_all(folder).unwrap();
    tidemill_models::save(&model, folder).unwrap();
    std::fs::write(folder.join("tokenizer.json"), tokenizer.json()).unwrap();
    artifacts.put_directory(folder, "model", Vec::new(), BTreeMap::new()).await.unwrap()
}

async fn put_dataset(artifacts: &Artifacts, folder: &Path) -> Digest {
    for (split, seeds) in [(Split::Train, 100..140), (Split::Test, 0..6), (Split::Validation, 0..0)] {
        let mut shard = ShardWriter::<Document>::named(folder.join(split.as_str()), "text").unwrap();
        for seed in seeds {
            let text = text(seed, 20 + 15 * (seed % 7));
            shard.push(Document { id: RecordId::of(text.as_bytes()), text }).unwrap();
        }
        shard.finish().unwrap();
    }
    let annotations = PreparedAnnotations {
        token_width: TokenWidth::U16,
        vocabulary_size: 300,
        end_of_text_id: 0,
        tokenizer_digest: String::new(),
        recipe: "{}".to_owned(),
        splits: Split::ALL.map(|split| (split, SplitSize::default())).into(),
        dropped_counts: BTreeMap::new(),
        redacted_count: 0,
    };
    artifacts.put_directory(folder, "prepared-dataset", Vec::new(), annotations.to_map()).await.unwrap()
}

fn suite() -> SuiteSpec {
    SuiteSpec {
        baselines: vec![Baseline::Xz.into(), Baseline::Unigram.into()],
        prompts: vec!["we the people".to_owned(), String::new()],
        sampling: Some(SamplingParameters { max_tokens: Some(8), seed: Some(5), ..SamplingParameters::default() }),
        ..SuiteSpec::default()
    }
}

/// Bits per byte of the test split the long way: token by token, each from the inputs that its window holds.
fn naive_bits_per_byte(folder: &Path) -> f64 {
    let (model, tokenizer) = (tidemill_models::load(folder, tch::Device::Cpu).unwrap(), tokenizer());
    let (mut nats, mut bytes) = (0.0, 0);
    for text in (0..6).map(|seed| text(seed, 20 + 15 * (seed % 7))) {
        bytes += text.len();
        let ids = tokenizer.encode(&text).unwrap();
        let mut stream = vec![tokenizer.end_of_text().unwrap()];
        stream.extend(&ids);
        for at in 0..ids.len() {
            // The window that predicts this token ends at the next multiple of half a context, or with the document.
            let half = CONTEXT as usize / 2;
            let end = ((at / half + 1) * half).max(CONTEXT as usize).min(ids.len());
            let start = end.saturating_sub(CONTEXT as usize);
            let inputs: Vec<i64> = stream[start..=at].iter().map(|id| i64::from(*id)).collect();
            let logits = model.forward(&tch::Tensor::from_slice(&inputs).unsqueeze(0), Attention::Full).unwrap();
            let logs = logits.to_kind(tch::Kind::Double).log_softmax(-1, tch::Kind::Double);
            nats -= logs.double_value(&[0, inputs.len() as i64 - 1, i64::from(ids[at])]);
        }
    }
    nats / 2f64.ln() / bytes as f64
}

#[tokio::test]
async fn the_same_evaluation_has_the_same_digest_and_its_figures_are_right() {
    let world = World::new().await;
    assert_eq!(world.run("one", suite()).await.unwrap(), Ended::Done);
    let (digest, outcome) = world.outcome("one").await.unwrap();
    let expected = naive_bits_per_byte(&world.folder.path().join("model"));
    let found = outcome.metrics["bits_per_byte"];
    assert!((found - expected).abs() < 1e-4, "{found} {expected}");
    let tokens = outcome.metrics["tokens_per_byte"] * outcome.measured_bytes as f64;
    let nats = found * 2f64.ln() * outcome.measured_bytes as f64;
    assert!((outcome.metrics["perplexity"].ln() - nats / tokens).abs() < 1e-7);
    assert!(outcome.metrics["unigram_bits_per_byte"] > 3.0 && outcome.metrics["unigram_bits_per_byte"] < 5.0);
    assert!(outcome.metrics["xz_bits_per_byte"] < outcome.metrics["unigram_bits_per_byte"]);
    assert_eq!(outcome.samples.len(), 2);
    assert!(!outcome.samples[0].completion.is_empty());
    // Another evaluation of the same, now with the baselines kept by the first.
    assert_eq!(world.artifacts.list("baselines/").await.unwrap().len(), 2);
    assert_eq!(world.run("two", suite()).await.unwrap(), Ended::Done);
    assert_eq!(world.outcome("two").await.unwrap().0, digest);
}

#[tokio::test]
async fn a_worker_that_was_stopped_leaves_nothing_and_the_next_one_ends_as_if_undisturbed() {
    let world = World::new().await;
    world.run("undisturbed", suite()).await.unwrap();
    let (expected, _) = world.outcome("undisturbed").await.unwrap();
    let mut stopped = 0;
    for patience in [0, 3, 6, 9, 14, 1_000_000] {
        let asked = Cell::new(0);
        let stop = || asked.replace(asked.get() + 1) >= patience;
        match run(&world.arguments("stopped", suite()), &world.artifacts, &stop).await.unwrap() {
            Ended::Stopped => {
                stopped += 1;
                assert!(world.outcome("stopped").await.is_none());
            }
            Ended::Done => assert_eq!(world.outcome("stopped").await.unwrap().0, expected),
        }
    }
    assert!(stopped >= 4, "{stopped}");
    assert_eq!(world.outcome("stopped").await.unwrap().0, expected);
}

#[tokio::test]
async fn a_damaged_model_is_named_with_both_digests() {
    let world = World::new().await;
    let manifest = world.artifacts.manifest(&world.model).await.unwrap();
    let weights = manifest.entry("model.safetensors").unwrap().digest;
    let path = world.blob(&weights);
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let found = Digest::of(&bytes);
    // Blobs are read-only; damage does not ask.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let fault = world.run("one", suite()).await.unwrap_err();
    assert_eq!(fault.reason, "ARTIFACT_DAMAGED");
    for part in ["model.safetensors".to_owned(), weights.to_string(), found.to_string()] {
        assert!(fault.message.contains(&part), "{} lacks {part}", fault.message);
    }
}

#[tokio::test]
async fn what_cannot_be_measured_is_said_with_its_remedy() {
    let world = World::new().await;
    let empty = SuiteSpec { split: "validation".to_owned(), ..SuiteSpec::default() };
    let fault = world.run("one", empty).await.unwrap_err();
    assert_eq!(fault.code, Code::FailedPrecondition);
    assert!(fault.message.contains("validation split") && fault.message.contains("measure another"), "{fault}");

    let long = SuiteSpec { prompts: vec!["fine".to_owned(), text(1, 200)], ..SuiteSpec::default() };
    let fault = world.run("two", long).await.unwrap_err();
    assert_eq!(fault.code, Code::InvalidArgument);
    assert!(fault.message.contains("suite.prompts[1]") && fault.message.contains("context of 32"), "{fault}");
}

#[tokio::test]
async fn fewer_documents_are_the_first_by_id() {
    let world = World::new().await;
    world.run("all", SuiteSpec::default()).await.unwrap();
    world.run("two", SuiteSpec { max_documents: 2, ..SuiteSpec::default() }).await.unwrap();
    let mut texts: Vec<String> = (0..6).map(|seed| text(seed, 20 + 15 * (seed % 7))).collect();
    texts.sort_by_key(|text| RecordId::of(text.as_bytes()));
    let (_, all) = world.outcome("all").await.unwrap();
    let (_, two) = world.outcome("two").await.unwrap();
    assert_eq!(all.measured_bytes, texts.iter().map(|text| text.len() as u64).sum::<u64>());
    assert_eq!(two.measured_bytes, (texts[0].len() + texts[1].len()) as u64);
}
