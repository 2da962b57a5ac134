//! Encoders that guess hidden tokens, and encoder-decoders that write texts of sources.

use tidemill_models::{BertConfig, LoraConfig, T5Config};
use tidemill_text::Masking;

use super::*;

const MASK: u32 = 0;

fn bert() -> Config {
    Config::Bert(BertConfig {
        vocab_size: VOCABULARY,
        hidden_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        intermediate_size: 64,
        hidden_act: Activation::Gelu,
        max_position_embeddings: 32,
        type_vocab_size: 2,
        layer_norm_eps: 1e-12,
        initializer_range: 0.1,
        masked_lm: true,
        pooler: false,
        pad_token_id: None,
    })
}

pub(super) fn t5() -> Config {
    Config::T5(T5Config {
        vocab_size: VOCABULARY,
        d_model: 32,
        d_kv: 8,
        d_ff: 64,
        num_layers: 2,
        num_decoder_layers: 2,
        num_heads: 4,
        relative_attention_num_buckets: 8,
        relative_attention_max_distance: 16,
        layer_norm_epsilon: 1e-6,
        initializer_factor: 0.3,
        activation: Activation::Relu,
        gated: false,
        tied_head: true,
        scale_decoder_outputs: true,
        decoder_start_token_id: 0,
        eos_token_id: Some(1),
    })
}

const GUESSING: Method = Method::MaskedLanguage { mask_probability: 0.15 };
pub(super) const WRITING: Method = Method::SequenceToSequence { max_target_length: 0 };

pub(super) fn spec_of(config: Config, method: Method) -> Spec {
    Spec { method, ..spec(config, 2, Precision::Float32) }
}

fn masking() -> Masking {
    Masking::new(0.15, MASK, &[MASK], VOCABULARY as usize).unwrap()
}

/// A text whose hidden tokens are easily guessed.
fn cycle(count: usize) -> Tokens {
    let bytes: Vec<u8> = (0..count).flat_map(|at| (10 + at as u16 % 7).to_le_bytes()).collect();
    Tokens::read(vec![bytes.into()], TokenWidth::U16, VOCABULARY as usize).unwrap()
}

/// Texts of sources: the first token of a source says how its text goes.
fn rows(count: usize, salt: u64) -> Vec<Row> {
    let ids: Vec<u32> = tokens(count * 8, salt).iter().map(|id| id.max(2)).collect();
    let row = |source: &[u32]| {
        let text: Vec<u32> = source[..3 + source[1] as usize % 4].iter().map(|id| (id * 7 + 3) % 50).collect();
        let targets = text.iter().map(|id| *id as i32).chain([1]).collect();
        Row::Sourced {
            source: source.into(),
            text: Sequence { inputs: std::iter::once(0).chain(text).collect(), targets },
        }
    };
    ids.chunks(8).map(row).collect()
}

fn data(spec: &Spec) -> Data {
    match spec.method {
        Method::SequenceToSequence { .. } => {
            let made = |count, salt| Rows::new(rows(count, salt), Order::Shuffled, spec.seed, 32).unwrap();
            Data { train: Train::Rows(made(64, 1)), validation: Validation::Rows(made(16, 2)) }
        }
        _ => Data::packed(cycle(4_000), Some(cycle(700)), spec).unwrap().masked(masking(), spec.seed),
    }
}

fn made(spec: &Spec) -> Trainer {
    let digest = spec.digest("sha256:data", "", "");
    Trainer::new(spec.clone(), digest, data(spec), Start::Random, Device::Cpu, World::alone()).unwrap()
}

#[test]
fn both_learn_and_a_resumed_run_ends_with_the_same_bytes() {
    tidemill_torch::process::set_threads(1);
    // Without dropout: tests of one process share libtorch's generator.
    let lora =
        LoraConfig { r: 4, alpha: 8.0, dropout: 0.0, target_modules: Vec::new(), use_rslora: false, use_dora: false };
    for (config, method) in [(bert(), GUESSING), (t5(), WRITING)] {
        for lora in [None, Some(lora.clone())] {
            let spec = Spec { lora: lora.clone(), ..spec_of(config.clone(), method) };
            let [straight, middle, resumed] = [(); 3].map(|()| tempfile::tempdir().unwrap());
            let mut first = made(&spec);
            let (mut losses, mut validated) = (Vec::new(), Vec::new());
            while !first.is_finished() {
                let report = first.step().unwrap();
                losses.push(report.loss);
                validated.extend(report.validation_loss);
                if first.steps_done() == 17 {
                    save(&first, middle.path());
                }
            }
            save(&first, straight.path());
            let mut second = made(&spec);
            second.resume(middle.path()).unwrap();
            while !second.is_finished() {
                let report = second.step().unwrap();
                assert_eq!(report.loss, losses[report.step as usize - 1], "step {}", report.step);
            }
            save(&second, resumed.path());
            for file in [WEIGHTS_FILE, OPTIMIZER_FILE, STATE_FILE] {
                assert!(read(straight.path(), file) == read(resumed.path(), file), "{file} differs after a resume");
            }
            if lora.is_none() {
                assert!(validated[3] < validated[0] - 0.1 && losses[39] < losses[0] - 0.3, "{losses:?} {validated:?}");
            }
        }
    }
}

#[test]
fn the_loss_does_not_depend_on_how_a_step_is_cut() {
    tidemill_torch::process::set_threads(1);
    for (config, method) in [(bert(), GUESSING), (t5(), WRITING)] {
        let losses = |batch_size, accumulation, ranks, full_sharding| {
            let spec = Spec { batch_size, accumulation, ranks, full_sharding, ..spec_of(config.clone(), method) };
            let mut all = ranks::among(ranks, |world| {
                let digest = spec.digest("sha256:data", "", "");
                let mut trainer =
                    Trainer::new(spec.clone(), digest, data(&spec), Start::Random, Device::Cpu, world).unwrap();
                (0..5).map(|_| trainer.step().unwrap()).map(|step| (step.loss, step.tokens)).collect::<Vec<_>>()
            });
            all.remove(0)
        };
        let whole = losses(8, 1, 1, false);
        let cuts =
            [(4, 2, 1, false), (1, 8, 1, false), (4, 1, 2, false), (1, 4, 2, false), (4, 1, 2, true), (1, 2, 4, true)];
        for (batch_size, accumulation, ranks, spread) in cuts {
            for (one, other) in whole.iter().zip(losses(batch_size, accumulation, ranks, spread)) {
                assert!((one.0 - other.0).abs() < 1e-6 * one.0.max(1.0) && one.1 == other.1, "{one:?} {other:?}");
            }
        }
    }
}

#[test]
fn blocks_that_run_again_learn_the_same_byte_by_byte() {
    tidemill_torch::process::set_threads(1);
    for (config, method) in [(bert(), GUESSING), (t5(), WRITING)] {
        let [plain, again] = [false, true].map(|activation_checkpointing| {
            let spec = Spec { activation_checkpointing, accumulation: 2, ..spec_of(config.clone(), method) };
            let folder = tempfile::tempdir().unwrap();
            let mut trainer = made(&spec);
            for _ in 0..6 {
                trainer.step().unwrap();
            }
            save(&trainer, folder.path());
            [WEIGHTS_FILE, OPTIMIZER_FILE].map(|file| read(folder.path(), file))
        });
        assert!(plain == again, "{}", config.model_type());
    }
}

#[test]
fn validation_hides_the_same_each_time_and_bfloat16_learns_too() {
    let spec = Spec { precision: Precision::Bfloat16, ..spec_of(bert(), GUESSING) };
    let mut trainer = made(&spec);
    let before = trainer.validate(usize::MAX).unwrap().unwrap();
    assert_eq!(trainer.validate(usize::MAX).unwrap().unwrap(), before);
    for _ in 0..3 {
        trainer.step().unwrap();
    }
    assert_ne!(trainer.validate(usize::MAX).unwrap().unwrap(), before);
    let mut trainer = made(&Spec { precision: Precision::Bfloat16, ..spec_of(t5(), WRITING) });
    let (first, last) = (trainer.step().unwrap().loss, (0..10).map(|_| trainer.step().unwrap().loss).last().unwrap());
    assert!(last < first, "{first} {last}");
}

#[test]
fn an_encoder_follows_a_teacher_of_its_kind() {
    let constants = Distillation { temperature: 2.0, weight: 0.5 };
    let spec = Spec { distillation: Some(constants), ..spec_of(bert(), GUESSING) };
    let teacher = |config| tidemill_models::Model::new(config, 9, Device::Cpu).unwrap();
    let mut trainer = made(&spec).with_teacher(teacher(bert())).unwrap();
    assert!(trainer.step().unwrap().figures["divergence"] > 0.0);
    let error = made(&spec).with_teacher(teacher(llama())).err().unwrap().to_string();
    assert!(error.contains("teacher_model_digest") && error.contains("llama"), "{error}");
    let pairs = Spec { distillation: Some(constants), ..spec_of(t5(), WRITING) };
    assert!(pairs.check().unwrap_err().to_string().contains("sequence_to_sequence"));
}

#[test]
fn a_method_with_another_model_or_other_data_is_refused() {
    let headless = match bert() {
        Config::Bert(config) => Config::Bert(BertConfig { masked_lm: false, pooler: true, ..config }),
        other => other,
    };
    for (config, method, remedy) in [
        (llama(), GUESSING, "llama"),
        (headless, GUESSING, "no such head"),
        (bert(), Method::Language, "use masked_language_modeling"),
        (t5(), Method::Supervised { learn_prompts: false }, "use sequence_to_sequence"),
        (bert(), WRITING, "use masked_language_modeling"),
        (t5(), GUESSING, "use sequence_to_sequence"),
    ] {
        let error = spec_of(config, method).check().unwrap_err().to_string();
        assert!(error.starts_with("method: ") && error.contains(remedy), "{error}");
    }
    let (guessing, writing) = (spec_of(bert(), GUESSING), spec_of(t5(), WRITING));
    let plain = spec(llama(), 1, Precision::Float32);
    let unmasked = || Data::packed(tokens(4_000, 1), None, &guessing).unwrap();
    for (spec, data) in [
        (&guessing, unmasked()),
        (&guessing, data(&writing)),
        (&writing, unmasked()),
        (&plain, data(&guessing)),
        (&plain, data(&writing)),
    ] {
        let made = Trainer::new(spec.clone(), String::new(), data, Start::Random, Device::Cpu, World::alone());
        let error = made.err().unwrap().to_string();
        assert!(error.contains("made for another method"), "{error}");
    }
}
