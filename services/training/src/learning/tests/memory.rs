//! What saves memory: weights in four bits, moments in eight, blocks that run again.

use tidemill_models::{ADAPTER_WEIGHTS_FILE, LoraConfig, Model, read_tensors};

use super::{ranks::among, *};

/// Whether this process runs that test alone. If not, another one does: torch's generator belongs to a process, and every step of every
/// test seeds it.
fn alone(test: &str) -> bool {
    const MARK: &str = "TIDEMILL_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let mut own = std::process::Command::new(std::env::current_exe().unwrap());
    let name = format!("learning::tests::memory::{test}");
    let out = own.args([&name, "--exact"]).env(MARK, "1").output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.contains("1 passed"), "{text}");
    false
}

pub(super) fn lora(dropout: f64) -> LoraConfig {
    LoraConfig { r: 4, alpha: 8.0, dropout, target_modules: Vec::new(), use_rslora: false, use_dora: false }
}

/// A model in a folder to start from.
pub(super) fn base(config: &Config) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    tidemill_models::save(&Model::new(config.clone(), 3, Device::Cpu).unwrap(), folder.path()).unwrap();
    folder
}

pub(super) fn from(spec: &Spec, folder: &Path) -> Trainer {
    let data = Data::packed(tokens(4_000, 1), Some(tokens(700, 2)), spec).unwrap();
    let digest = spec.digest("sha256:data", "sha256:base", "");
    Trainer::new(spec.clone(), digest, data, Start::From(folder), Device::Cpu, World::alone()).unwrap()
}

pub(super) fn steps(trainer: &mut Trainer, count: u64) -> Vec<f64> {
    (0..count).map(|_| trainer.step().unwrap().loss).collect()
}

/// The files of a checkpoint.
fn files(trainer: &Trainer) -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    save(trainer, folder.path());
    [WEIGHTS_FILE, OPTIMIZER_FILE, STATE_FILE].map(|file| read(folder.path(), file)).to_vec()
}

/// Trains to step 12, once straight and once from a checkpoint of step 5, and gives the losses of the former and the files at its end.
pub(super) fn resumed(make: &dyn Fn() -> Trainer) -> (Vec<f64>, Vec<Vec<u8>>) {
    let folder = tempfile::tempdir().unwrap();
    let mut first = make();
    let mut losses = steps(&mut first, 5);
    save(&first, folder.path());
    losses.extend(steps(&mut first, 7));
    let mut second = make();
    second.resume(folder.path()).unwrap();
    assert_eq!(steps(&mut second, 7), losses[5..]);
    let ends = files(&first);
    assert!(ends == files(&second), "a resumed run ends with other bytes");
    (losses, ends)
}

#[test]
fn blocks_that_run_again_give_the_same_run_byte_by_byte() {
    if !alone("blocks_that_run_again_give_the_same_run_byte_by_byte") {
        return;
    }
    tidemill_torch::process::set_threads(1);
    let cases = [
        (llama(), Precision::Float32),
        (llama(), Precision::Bfloat16),
        (gpt2(), Precision::Float32),
        (llama(), Precision::Fp8),
        (gpt2(), Precision::Fp8),
    ];
    for (config, precision) in cases {
        let plain = Spec { sequence_length: 30, ..spec(config, 2, precision) };
        let again = Spec { activation_checkpointing: true, ..plain.clone() };
        assert_eq!(plain.digest("", "", ""), again.digest("", "", ""));
        let run = |spec: &Spec| {
            let mut trainer = trainer(spec);
            steps(&mut trainer, 6);
            files(&trainer)
        };
        assert!(run(&plain) == run(&again));
        let folder = base(&plain.config);
        let run = |again: bool| {
            let spec = Spec { lora: Some(lora(0.2)), activation_checkpointing: again, ..plain.clone() };
            let mut trainer = from(&spec, folder.path());
            steps(&mut trainer, 6);
            files(&trainer)
        };
        assert!(run(false) == run(true));
    }
}

#[test]
fn blocks_that_run_again_sum_their_gradients_over_ranks() {
    tidemill_torch::process::set_threads(1);
    let folder = base(&llama());
    let run = |lora: Option<LoraConfig>, again: bool| {
        let spec = Spec { ranks: 2, lora, activation_checkpointing: again, ..spec(llama(), 2, Precision::Float32) };
        let all = among(2, |world| {
            let data = Data::packed(tokens(4_000, 1), None, &spec).unwrap();
            let start = Start::From(folder.path());
            let mut trainer = Trainer::new(spec.clone(), String::new(), data, start, Device::Cpu, world).unwrap();
            let report = |trainer: &mut Trainer| {
                let report = trainer.step().unwrap();
                (report.loss, report.gradient_norm)
            };
            (0..5).map(|_| report(&mut trainer)).collect::<Vec<_>>()
        });
        assert_eq!(all[0], all[1]);
        all
    };
    // Ranks are threads here, which share a generator: nothing is dropped.
    for lora in [None, Some(lora(0.0))] {
        assert_eq!(run(lora.clone(), false), run(lora, true));
    }
}

fn int8(spec: Spec) -> Spec {
    Spec { optimizer: Optimizer { int8: true, ..spec.optimizer }, ..spec }
}

#[test]
fn moments_in_8_bits_resume_byte_by_byte_and_learn_as_those_in_float32() {
    tidemill_torch::process::set_threads(1);
    for config in [llama(), gpt2()] {
        let float32 = spec(config, 1, Precision::Float32);
        let small = int8(float32.clone());
        assert_ne!(small.digest("", "", ""), float32.digest("", "", ""));
        let (_, ends) = resumed(&|| trainer(&small));
        let mut whole = trainer(&float32);
        steps(&mut whole, 12);
        let moments = files(&whole)[1].len();
        assert!(ends[1].len() < moments * 3 / 4, "{} bytes of moments, of {moments}", ends[1].len());
        // Each loss within 2 % of float32's, and the last ten within 1 % on average.
        let (mut whole, mut small) = (trainer(&float32), trainer(&small));
        let apart: Vec<f64> =
            steps(&mut whole, 40).iter().zip(steps(&mut small, 40)).map(|(a, b)| (a - b).abs() / a).collect();
        assert!(apart.iter().all(|apart| *apart < 0.02), "{apart:?}");
        assert!(apart[30..].iter().sum::<f64>() / 10.0 < 0.01, "{apart:?}");
    }
}

#[test]
fn moments_in_8_bits_are_kept_by_their_owners_and_go_on_with_other_ranks() {
    tidemill_torch::process::set_threads(1);
    let spec = Spec { ranks: 2, ..int8(spec(llama(), 1, Precision::Float32)) };
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let run = |size: usize, from: Option<&Path>, into: Option<&Path>, count: u64| {
        among(size, |world| {
            let data = Data::packed(tokens(4_000, 1), None, &spec).unwrap();
            let digest = spec.digest("sha256:data", "", "");
            let mut trainer = Trainer::new(spec.clone(), digest, data, Start::Random, Device::Cpu, world).unwrap();
            if let Some(folder) = from {
                trainer.resume(folder).unwrap();
            }
            let losses = steps(&mut trainer, count);
            if let (Some(checkpoint), Some(folder)) = (trainer.checkpoint().unwrap(), into) {
                checkpoint.write(folder).unwrap();
            }
            losses
        })
        .remove(0)
    };
    let [middle, end] = folders.each_ref().map(|folder| Some(folder.path()));
    run(2, None, middle, 5);
    let straight = run(2, middle, end, 5);
    let alone = run(1, middle, end, 5);
    assert!(straight.iter().zip(&alone).all(|(a, b)| (a - b).abs() < 1e-4), "{straight:?} and {alone:?}");
    let moments = read_tensors(&folders[0].path().join(OPTIMIZER_FILE)).unwrap();
    let kinds = |kind| moments.values().filter(|tensor| tensor.kind() == kind).count();
    assert!(kinds(tch::Kind::Uint8) >= 4 && kinds(tch::Kind::Float) > kinds(tch::Kind::Uint8));
}

#[test]
fn an_adapter_beside_four_bits_learns_resumes_and_is_merged_into_whole_weights() {
    if !alone("an_adapter_beside_four_bits_learns_resumes_and_is_merged_into_whole_weights") {
        return;
    }
    tidemill_torch::process::set_threads(1);
    for (config, precision) in [(llama(), Precision::Float32), (gpt2(), Precision::Bfloat16)] {
        let folder = base(&config);
        let whole = Spec { lora: Some(lora(0.1)), ..spec(config, 1, precision) };
        let spec = Spec { quantized_base: true, ..whole.clone() };
        assert_ne!(whole.digest("", "", ""), spec.digest("", "", ""));
        let (losses, _) = resumed(&|| from(&spec, folder.path()));
        assert!(losses[11] < losses[0], "nothing was learned: {losses:?}");
        let train = || {
            let mut trainer = from(&spec, folder.path());
            steps(&mut trainer, 12);
            trainer
        };
        let [adapter, merged] = [false, true].map(|merge| {
            let out = tempfile::tempdir().unwrap();
            train().export(out.path(), "base", merge).unwrap();
            out
        });
        assert!(adapter.path().join(ADAPTER_WEIGHTS_FILE).exists());
        let mut wanted = tidemill_models::load_adapted(folder.path(), adapter.path(), Device::Cpu).unwrap();
        wanted.merge_adapter().unwrap();
        let found = read_tensors(&merged.path().join(WEIGHTS_FILE)).unwrap();
        for (name, tensor) in wanted.base_tensors().unwrap() {
            assert!(found[&name].equal(&tensor), "{name}");
        }
    }
}

#[test]
fn a_preference_begins_at_ln_2_beside_four_bits_and_without_an_adapter_they_are_refused() {
    let folder = base(&llama());
    let answer = |last: u32| Sequence {
        inputs: vec![1, 2, 3, last].into(),
        targets: vec![IGNORED as i32, IGNORED as i32, last as i32, 0].into(),
    };
    let method = Method::Preference { beta: 0.1, loss: PreferenceLoss::Sigmoid, label_smoothing: 0.0 };
    let spec = Spec { method, lora: Some(lora(0.0)), quantized_base: true, ..spec(llama(), 1, Precision::Float32) };
    let start = |spec: &Spec| {
        let rows = (0..8).map(|nth| Row::Pair([answer(10 + nth), answer(20 + nth)])).collect();
        let rows = Rows::new(rows, Order::Shuffled, 1, 32).unwrap();
        let data = Data { train: Train::Rows(rows), validation: Validation::None };
        Trainer::new(spec.clone(), String::new(), data, Start::From(folder.path()), Device::Cpu, World::alone())
    };
    let mut trainer = start(&spec).unwrap();
    let losses = steps(&mut trainer, 10);
    assert!((losses[0] - std::f64::consts::LN_2).abs() < 1e-6, "{losses:?}");
    assert!(losses[9] < losses[0] - 0.02, "{losses:?}");
    let error = start(&Spec { lora: None, ..spec }).err().unwrap().to_string();
    assert!(error.contains("lora.quantization"), "{error}");
}
