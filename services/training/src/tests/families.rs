//! Jobs whose method is not for their model are refused when they are created.

use tidemill_models::{Model, save};
use tidemill_proto::r#type::v1::architecture::{self, Bert, T5};
use tidemill_proto::r#type::v1::training_spec::Method;
use tidemill_proto::r#type::v1::{
    Architecture, MaskedLanguageModeling, MixedDataset, SequenceToSequence, SupervisedFineTuning,
};

use super::*;
use crate::learning::config_of;
use crate::worker::tests::world::put_rows;

/// A model of random weights with the tokenizer of the sandbox's dataset.
async fn model(sandbox: &Sandbox, name: &str, shape: architecture::Architecture) -> String {
    let (artifacts, folder) = (&sandbox.platform.artifacts, sandbox.folder.path().join(name));
    let json = artifacts.get_entry(&sandbox.dataset, "tokenizer/tokenizer.json").await.unwrap();
    let size = tidemill_text::Tokenizer::from_bytes(&json).unwrap().vocabulary_size() as i64;
    let config = config_of(&Architecture { architecture: Some(shape) }, size, Some(0)).unwrap();
    std::fs::create_dir_all(&folder).unwrap();
    save(&Model::new(config, 1, tch::Device::Cpu).unwrap(), &folder).unwrap();
    std::fs::write(folder.join("tokenizer.json"), json).unwrap();
    artifacts.put_directory(&folder, "model", Vec::new(), Default::default()).await.unwrap().to_string()
}

fn small_t5() -> T5 {
    T5 { d_model: 32, d_kv: 8, d_ff: 64, num_layers: 1, num_heads: 4, ..T5::default() }
}

#[tokio::test]
async fn a_method_that_is_not_for_the_base_is_refused_by_field() {
    let sandbox = Sandbox::new().await;
    let bert = Bert {
        hidden_size: 32,
        intermediate_size: 64,
        num_hidden_layers: 1,
        num_attention_heads: 4,
        max_position_embeddings: 32,
    };
    let t5 = small_t5();
    let bert = model(&sandbox, "bert", architecture::Architecture::Bert(bert)).await;
    let t5 = model(&sandbox, "t5", architecture::Architecture::T5(t5)).await;
    let guess = || Method::MaskedLanguageModeling(MaskedLanguageModeling::default());
    let write = || Method::SequenceToSequence(SequenceToSequence::default());
    let answer = || Method::SupervisedFineTuning(SupervisedFineTuning::default());
    for (base, method, remedy) in [
        (&bert, None, "use masked_language_modeling"),
        (&t5, None, "use sequence_to_sequence"),
        (&t5, Some(guess()), "use sequence_to_sequence"),
        (&bert, Some(write()), "use masked_language_modeling"),
        (&bert, Some(answer()), "use masked_language_modeling"),
    ] {
        let mut job = sandbox.job(TrainingSpec { architecture: None, method, ..spec() });
        job.base_model_digest.clone_from(base);
        let fault = sandbox.create("", job).await.unwrap_err();
        assert_eq!(fault.code, Code::InvalidArgument);
        let told: Vec<_> = fault.fields.iter().filter(|(field, _)| field == "spec.method").collect();
        assert!(told.iter().any(|(_, text)| text.contains(remedy)), "{fault}");
    }
    // An encoder that guesses is fine, whatever comes of it; a tokenizer has no place there.
    let mut job =
        sandbox.job(TrainingSpec { architecture: None, method: Some(guess()), sequence_length: 33, ..spec() });
    job.base_model_digest.clone_from(&bert);
    job.tokenizer_digest.clone_from(&bert);
    let fault = sandbox.create("", job).await.unwrap_err();
    let fields: Vec<&str> = fault.fields.iter().map(|(field, _)| field.as_str()).collect();
    assert_eq!(fields, ["tokenizer_digest", "spec.sequence_length"], "{fault}");
    sandbox.end().await;
}

#[tokio::test]
async fn a_created_job_has_all_that_was_asked_for_and_an_encoder_decoder_learns_by_it() {
    let sandbox = Sandbox::new().await;
    let mut mixed = sandbox.job(spec());
    mixed.mixed_datasets = vec![MixedDataset { dataset_digest: sandbox.dataset.to_string(), weight: 0.5 }];
    let created = sandbox.create("mixed", mixed.clone()).await.unwrap();
    assert_eq!(created.mixed_datasets, mixed.mixed_datasets);

    let write = Method::SequenceToSequence(SequenceToSequence::default());
    let shape = Architecture { architecture: Some(architecture::Architecture::T5(small_t5())) };
    let mut job = sandbox.job(TrainingSpec { architecture: Some(shape), method: Some(write), ..spec() });
    let rows = put_rows(&sandbox.platform.artifacts, &sandbox.folder.path().join("rows")).await;
    job.dataset_digest = rows.to_string();
    let fault = sandbox.create("without", job.clone()).await.unwrap_err();
    assert!(fault.fields.iter().any(|(field, _)| field == "base_model_digest"), "{fault}");
    // A dataset of tokens holds a tokenizer.
    job.tokenizer_digest = sandbox.dataset.to_string();
    let created = sandbox.create("writes", job).await.unwrap();
    let done = sandbox.follow(&created.name, |_| {}).await;
    assert_eq!(done.state(), State::Succeeded, "{:?}", done.error);
    assert_eq!(done.tokenizer_digest, sandbox.dataset.to_string());
    sandbox.follow("trainingJobs/mixed", |_| {}).await;
    sandbox.end().await;
}
