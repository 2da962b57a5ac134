mod fp8;
mod grouped;
mod memory;
mod pairs;
mod ranks;

use std::{fs, path::Path};

use tch::Device;
use tidemill_dataset::{TokenWidth, Tokens};
use tidemill_models::{Activation, Config, Gpt2Config, IGNORED, LlamaConfig, LlamaMember, Rope, WEIGHTS_FILE};

use super::*;

const VOCABULARY: i64 = 50;

fn llama() -> Config {
    Config::Llama(LlamaConfig {
        member: LlamaMember::Llama,
        vocab_size: VOCABULARY,
        hidden_size: 32,
        intermediate_size: 64,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        max_position_embeddings: 32,
        rope: Rope::default(),
        rms_norm_eps: 1e-6,
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        head_norms: false,
        windows: Vec::new(),
        tie_word_embeddings: true,
        initializer_range: 0.02,
        bos_token_id: None,
        eos_token_id: Some(0),
    })
}

fn gpt2() -> Config {
    Config::Gpt2(Gpt2Config {
        vocab_size: VOCABULARY,
        n_embd: 32,
        n_layer: 2,
        n_head: 4,
        n_positions: 32,
        n_inner: None,
        bias: true,
        activation_function: Activation::GeluNew,
        layer_norm_epsilon: 1e-5,
        initializer_range: 0.02,
        bos_token_id: None,
        eos_token_id: Some(0),
    })
}

fn spec(config: Config, accumulation: usize, precision: Precision) -> Spec {
    Spec {
        config,
        steps: 40,
        batch_size: 4,
        accumulation,
        ranks: 1,
        sequence_length: 32,
        optimizer: Optimizer { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1, int8: false },
        schedule: Schedule { peak: 1e-2, warmup_steps: 5, steps: 40, final_ratio: 0.1, decay: Decay::Cosine },
        method: Method::Language,
        rewards: Vec::new(),
        distillation: None,
        order: Order::Shuffled,
        lora: None,
        quantized_base: false,
        muon: None,
        z_loss: 0.0,
        ema_decay: 0.0,
        clip_norm: 1.0,
        seed: 11,
        precision,
        activation_checkpointing: false,
        validate_every_steps: 10,
    }
}

/// A text with structure: each token follows from the one before, with some noise.
fn tokens(count: usize, salt: u64) -> Tokens {
    let mut state = salt;
    let mut token = 1u64;
    let bytes: Vec<u8> = (0..count)
        .flat_map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let noise = if state >> 60 == 0 { state >> 40 } else { 0 };
            token = (token * 3 + 7 + noise) % VOCABULARY as u64;
            (token as u16).to_le_bytes()
        })
        .collect();
    Tokens::read(vec![bytes.into()], TokenWidth::U16, VOCABULARY as usize).unwrap()
}

fn trainer(spec: &Spec) -> Trainer {
    let data = Data::packed(tokens(4_000, 1), Some(tokens(700, 2)), spec).unwrap();
    Trainer::new(spec.clone(), spec.digest("sha256:data", "", ""), data, Start::Random, Device::Cpu, World::alone())
        .unwrap()
}

fn save(trainer: &Trainer, directory: &Path) {
    trainer.checkpoint().unwrap().unwrap().write(directory).unwrap();
}

fn read(directory: &Path, file: &str) -> Vec<u8> {
    fs::read(directory.join(file)).unwrap()
}

#[test]
fn a_run_resumed_from_a_checkpoint_ends_with_the_same_bytes() {
    tidemill_torch::process::set_threads(1);
    for (config, accumulation, precision) in
        [(llama(), 1, Precision::Float32), (llama(), 3, Precision::Bfloat16), (gpt2(), 2, Precision::Float32)]
    {
        let spec = spec(config, accumulation, precision);
        let (straight, middle, resumed) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut first = trainer(&spec);
        let mut losses = Vec::new();
        while !first.is_finished() {
            losses.push(first.step().unwrap().loss);
            if first.steps_done() == 17 {
                save(&first, middle.path());
            }
        }
        save(&first, straight.path());
        drop(first);
        let mut second = trainer(&spec);
        second.resume(middle.path()).unwrap();
        assert_eq!(second.steps_done(), 17);
        while !second.is_finished() {
            let report = second.step().unwrap();
            assert_eq!(report.loss, losses[report.step as usize - 1], "step {}", report.step);
        }
        save(&second, resumed.path());
        for file in [WEIGHTS_FILE, OPTIMIZER_FILE, STATE_FILE] {
            assert!(read(straight.path(), file) == read(resumed.path(), file), "{file} differs after a resume");
        }
        assert!(losses[39] < losses[0] - 0.5, "nothing was learned: {losses:?}");
        let points = second.history().points();
        assert_eq!(points.len(), 40);
        assert_eq!(points.iter().filter(|point| point.validation_loss.is_some()).count(), 4);
    }
}

#[test]
fn accumulation_gives_the_step_of_one_large_batch() {
    let whole = Spec { batch_size: 6, ..spec(llama(), 1, Precision::Float32) };
    let parts = Spec { batch_size: 2, accumulation: 3, ..whole.clone() };
    let (mut whole, mut parts) = (trainer(&whole), trainer(&parts));
    for _ in 0..5 {
        let (a, b) = (whole.step().unwrap(), parts.step().unwrap());
        assert_eq!(a.tokens, b.tokens);
        assert!((a.loss - b.loss).abs() < 1e-4 && (a.gradient_norm - b.gradient_norm).abs() < 1e-3, "{a:?} {b:?}");
    }
}

/// Samples of which only the first `supervised` positions have targets.
struct Masked {
    packed: Packed,
    supervised: usize,
}

impl Samples for Masked {
    fn fill(&self, position: u64, inputs: &mut [i64], targets: &mut [i64]) {
        self.packed.fill(position, inputs, targets);
        targets[self.supervised..].fill(IGNORED);
    }
}

#[test]
fn a_batch_without_supervised_tokens_is_an_error_and_a_loss_counts_supervised_tokens_only() {
    let spec = spec(llama(), 2, Precision::Float32);
    for supervised in [0, 3] {
        let packed = Packed::new(tokens(4_000, 1), 32, 1).unwrap();
        let data =
            Data { train: Train::Windows(Box::new(Masked { packed, supervised })), validation: Validation::None };
        let mut trainer =
            Trainer::new(spec.clone(), String::new(), data, Start::Random, Device::Cpu, World::alone()).unwrap();
        match trainer.step() {
            Err(error) => {
                assert_eq!(supervised, 0);
                assert!(error.to_string().contains("no supervised token"), "{error}");
                assert_eq!(trainer.steps_done(), 0);
            }
            Ok(report) => {
                assert_eq!(report.tokens, supervised * 4 * 2);
                // Random weights know nothing: ln 50.
                assert!((report.loss - 3.912).abs() < 0.1, "{report:?}");
            }
        }
    }
}

#[test]
fn a_loss_that_is_not_a_number_stops_the_run() {
    let mut spec = spec(llama(), 1, Precision::Float32);
    spec.schedule = Schedule { peak: 1e30, warmup_steps: 0, steps: 40, final_ratio: 1.0, decay: Decay::Cosine };
    let mut trainer = trainer(&spec);
    let error = (0..10).find_map(|_| trainer.step().err()).expect("a learning rate of 1e30 cannot go on");
    assert!(matches!(error, Error::NotFinite { .. }), "{error}");
}

#[test]
fn training_starts_from_a_directory_and_measures_all_of_the_validation_split() {
    let spec = spec(llama(), 1, Precision::Float32);
    let directory = tempfile::tempdir().unwrap();
    let mut first = trainer(&spec);
    for _ in 0..20 {
        first.step().unwrap();
    }
    let a = first.validate(usize::MAX).unwrap().unwrap();
    first.export(directory.path(), "", false).unwrap();
    let data = Data::packed(tokens(4_000, 1), Some(tokens(700, 2)), &spec).unwrap();
    let second =
        Trainer::new(spec.clone(), String::new(), data, Start::From(directory.path()), Device::Cpu, World::alone())
            .unwrap();
    let b = second.validate(usize::MAX).unwrap().unwrap();
    assert!((a - b).abs() < 1e-6, "{a} {b}");
    let data = Data::packed(tokens(4_000, 1), None, &spec).unwrap();
    let other = Spec { config: gpt2(), ..spec };
    let error = Trainer::new(other, String::new(), data, Start::From(directory.path()), Device::Cpu, World::alone())
        .err()
        .unwrap();
    assert!(error.to_string().contains("another shape"), "{error}");
}

#[test]
fn a_checkpoint_of_another_run_or_a_broken_one_is_refused_by_name() {
    let spec = spec(llama(), 1, Precision::Float32);
    let directory = tempfile::tempdir().unwrap();
    save(&trainer(&spec), directory.path());
    let mut other = trainer(&Spec { seed: 12, ..spec.clone() });
    assert!(other.resume(directory.path()).unwrap_err().to_string().contains("belongs to the run"));
    for file in [STATE_FILE, WEIGHTS_FILE, OPTIMIZER_FILE] {
        let whole = read(directory.path(), file);
        fs::write(directory.path().join(file), &whole[..whole.len() / 2]).unwrap();
        let error = trainer(&spec).resume(directory.path()).unwrap_err().to_string();
        assert!(error.contains(file), "{error}");
        fs::write(directory.path().join(file), whole).unwrap();
    }
    trainer(&spec).resume(directory.path()).unwrap();
}
