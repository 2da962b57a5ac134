use tch::Kind;
use tidemill_models::{Attention, Config, LlamaConfig, LlamaMember, Rope};

use super::*;

const END: u32 = 0;

fn model(context: i64) -> Model {
    let config = LlamaConfig {
        member: LlamaMember::Llama,
        vocab_size: 40,
        hidden_size: 32,
        intermediate_size: 64,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        max_position_embeddings: context,
        rms_norm_eps: 1e-5,
        rope: Rope::default(),
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        head_norms: false,
        windows: Vec::new(),
        tie_word_embeddings: false,
        // Large, so that predictions differ much from one another.
        initializer_range: 0.5,
        bos_token_id: None,
        eos_token_id: Some(0),
    };
    Model::new(Config::Llama(config), 3, Device::Cpu).unwrap()
}

fn ids(count: usize) -> Vec<u32> {
    (0..count as u32).map(|at| 1 + (at * at * 7 + at * 3) % 39).collect()
}

async fn scored(model: &Model, windows: &[Window]) -> Score {
    score(model, "m", windows, |_| true).await.unwrap().unwrap()
}

/// The same by the shortest way: all logits of the whole document at once.
fn naive(model: &Model, ids: &[u32]) -> f64 {
    let inputs: Vec<i64> = std::iter::once(END).chain(ids.iter().copied()).take(ids.len()).map(i64::from).collect();
    let logits = model.forward(&Tensor::from_slice(&inputs).unsqueeze(0), Attention::Full).unwrap();
    let logs = logits.to_kind(Kind::Double).log_softmax(-1, Kind::Double);
    ids.iter().enumerate().map(|(at, id)| -logs.double_value(&[0, at as i64, i64::from(*id)])).sum()
}

#[test]
fn every_token_is_predicted_once_with_at_least_half_a_context_before_it() {
    for (length, context) in [(0, 8), (1, 8), (7, 8), (8, 8), (9, 8), (12, 8), (100, 8), (101, 7), (5, 1), (5, 2)] {
        let ids = ids(length);
        let windows = windows(&ids, END, context);
        let mut predicted = Vec::new();
        for window in &windows {
            assert!(window.inputs.len() <= context && window.inputs.len() == window.targets.len());
            for (at, target) in window.targets.iter().enumerate().filter(|(_, target)| **target != IGNORED) {
                let before = at + 1;
                assert!(before > predicted.len() || before >= context - context / 2, "{length} {context} {at}");
                predicted.push(*target as u32);
            }
        }
        assert_eq!(predicted, ids, "{length} {context}");
        assert_eq!(windows.iter().map(Window::scored).sum::<u64>(), length as u64);
    }
}

#[tokio::test]
async fn a_document_within_the_context_scores_as_computed_naively() {
    let model = model(64);
    for length in [1, 5, 63, 64] {
        let ids = ids(length);
        let score = scored(&model, &windows(&ids, END, 64)).await;
        let expected = naive(&model, &ids);
        assert_eq!(score.tokens, length as u64);
        assert!((score.nats - expected).abs() / expected < 1e-5, "{length}: {} {expected}", score.nats);
    }
}

#[tokio::test]
async fn a_longer_document_scores_as_the_sum_of_its_windows_computed_naively() {
    let model = model(16);
    let ids = ids(50);
    let mut expected = 0.0;
    let mut scored_to = 0;
    // By hand: 0..16, then 8 more tokens at a time, each with the 16 inputs that end there.
    for end in [16, 24, 32, 40, 48, 50] {
        let start = end - 16;
        let inputs: Vec<i64> = (start..end).map(|at| if at == 0 { 0 } else { i64::from(ids[at - 1]) }).collect();
        let logits = model.forward(&Tensor::from_slice(&inputs).unsqueeze(0), Attention::Full).unwrap();
        let logs = logits.to_kind(Kind::Double).log_softmax(-1, Kind::Double);
        for (at, id) in ids.iter().enumerate().take(end).skip(scored_to) {
            expected -= logs.double_value(&[0, (at - start) as i64, i64::from(*id)]);
        }
        scored_to = end;
    }
    let score = scored(&model, &windows(&ids, END, 16)).await;
    assert!((score.nats - expected).abs() / expected < 1e-5, "{} {expected}", score.nats);
}

#[tokio::test]
async fn documents_in_one_batch_do_not_see_each_other() {
    let model = model(64);
    let (long, short) = (ids(60), ids(9));
    let mut both = windows(&long, END, 64);
    both.extend(windows(&short, END, 64));
    let together = scored(&model, &both).await;
    let expected = naive(&model, &long) + naive(&model, &short);
    assert!((together.nats - expected).abs() / expected < 1e-5);
    assert_eq!(together.tokens, 69);
    // 69 tokens of 3 bytes each.
    let bits = together.bits_per_byte(207.0);
    assert!((bits - expected / 2f64.ln() / 207.0).abs() < 1e-4);
    assert!((together.perplexity() - (expected / 69.0).exp()).abs() / together.perplexity() < 1e-4);
}

#[tokio::test]
async fn scoring_stops_when_asked() {
    let model = model(8);
    assert_eq!(score(&model, "m", &windows(&ids(9_000), END, 8), |_| false).await.unwrap(), None);
}
