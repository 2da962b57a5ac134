//! Weights that are spread over ranks, threads here: what they learn is what one process learns.

use tidemill_models::{Model, read_tensors};

use super::grouped::{CONSTANTS, grouped};
use super::memory::{base, lora};
use super::ranks::{among, cut};
use super::*;

fn begin(spec: &Spec, folder: Option<&Path>, world: World) -> Trainer {
    let data = Data::packed(tokens(4_000, 1), Some(tokens(700, 2)), spec).unwrap();
    let start = folder.map_or(Start::Random, Start::From);
    Trainer::new(spec.clone(), spec.digest("sha256:data", "", ""), data, start, Device::Cpu, world).unwrap()
}

fn spread(base: &Spec, shape: (usize, usize, usize)) -> Spec {
    Spec { full_sharding: true, ..cut(base, shape) }
}

/// Loss, gradient norm and where it was due validation loss of some steps.
fn reports(trainer: &mut Trainer, steps: u64) -> Vec<(f64, f64, Option<f64>)> {
    let report = |trainer: &mut Trainer| {
        let report = trainer.step().unwrap();
        (report.loss, report.gradient_norm, report.validation_loss)
    };
    (0..steps).map(|_| report(trainer)).collect()
}

fn assert_alike(one: &[(f64, f64, Option<f64>)], other: &[(f64, f64, Option<f64>)], bound: f64, what: &str) {
    assert_eq!(one.len(), other.len());
    for (step, (one, other)) in one.iter().zip(other).enumerate() {
        let validated = one.2.zip(other.2).map_or(0.0, |(one, other)| (one - other).abs());
        let apart = (one.0 - other.0).abs().max(validated).max((one.1 - other.1).abs() / one.1 / 10.0);
        assert!(apart < bound, "{what}, step {step}: {one:?} and {other:?}");
    }
}

#[test]
fn spread_weights_learn_what_whole_ones_do() {
    tidemill_torch::process::set_threads(1);
    let plain = |config| Spec { validate_every_steps: 4, ..spec(config, 1, Precision::Float32) };
    let low = Spec { precision: Precision::Bfloat16, ..plain(llama()) };
    let eight = Spec { optimizer: Optimizer { int8: true, ..low.optimizer }, ..plain(llama()) };
    let muon = Spec { muon: Some(0.95), ema_decay: 0.9, z_loss: 1e-4, ..plain(llama()) };
    for (name, base, bound) in
        [("gpt2", plain(gpt2()), 1e-6), ("muon", muon, 1e-4), ("bfloat16", low, 2e-3), ("8 bits", eight, 1e-3)]
    {
        let whole = reports(&mut begin(&cut(&base, (1, 8, 1)), None, World::alone()), 8);
        for shape in [(1, 4, 2), (1, 2, 4)] {
            let all = among(shape.2, |world| reports(&mut begin(&spread(&base, shape), None, world), 8));
            for (rank, own) in all.iter().enumerate() {
                assert_alike(&whole, own, bound, &format!("{name}, {shape:?}, rank {rank}"));
            }
        }
        // Two of the three have three micro-batches, and one has two.
        let uneven = Spec { ranks: 8, accumulation: 1, batch_size: 1, full_sharding: true, ..base.clone() };
        let all = among(3, |world| reports(&mut begin(&uneven, None, world), 8));
        assert_alike(&whole, &all[2], bound, &format!("{name}, 8 micro-batches on 3 ranks"));
    }
}

#[test]
fn a_spread_run_resumes_with_the_same_bytes_goes_on_with_other_ranks_and_ends_as_a_whole_model() {
    tidemill_torch::process::set_threads(1);
    let base = Spec { ema_decay: 0.9, ..spec(llama(), 1, Precision::Float32) };
    let shape = (2, 1, 4);
    let folders = [(); 5].map(|()| tempfile::tempdir().unwrap());
    let [straight, middle, resumed, ended, alone] = folders.each_ref().map(|folder| folder.path());
    let save = |trainer: &Trainer, folder: &Path| {
        if let Some(checkpoint) = trainer.checkpoint().unwrap() {
            checkpoint.write(folder).unwrap();
        }
    };
    let finish = |mut trainer: Trainer, rank: usize, folder: &Path| {
        trainer.gather().unwrap();
        if rank == 0 {
            trainer.export(folder, "", false).unwrap();
        }
    };
    among(4, |world| {
        let mut trainer = begin(&spread(&base, shape), None, world.clone());
        while !trainer.is_finished() {
            trainer.step().unwrap();
            if trainer.steps_done() == 17 {
                save(&trainer, middle);
            }
        }
        save(&trainer, straight);
        finish(trainer, world.rank(), ended);
    });
    let resume = |size: usize, spec: &Spec, folder: &Path| {
        among(size, |world| {
            let mut trainer = begin(spec, None, world.clone());
            trainer.resume(middle).unwrap();
            while !trainer.is_finished() {
                trainer.step().unwrap();
            }
            save(&trainer, resumed);
            finish(trainer, world.rank(), folder);
        });
    };
    let again = tempfile::tempdir().unwrap();
    resume(4, &spread(&base, shape), again.path());
    for file in [WEIGHTS_FILE, OPTIMIZER_FILE, STATE_FILE] {
        assert!(read(straight, file) == read(resumed, file), "{file} differs after a resume");
    }
    assert!(read(ended, WEIGHTS_FILE) == read(again.path(), WEIGHTS_FILE), "the model differs after a resume");
    // Two ranks that spread, and one process that has all, go on from what four wrote.
    for (size, spec) in [(2, spread(&base, shape)), (1, cut(&base, shape))] {
        resume(size, &spec, alone);
        let (one, other) = (read_tensors(&ended.join(WEIGHTS_FILE)), read_tensors(&alone.join(WEIGHTS_FILE)));
        for ((name, one), (_, other)) in one.unwrap().iter().zip(other.unwrap()) {
            let apart = (one - other).abs().max().double_value(&[]);
            assert!(apart < 1e-3, "{name} with {size} ranks: {apart}");
        }
    }
}

#[test]
fn adapters_learn_beside_spread_weights_and_are_merged_into_whole_ones() {
    tidemill_torch::process::set_threads(1);
    let folder = base(&llama());
    let plain = Spec { lora: Some(lora(0.0)), ..spec(llama(), 1, Precision::Float32) };
    let whole = reports(&mut begin(&cut(&plain, (4, 2, 1)), Some(folder.path()), World::alone()), 6);
    for quantized_base in [false, true] {
        let spec = Spec { quantized_base, ..spread(&plain, (4, 1, 2)) };
        let out = tempfile::tempdir().unwrap();
        let all = among(2, |world| {
            let mut trainer = begin(&spec, Some(folder.path()), world.clone());
            let reports = reports(&mut trainer, 6);
            trainer.gather().unwrap();
            if world.rank() == 0 {
                trainer.export(out.path(), "base", true).unwrap();
            }
            reports
        });
        // Four bits are another model; by little.
        assert_alike(&whole, &all[1], if quantized_base { 2e-2 } else { 1e-6 }, "adapter");
        let merged: Model = tidemill_models::load(out.path(), Device::Cpu).unwrap();
        assert!(merged.adapter().is_none());
    }
}

#[test]
fn a_rank_keeps_its_part_of_weights_and_gradients_alone() {
    let size = 4;
    let spec = spread(&spec(llama(), 1, Precision::Float32), (1, 2, size));
    let kept = among(size, |world| {
        let mut trainer = begin(&spec, None, world);
        reports(&mut trainer, 2);
        let bytes = |parameter: &tidemill_models::Parameter| tidemill_torch::storage::size(&parameter.tensor);
        let kept: usize = trainer.model().parameters().iter().map(bytes).sum();
        let gradients = trainer.model().parameters().iter().filter(|parameter| parameter.tensor.grad().defined());
        assert_eq!(gradients.count(), 0);
        (kept, 4 * trainer.model().parameter_count() as usize)
    });
    let all = kept[0].1;
    assert_eq!(kept.iter().map(|(own, _)| own).sum::<usize>(), all, "every weight has one owner");
    assert!(kept.iter().all(|(own, _)| *own < all / 2), "{kept:?} of {all}");
}

#[test]
fn methods_that_write_texts_are_refused_by_name() {
    let grouped = Spec { full_sharding: true, ..grouped(CONSTANTS) };
    let refused = grouped.check().unwrap_err().to_string();
    assert!(refused.contains("sharding: FULL is not for group_relative_policy_optimization"), "{refused}");
}
