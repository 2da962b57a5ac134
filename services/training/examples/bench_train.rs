//! Training steps that `make bench-train` times beside PyTorch, through the same `Trainer` that jobs use; each prints one line of JSON.
//!
//! - `bench_train adapter <model folder> <steps> <threads> [nf4] [recompute]`: LoRA on a Hugging Face directory, on the CPU, float32.
//! - `bench_train whole <model folder> <steps> <threads> [int8] [recompute]`: all weights of it.
//! - `bench_train gpt <steps>`: GPT 354M from its first weights, on the GPU, bfloat16.
//! - `bench_train checkpoint <model folder> <steps> <threads>`: what a checkpoint of a full fine-tuning costs the steps meanwhile.
//! - `bench_train tokens <model folder> <text file>`: tokenising a text and filling batches of it, on one thread.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use tidemill_artifacts::Artifacts;
use tidemill_dataset::{TokenWidth, Tokens};
use tidemill_models::{Activation, Config, Gpt2Config, LoraConfig, read_config};
use tidemill_text::Tokenizer;
use tidemill_training::learning::{
    Data, Decay, Method, Optimizer, Order, Packed, Precision, Samples, Schedule, Spec, Start, Train, Trainer,
    Validation, World,
};

/// Steps before the clock starts.
const WARM_UP: u64 = 3;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let parts: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let line = match parts[..] {
        [what @ ("adapter" | "whole"), folder, steps, threads, ref savers @ ..] => {
            tidemill_torch::process::set_threads(threads.parse()?);
            tune(Path::new(folder), steps.parse()?, what == "adapter", savers)?
        }
        ["gpt", steps] => gpt(steps.parse()?)?,
        ["checkpoint", folder, steps, threads] => {
            tidemill_torch::process::set_threads(threads.parse()?);
            checkpoint(Path::new(folder), steps.parse()?)?
        }
        ["tokens", folder, text] => tokens(Path::new(folder), Path::new(text))?,
        _ => bail!(
            "usage: bench_train adapter|whole FOLDER STEPS THREADS [SAVER].. | gpt STEPS | checkpoint FOLDER STEPS THREADS | tokens FOLDER TEXT"
        ),
    };
    println!("{line}");
    Ok(())
}

/// LoRA on all linear layers or the whole model, 4 x 256 tokens a step.
fn tune(folder: &Path, steps: u64, adapter: bool, savers: &[&str]) -> Result<serde_json::Value> {
    let mut spec = spec(read_config(folder)?, steps, (4, 256), Precision::Float32);
    spec.lora = adapter.then(|| LoraConfig {
        r: 16,
        alpha: 32.0,
        dropout: 0.0,
        target_modules: Vec::new(),
        use_rslora: false,
        use_dora: false,
    });
    spec.quantized_base = savers.contains(&"nf4");
    spec.optimizer.int8 = savers.contains(&"int8");
    spec.activation_checkpointing = savers.contains(&"recompute");
    time(spec, Start::From(folder), tch::Device::Cpu)
}

/// 24 layers of width 1024, 16 x 1024 tokens a step.
fn gpt(steps: u64) -> Result<serde_json::Value> {
    let config = Config::Gpt2(Gpt2Config {
        vocab_size: 50304,
        n_embd: 1024,
        n_layer: 24,
        n_head: 16,
        n_positions: 1024,
        n_inner: None,
        bias: false,
        activation_function: Activation::GeluNew,
        layer_norm_epsilon: 1e-5,
        initializer_range: 0.02,
        bos_token_id: None,
        eos_token_id: None,
    });
    let selection = tidemill_torch::device::select();
    if !selection.device.is_cuda() {
        bail!("{}", selection.reason);
    }
    selection.warnings.iter().for_each(|warning| eprintln!("{warning}"));
    time(spec(config, steps, (16, 1024), Precision::Bfloat16), Start::Random, selection.device)
}

fn spec(config: Config, steps: u64, (batch_size, sequence_length): (usize, usize), precision: Precision) -> Spec {
    Spec {
        config,
        steps: steps + WARM_UP,
        batch_size,
        accumulation: 1,
        ranks: 1,
        sequence_length,
        optimizer: Optimizer { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1, int8: false },
        schedule: Schedule { peak: 1e-4, warmup_steps: 0, steps, final_ratio: 1.0, decay: Decay::Constant },
        method: Method::Language,
        rewards: Vec::new(),
        distillation: None,
        order: Order::Sequential,
        lora: None,
        quantized_base: false,
        muon: None,
        z_loss: 0.0,
        ema_decay: 0.0,
        clip_norm: 1.0,
        seed: 1,
        precision,
        activation_checkpointing: false,
        full_sharding: false,
        validate_every_steps: u64::MAX,
    }
}

fn time(spec: Spec, start: Start<'_>, device: tch::Device) -> Result<serde_json::Value> {
    let tokens = spec.batch_size * spec.sequence_length;
    let mut trainer = begun(spec, start, device)?;
    let (mut first, mut last, mut seconds) = (f64::NAN, f64::NAN, Vec::new());
    while !trainer.is_finished() {
        // Reading the loss waits for the device.
        let step = trainer.step()?;
        if step.step == 1 {
            first = step.loss;
        }
        last = step.loss;
        seconds.push(step.seconds);
    }
    let median = median(&mut seconds[WARM_UP as usize..]);
    let on_gpu = tidemill_torch::device::peak_memory(device)?;
    Ok(serde_json::json!({
        "ms_per_step": median * 1e3,
        "tokens_per_second": tokens as f64 / median,
        "first_loss": first,
        "last_loss": last,
        "peak_mib": on_gpu.map_or_else(|| mib("VmHWM:"), |peak| Ok(peak.allocated as f64 / (1 << 20) as f64))?,
        "end_mib": mib("VmRSS:")?,
    }))
}

/// The time that steps wait for a copy of the state, and by how much they are slower while it is written.
fn checkpoint(folder: &Path, steps: u64) -> Result<serde_json::Value> {
    let spec = spec(read_config(folder)?, steps * 100, (2, 256), Precision::Float32);
    let mut trainer = begun(spec, Start::From(folder), tch::Device::Cpu)?;
    let mut seconds = (0..steps + WARM_UP).map(|_| Ok(trainer.step()?.seconds)).collect::<Result<Vec<_>>>()?;
    let usual = median(&mut seconds[WARM_UP as usize..]);
    let target = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let store = format!("file://{}/artifacts", target.path().display());
    let artifacts = runtime.block_on(Artifacts::connect(&store))?;
    let (mut copying, mut lost) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let began = Instant::now();
        let state = trainer.checkpoint()?.context("one rank has the whole state")?;
        copying.push(began.elapsed().as_secs_f64());
        let mut slower = 0.0;
        let (artifacts, runtime, folder) = (&artifacts, &runtime, target.path().join("written"));
        std::thread::scope(|scope| {
            // Written and stored, as the worker does it.
            let writing = scope.spawn(move || -> Result<()> {
                std::fs::create_dir_all(&folder)?;
                state.write(&folder)?;
                runtime.block_on(artifacts.take_directory(&folder, "checkpoint", vec![], BTreeMap::new()))?;
                Ok(())
            });
            while !writing.is_finished() {
                slower += trainer.step()?.seconds - usual;
            }
            writing.join().expect("the writer does not panic")
        })?;
        lost.push(copying[copying.len() - 1] + slower.max(0.0));
    }
    let (copying, lost) = (median(&mut copying), median(&mut lost));
    Ok(serde_json::json!({ "ms_per_step": usual * 1e3, "copy_ms": copying * 1e3, "lost_ms": lost * 1e3 }))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Windows that are all alike, and go on where they began; the peer's are the same, so that first losses can be compared.
struct Alike(Vec<i64>);

impl Samples for Alike {
    fn fill(&self, _position: u64, inputs: &mut [i64], targets: &mut [i64]) {
        inputs.copy_from_slice(&self.0);
        targets.copy_from_slice(&self.0);
        targets.rotate_left(1);
    }
}

/// A run over such windows.
fn begun(spec: Spec, start: Start<'_>, device: tch::Device) -> Result<Trainer> {
    let vocabulary = match &spec.config {
        Config::Gpt2(config) => config.vocab_size,
        Config::Llama(config) => config.vocab_size,
        _ => bail!("only decoders are timed"),
    };
    let ids = (0..spec.sequence_length as i64).map(|at| (at * 7919 + 13) % vocabulary).collect();
    let data = Data { train: Train::Windows(Box::new(Alike(ids))), validation: Validation::None };
    Ok(Trainer::new(spec, String::new(), data, start, device, World::alone())?)
}

/// Tokens a second of one thread.
fn tokens(folder: &Path, text: &Path) -> Result<serde_json::Value> {
    let tokenizer = Tokenizer::from_bytes(&std::fs::read(folder.join("tokenizer.json"))?)?;
    let text = std::fs::read_to_string(text)?;
    // Documents, as preprocessing meets them.
    let documents: Vec<&str> = text.split_inclusive("\n\n").collect();
    let began = Instant::now();
    let mut ids = Vec::new();
    for document in documents {
        ids.extend(tokenizer.encode(document)?);
    }
    let encoded = ids.len() as f64 / began.elapsed().as_secs_f64();
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let tokens = Tokens::read(vec![bytes.into()], TokenWidth::U32, tokenizer.vocabulary_size())?;
    let window = 1024;
    let packed = Packed::new(tokens, window, 1)?;
    let (mut inputs, mut targets) = (vec![0; window], vec![0; window]);
    let (began, windows) = (Instant::now(), 20_000);
    for position in 0..windows {
        packed.fill(position, &mut inputs, &mut targets);
    }
    let packed = windows as f64 * window as f64 / began.elapsed().as_secs_f64();
    Ok(serde_json::json!({ "encoded_per_second": encoded, "packed_per_second": packed, "tokens": ids.len() }))
}

/// Memory of this process: the most that it had, or what it has.
fn mib(which: &'static str) -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(which)).context(which)?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<f64>()? / 1024.0)
}
