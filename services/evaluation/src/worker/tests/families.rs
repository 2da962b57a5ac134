//! Encoders and encoder-decoders as a worker measures them.

use serde_json::json;
use tidemill_dataset::{Example, RowType, RowsAnnotations};
use tidemill_models::{Activation, BertConfig, T5Config};
use tidemill_text::{Masking, Sources};

use super::*;

fn bert(vocabulary: i64, masked_lm: bool) -> Config {
    Config::Bert(BertConfig {
        vocab_size: vocabulary,
        hidden_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        intermediate_size: 64,
        hidden_act: Activation::Gelu,
        max_position_embeddings: CONTEXT,
        type_vocab_size: 2,
        layer_norm_eps: 1e-12,
        initializer_range: 0.3,
        masked_lm,
        pooler: !masked_lm,
        pad_token_id: None,
    })
}

fn t5(vocabulary: i64) -> Config {
    Config::T5(T5Config {
        vocab_size: vocabulary,
        d_model: 32,
        d_kv: 8,
        d_ff: 64,
        num_layers: 1,
        num_decoder_layers: 1,
        num_heads: 4,
        relative_attention_num_buckets: 8,
        relative_attention_max_distance: 16,
        layer_norm_epsilon: 1e-6,
        initializer_factor: 0.5,
        activation: Activation::Relu,
        gated: false,
        tied_head: true,
        scale_decoder_outputs: true,
        decoder_start_token_id: 1,
        eos_token_id: Some(0),
    })
}

/// The tokenizer of the other tests, with a mask token.
fn with_mask() -> Tokenizer {
    let texts: Vec<String> = (0..20).map(|seed| text(seed, 60)).collect();
    let special = [SPECIAL_TOKENS.as_slice(), &["[MASK]"]].concat();
    Tokenizer::train_bpe(texts.iter().map(String::as_str), 300, &special).unwrap()
}

async fn world(config: Config, tokenizer: &Tokenizer) -> World {
    let world = World::new().await;
    let model = put_any(&world.artifacts, &world.folder.path().join("other"), config, tokenizer).await;
    World { model, ..world }
}

async fn put_rows(world: &World) -> Digest {
    let folder = world.folder.path().join("rows");
    for split in Split::ALL {
        let mut shard = ShardWriter::<Document>::named(folder.join(split.as_str()), "text").unwrap();
        for index in 0..8 {
            let row = json!({"prompt": text(index, 4 + index), "completion": text(index + 20, 3 + index % 3)});
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
    world.artifacts.put_directory(&folder, "prepared-dataset", Vec::new(), annotations.to_map()).await.unwrap()
}

#[tokio::test]
async fn an_encoder_is_measured_on_tokens_that_are_always_hidden_alike() {
    let tokenizer = with_mask();
    let world = world(bert(tokenizer.vocabulary_size() as i64, true), &tokenizer).await;
    world.run("one", SuiteSpec::default()).await.unwrap();
    let (digest, outcome) = world.outcome("one").await.unwrap();
    let names: Vec<&str> = outcome.metrics.keys().map(String::as_str).collect();
    assert_eq!(names, ["masked_loss", "perplexity", "tokens_per_byte"]);
    assert!((outcome.metrics["masked_loss"].exp() / outcome.metrics["perplexity"] - 1.0).abs() < 1e-6);
    world.run("two", SuiteSpec::default()).await.unwrap();
    assert_eq!(world.outcome("two").await.unwrap().0, digest);

    // The long way: all logits of each window alone.
    let model = tidemill_models::load(&world.folder.path().join("other"), tch::Device::Cpu).unwrap();
    let masking = Masking::of(&tokenizer, None, 0.15).unwrap();
    let mut texts: Vec<String> = (0..6).map(|seed| text(seed, 20 + 15 * (seed % 7))).collect();
    texts.sort_by_key(|text| RecordId::of(text.as_bytes()));
    let (mut nats, mut hidden, mut number) = (0.0, 0.0, 0);
    for text in texts {
        let mut ids: Vec<i64> = tokenizer.encode(&text).unwrap().into_iter().map(i64::from).collect();
        ids.push(0);
        for ids in ids.chunks(CONTEXT as usize) {
            let (mut inputs, mut targets) = (ids.to_vec(), ids.to_vec());
            masking.hide(0, number, &mut inputs, &mut targets);
            number += 1;
            let logits = model.forward(&tch::Tensor::from_slice(&inputs).unsqueeze(0), Attention::Full).unwrap();
            let logs = logits.to_kind(tch::Kind::Double).log_softmax(-1, tch::Kind::Double);
            for (at, target) in targets.iter().enumerate().filter(|(_, target)| **target >= 0) {
                nats -= logs.double_value(&[0, at as i64, *target]);
                hidden += 1.0;
            }
        }
    }
    let expected = nats / hidden;
    let found = outcome.metrics["masked_loss"];
    assert!((found - expected).abs() < 1e-5, "{found} {expected}");
}

#[tokio::test]
async fn an_encoder_decoder_is_measured_on_completions_and_writes_of_prompts() {
    let tokenizer = tokenizer();
    let mut world = world(t5(tokenizer.vocabulary_size() as i64), &tokenizer).await;
    world.dataset = put_rows(&world).await;
    let suite = SuiteSpec { baselines: Vec::new(), ..suite() };
    world.run("one", suite.clone()).await.unwrap();
    let (digest, outcome) = world.outcome("one").await.unwrap();
    assert_eq!(outcome.metrics.keys().collect::<Vec<_>>(), ["assistant_loss"]);
    assert!(!outcome.samples[0].completion.is_empty(), "{:?}", outcome.samples);
    world.run("two", suite).await.unwrap();
    assert_eq!(world.outcome("two").await.unwrap().0, digest);

    let model = tidemill_models::load(&world.folder.path().join("other"), tch::Device::Cpu).unwrap();
    let sources =
        Sources { tokenizer: &tokenizer, start: 1, end: Some(0), max_source_length: 100, max_target_length: 100 };
    let (mut nats, mut count) = (0.0, 0.0);
    for index in 0..8 {
        let row = json!({"prompt": text(index, 4 + index), "completion": text(index + 20, 3 + index % 3)});
        let made = sources.sequence(&serde_json::from_value(row).unwrap()).unwrap();
        let row = |ids: &[i64]| tch::Tensor::from_slice(ids).unsqueeze(0);
        let logits = model.forward_pair(&row(&made.source), &row(&made.text.inputs)).unwrap();
        let logs = logits.to_kind(tch::Kind::Double).log_softmax(-1, tch::Kind::Double);
        for (at, target) in made.text.targets.iter().enumerate() {
            nats -= logs.double_value(&[0, at as i64, *target]);
            count += 1.0;
        }
    }
    let found = outcome.metrics["assistant_loss"];
    assert!((found - nats / count).abs() < 1e-5, "{found} {}", nats / count);
}

#[tokio::test]
async fn what_a_family_cannot_do_is_refused_by_field() {
    let tokenizer = with_mask();
    let size = tokenizer.vocabulary_size() as i64;
    let encoder = world(bert(size, true), &tokenizer).await;
    let pair = world(t5(size), &tokenizer).await;
    let headless = world(bert(size, false), &tokenizer).await;
    let prompts = SuiteSpec { prompts: vec!["we".to_owned()], ..SuiteSpec::default() };
    let rows = put_rows(&encoder).await;
    let of_rows = World { dataset: rows, ..world(bert(size, true), &tokenizer).await };
    // The rows lie in the first world's store.
    let of_rows = World { artifacts: encoder.artifacts.clone(), model: encoder.model, ..of_rows };
    for (world, suite, parts) in [
        (&encoder, prompts, ["suite.prompts", "leave the prompts out"]),
        (&pair, SuiteSpec::default(), ["dataset_digest", "prompts with completions"]),
        (&headless, SuiteSpec::default(), ["model_version", "masked-LM head"]),
        (&of_rows, SuiteSpec::default(), ["dataset_digest", "packed tokens"]),
    ] {
        let fault = world.run("one", suite).await.unwrap_err();
        assert_eq!(fault.code, Code::InvalidArgument, "{fault}");
        let told = fault.to_string();
        assert!(parts.iter().all(|part| told.contains(part)), "{told}");
    }
    let plain = World::new().await;
    let model = put_any(&plain.artifacts, &plain.folder.path().join("b"), bert(300, true), &super::tokenizer()).await;
    let fault = World { model, ..plain }.run("one", SuiteSpec::default()).await.unwrap_err();
    assert!(fault.to_string().contains("no mask token"), "{fault}");
}
