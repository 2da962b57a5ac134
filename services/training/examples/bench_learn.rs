//! nanoGPT's CPU recipe for character-level Shakespeare through the same `Trainer` that jobs use; prints one line of JSON.
//!
//! `bench_learn <text file> [steps] [threads] [seed] [peak learning rate]`; `tests/bench/learn` compares it with PyTorch. The peak is
//! twice nanoGPT's: with its 1e-3, five seeds gave 1.897 to 1.911 over the whole split (its published 1.88 is of random batches); with
//! 2e-3, two seeds gave 1.811 and 1.808, so no choice of a seed decides. The peer takes the same.

use std::{collections::BTreeSet, fs};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};
use tidemill_dataset::{TokenWidth, Tokens};
use tidemill_models::{Activation, Config, Gpt2Config, WEIGHTS_FILE};
use tidemill_training::learning::{
    Data, Decay, Method, Optimizer, Order, Precision, Schedule, Spec, Start, Trainer, World,
};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().context("usage: bench_learn <text file> [steps] [threads] [seed] [peak]")?;
    let steps: u64 = arguments.next().map_or(Ok(2000), |text| text.parse()).context("steps")?;
    let threads: i32 = arguments.next().map_or(Ok(2), |text| text.parse()).context("threads")?;
    let seed: u64 = arguments.next().map_or(Ok(42), |text| text.parse()).context("seed")?;
    let peak: f64 = arguments.next().map_or(Ok(2e-3), |text| text.parse()).context("peak learning rate")?;
    tidemill_torch::process::set_threads(threads);

    let text: Vec<char> = fs::read_to_string(&path).with_context(|| path.clone())?.chars().collect();
    let alphabet: Vec<char> = text.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
    let (train, validation) = text.split_at(text.len() * 9 / 10);
    let tokens = |text: &[char]| {
        let ids = text.iter().map(|character| alphabet.partition_point(|other| other < character) as u16);
        let bytes: Vec<u8> = ids.flat_map(u16::to_le_bytes).collect();
        Tokens::read(vec![bytes.into()], TokenWidth::U16, alphabet.len())
    };

    let spec = Spec {
        config: Config::Gpt2(Gpt2Config {
            vocab_size: alphabet.len() as i64,
            n_embd: 128,
            n_layer: 4,
            n_head: 4,
            n_positions: 64,
            n_inner: None,
            bias: false,
            activation_function: Activation::Gelu,
            layer_norm_epsilon: 1e-5,
            initializer_range: 0.02,
            bos_token_id: None,
            eos_token_id: None,
        }),
        steps,
        batch_size: 12,
        accumulation: 1,
        ranks: 1,
        sequence_length: 64,
        optimizer: Optimizer { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weight_decay: 0.1, int8: false },
        schedule: Schedule { peak, warmup_steps: 100, steps: 2000, final_ratio: 0.1, decay: Decay::Cosine },
        method: Method::Language,
        rewards: Vec::new(),
        distillation: None,
        order: Order::Shuffled,
        lora: None,
        quantized_base: false,
        activation_checkpointing: false,
        full_sharding: false,
        muon: None,
        z_loss: 0.0,
        ema_decay: 0.0,
        clip_norm: 1.0,
        seed,
        precision: Precision::Float32,
        validate_every_steps: u64::MAX,
    };
    let data = Data::packed(tokens(train)?, Some(tokens(validation)?), &spec)?;
    let mut trainer = Trainer::new(spec, String::new(), data, Start::Random, tch::Device::Cpu, World::alone())?;

    // A step's own seconds hold all of it: batch, forward, backward, clipping and update. Validation stands outside, as in the peer.
    let mut seconds = 0.0;
    while !trainer.is_finished() {
        seconds += trainer.step()?.seconds;
    }
    let validation_loss = trainer.validate(usize::MAX)?.context("the validation split is empty")?;
    let directory = tempfile::tempdir()?;
    trainer.gather()?;
    trainer.export(directory.path(), "", false)?;
    let digest = hex::encode(Sha256::digest(fs::read(directory.path().join(WEIGHTS_FILE))?));
    let line = serde_json::json!({
        "steps": steps,
        "seconds": seconds,
        "ms_per_step": seconds / steps as f64 * 1e3,
        "validation_loss": validation_loss,
        "weights": digest,
    });
    println!("{line}");
    Ok(())
}
