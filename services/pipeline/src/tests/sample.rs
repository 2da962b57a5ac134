//! A pipeline's document, good as it is.

use tidemill_proto::pipeline::v1::PipelineSpec;
use tidemill_proto::pipeline::v1::pipeline_spec::{FeedbackLoop, Serving};
use tidemill_proto::r#type::v1::{architecture::Llama, *};

pub(crate) fn pipeline(id: &str) -> PipelineSpec {
    let step = |step| recipe::Step { step: Some(step) };
    let llama = Llama {
        hidden_size: 48,
        intermediate_size: 96,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        max_position_embeddings: 128,
        ..Llama::default()
    };
    let threshold = |bound| Threshold { metric: "bits_per_byte".to_owned(), bound: Some(bound) };
    PipelineSpec {
        base: None,
        mixed_datasets: Vec::new(),
        id: id.to_owned(),
        source: Some(SourceSpec {
            uri: "file:///texts".to_owned(),
            format: RecordFormat::Text.into(),
            license: "CC0-1.0".to_owned(),
            consent_basis: ConsentBasis::PublicDomain.into(),
            ..SourceSpec::default()
        }),
        recipe: Some(Recipe {
            steps: vec![
                step(recipe::step::Step::Normalize(recipe::Normalize::default())),
                step(recipe::step::Step::Quality(recipe::Quality::default())),
            ],
            split: Some(Split { validation_ratio: 0.1, test_ratio: 0.1 }),
            tokenizer: Some(TokenizerSpec {
                tokenizer: Some(tokenizer_spec::Tokenizer::ByteLevelBpe(tokenizer_spec::ByteLevelBpe {
                    vocabulary_size: 512,
                })),
            }),
        }),
        training: Some(TrainingSpec {
            architecture: Some(Architecture { architecture: Some(architecture::Architecture::Llama(llama)) }),
            steps: 60,
            batch_size: 4,
            sequence_length: 64,
            optimizer: Some(AdamW { learning_rate: 3e-3, ..AdamW::default() }),
            schedule: Some(Schedule { warmup_steps: 10, ..Default::default() }),
            checkpoint_every_steps: 30,
            ..TrainingSpec::default()
        }),
        evaluation: Some(SuiteSpec {
            baselines: vec![suite_spec::Baseline::Unigram.into()],
            sampling: Some(SamplingParameters::default()),
            ..SuiteSpec::default()
        }),
        objective: Some(ObjectiveSpec {
            task: "text-generation".to_owned(),
            thresholds: vec![
                threshold(threshold::Bound::Max(6.0)),
                threshold(threshold::Bound::MaxChampionRatio(1.05)),
            ],
            ..ObjectiveSpec::default()
        }),
        serving: Some(Serving { model: id.to_owned(), alias: String::new(), deployment: id.to_owned() }),
        feedback: Some(FeedbackLoop { threshold: 3, steps: 20, learning_rate: 0.0, repeat: 2 }),
    }
}
