//! Jobs of encoders and of encoder-decoders, from their datasets to their models.

use tidemill_models::Config;
use tidemill_proto::training::v1::TrainingJob;
use tidemill_proto::r#type::v1::architecture::{self, Bert, T5};
use tidemill_proto::r#type::v1::training_spec::Method;
use tidemill_proto::r#type::v1::{
    Architecture, Lora, MaskedLanguageModeling, SequenceToSequence, SupervisedFineTuning,
};
use tidemill_text::{SPECIAL_TOKENS, Tokenizer};

use super::world::{put_dataset_with, put_rows};
use super::*;

fn of(shape: architecture::Architecture, method: Method) -> TrainingSpec {
    TrainingSpec {
        architecture: Some(Architecture { architecture: Some(shape) }),
        method: Some(method),
        steps: 40,
        ..spec()
    }
}

fn guessing() -> TrainingSpec {
    let bert = Bert {
        hidden_size: 32,
        intermediate_size: 64,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        max_position_embeddings: 32,
    };
    let method = Method::MaskedLanguageModeling(MaskedLanguageModeling::default());
    of(architecture::Architecture::Bert(bert), method)
}

fn writing() -> TrainingSpec {
    let t5 = T5 { d_model: 32, d_kv: 8, d_ff: 64, num_layers: 1, num_heads: 4, ..T5::default() };
    let method = Method::SequenceToSequence(SequenceToSequence { max_target_length: 12 });
    of(architecture::Architecture::T5(t5), method)
}

/// First and last loss, and the last on the validation split.
async fn curve(world: &World, uid: &str) -> (f64, f64, f64) {
    let digest = world.artifacts.resolve(&history_reference(uid)).await.unwrap().unwrap();
    let bytes = world.artifacts.get(&digest).await.unwrap();
    let points: Vec<crate::history::MetricPoint> = serde_json::from_slice(&bytes).unwrap();
    let (first, last) = (&points[0].metrics, &points.last().unwrap().metrics);
    (first["loss"], last["loss"], last["validation_loss"])
}

/// Runs a job undisturbed, and once more stopped on its way: both leave the same model.
async fn run_twice(world: &World, uid: &str, job: &TrainingJob) -> Digest {
    let arguments = |uid: &str| world.arguments_of(uid, job.clone());
    assert_eq!(run(&arguments(uid), &world.artifacts, &|| false).await.unwrap(), Ended::Done);
    let stopped = format!("{uid}-stopped");
    let mut stops = 0;
    while run(&arguments(&stopped), &world.artifacts, &after(13)).await.unwrap() == Ended::Stopped {
        stops += 1;
    }
    assert!(stops > 0, "it was never stopped");
    let digest = world.result(uid).await;
    assert_eq!(world.result(&stopped).await, digest);
    digest
}

async fn fault(world: &World, uid: &str, job: TrainingJob) -> String {
    let fault = run(&world.arguments_of(uid, job), &world.artifacts, &|| false).await.unwrap_err();
    assert_eq!(fault.code, Code::InvalidArgument, "{fault}");
    fault.to_string()
}

#[tokio::test]
async fn an_encoder_learns_to_guess_and_goes_on_with_an_adapter() {
    let mut world = World::new().await;
    let refused = fault(&world, "without", world.job(guessing())).await;
    assert!(refused.contains("dataset_digest") && refused.contains("mask token"), "{refused}");

    let special = [SPECIAL_TOKENS.as_slice(), &["[MASK]"]].concat();
    world.dataset = put_dataset_with(&world.artifacts, &world.folder.path().join("masked"), 0..24, &special).await;
    let digest = run_twice(&world, "new", &world.job(guessing())).await;
    let (first, last, validation) = curve(&world, "new").await;
    assert!(last < first - 0.3 && validation < first - 0.3, "{first} {last} {validation}");

    let folder = world.folder.path().join("fetched");
    let manifest = world.artifacts.fetch_directory(&digest, &folder).await.unwrap();
    let names: Vec<_> = manifest.entries.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(names, ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]);
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("tokenizer_config.json")).unwrap()).unwrap();
    assert_eq!((&config["mask_token"], &config["chat_template"]), (&"[MASK]".into(), &serde_json::Value::Null));
    assert!(matches!(tidemill_models::read_config(&folder).unwrap(), Config::Bert(bert) if bert.masked_lm));

    let lora = Lora { target_modules: vec!["query".to_owned(), "dense".to_owned()], ..Lora::default() };
    let mut tuned = world.job(TrainingSpec { architecture: None, lora: Some(lora), ..guessing() });
    tuned.base_model_digest = digest.to_string();
    let adapter = run_twice(&world, "adapted", &tuned).await;
    let manifest = world.artifacts.manifest(&adapter).await.unwrap();
    assert_eq!(manifest.parents, [world.dataset, digest]);
    assert!(manifest.entry("adapter_model.safetensors").is_some());
    assert!(curve(&world, "adapted").await.0 < first);

    let mut wrong = world.job(TrainingSpec { architecture: None, method: None, ..guessing() });
    wrong.base_model_digest = digest.to_string();
    let refused = fault(&world, "wrong", wrong).await;
    assert!(refused.contains("spec.method") && refused.contains("use masked_language_modeling"), "{refused}");
}

#[tokio::test]
async fn an_encoder_decoder_learns_rows_from_nothing_and_goes_on_with_an_adapter() {
    let mut world = World::new().await;
    world.dataset = put_rows(&world.artifacts, &world.folder.path().join("rows")).await;
    let folder = world.folder.path().join("tokenizer");
    std::fs::create_dir_all(&folder).unwrap();
    let special = ["<pad>", "</s>"];
    let tokenizer = Tokenizer::train_bpe(["we the people perfect union 0 1 2 3 4"; 2], 300, &special).unwrap();
    std::fs::write(folder.join("tokenizer.json"), tokenizer.json()).unwrap();
    let tokens = world.artifacts.put_directory(&folder, "tokenizer", Vec::new(), Default::default()).await.unwrap();

    let refused = fault(&world, "without", world.job(writing())).await;
    assert!(refused.contains("base_model_digest") && refused.contains("tokenizer_digest"), "{refused}");
    let mut new = world.job(writing());
    new.tokenizer_digest = tokens.to_string();
    let digest = run_twice(&world, "new", &new).await;
    let (first, last, validation) = curve(&world, "new").await;
    assert!(last < first - 1.0 && validation < first - 1.0, "{first} {last} {validation}");

    let manifest = world.artifacts.manifest(&digest).await.unwrap();
    assert_eq!(manifest.parents, [world.dataset, tokens]);
    assert_eq!(manifest.annotations["tokenizer_digest"], tokens.to_string());
    let folder = world.folder.path().join("fetched");
    world.artifacts.fetch_directory(&digest, &folder).await.unwrap();
    let Config::T5(config) = tidemill_models::read_config(&folder).unwrap() else { panic!("it is no t5") };
    assert_eq!((config.decoder_start_token_id, config.eos_token_id), (0, Some(1)));
    assert!(!folder.join("chat_template.jinja").exists() && folder.join("generation_config.json").exists());

    let mut tuned = world.job(TrainingSpec { architecture: None, lora: Some(Lora::default()), ..writing() });
    tuned.base_model_digest = digest.to_string();
    let adapter = run_twice(&world, "adapted", &tuned).await;
    assert_eq!(world.artifacts.manifest(&adapter).await.unwrap().parents, [world.dataset, digest]);

    let answers = Method::SupervisedFineTuning(SupervisedFineTuning::default());
    let mut wrong = world.job(TrainingSpec { architecture: None, method: Some(answers), ..writing() });
    wrong.base_model_digest = digest.to_string();
    let refused = fault(&world, "wrong", wrong).await;
    assert!(refused.contains("spec.method") && refused.contains("use sequence_to_sequence"), "{refused}");
    // Every prompt is lost but its end.
    let mut short = world.job(TrainingSpec { sequence_length: 1, ..writing() });
    short.tokenizer_digest = tokens.to_string();
    let refused = fault(&world, "short", short).await;
    assert!(refused.contains("row ") && refused.contains("no token of its prompt"), "{refused}");
}
