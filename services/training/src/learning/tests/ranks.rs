//! Several ranks, threads here: what they learn is what one process learns.

use tidemill_torch::ranks::{Ranks, Store};

use super::*;

/// Does the same on several ranks, and gives what each came to.
pub(super) fn among<T: Send>(size: usize, body: impl Fn(World) -> T + Sync) -> Vec<T> {
    if size == 1 {
        return vec![body(World::alone())];
    }
    let store = Store::serve(std::net::Ipv4Addr::LOCALHOST.into()).unwrap();
    let (at, body) = (store.address(), &body);
    std::thread::scope(|scope| {
        let join = move |rank| World::among(Ranks::join(at, at.ip(), rank, size).unwrap());
        let threads: Vec<_> = (0..size).map(|rank| scope.spawn(move || body(join(rank)))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn trainer_among(spec: &Spec, world: World) -> Trainer {
    let data = Data::packed(tokens(4_000, 1), Some(tokens(700, 2)), spec).unwrap();
    Trainer::new(spec.clone(), spec.digest("sha256:data", "", ""), data, Start::Random, Device::Cpu, world).unwrap()
}

/// One global batch of 8, cut into (batch, accumulation, ranks).
pub(super) fn cut(base: &Spec, (batch_size, accumulation, ranks): (usize, usize, usize)) -> Spec {
    Spec { batch_size, accumulation, ranks, ..base.clone() }
}

#[test]
fn the_loss_does_not_depend_on_how_a_global_batch_is_cut() {
    tidemill_torch::process::set_threads(1);
    for muon in [None, Some(0.95)] {
        let base = Spec { muon, ema_decay: 0.9, ..spec(llama(), 1, Precision::Float32) };
        let losses = |shape: (usize, usize, usize)| {
            let run = |world: World| {
                let mut trainer = trainer_among(&cut(&base, shape), world);
                let step = |trainer: &mut Trainer| {
                    let report = trainer.step().unwrap();
                    (report.loss, report.gradient_norm, report.tokens)
                };
                (0..8).map(|_| step(&mut trainer)).collect::<Vec<_>>()
            };
            let mut all = among(shape.2, run);
            let first = all.remove(0);
            assert!(all.iter().all(|other| *other == first), "ranks disagree");
            first
        };
        let whole = losses((8, 1, 1));
        for shape in [(4, 2, 1), (1, 8, 1), (4, 1, 2), (2, 1, 4), (1, 4, 2)] {
            for (step, (one, other)) in whole.iter().zip(losses(shape)).enumerate() {
                let apart = (one.0 - other.0).abs();
                // Muon's iterations in bfloat16 round what differs by little to what differs by more.
                let bound = if muon.is_some() { 1e-4 } else { 1e-6 };
                assert!(apart < bound && one.2 == other.2, "{shape:?}, step {step}: {one:?} and {other:?}");
            }
        }
    }
}

#[test]
fn a_run_of_two_ranks_that_resumes_ends_with_the_same_bytes_and_goes_on_with_one() {
    tidemill_torch::process::set_threads(1);
    let spec = cut(&spec(llama(), 1, Precision::Float32), (4, 1, 2));
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [straight, middle, resumed] = folders.each_ref().map(|folder| folder.path());
    let save = |trainer: &Trainer, folder: &Path| {
        if let Some(checkpoint) = trainer.checkpoint().unwrap() {
            checkpoint.write(folder).unwrap();
        }
    };
    let losses = among(2, |world| {
        let mut trainer = trainer_among(&spec, world);
        let mut losses = Vec::new();
        while !trainer.is_finished() {
            losses.push(trainer.step().unwrap().loss);
            if trainer.steps_done() == 17 {
                save(&trainer, middle);
            }
        }
        save(&trainer, straight);
        losses
    });
    let resume = |size| {
        among(size, |world| {
            let mut trainer = trainer_among(&spec, world);
            trainer.resume(middle).unwrap();
            let mut last = 0.0;
            while !trainer.is_finished() {
                last = trainer.step().unwrap().loss;
            }
            save(&trainer, resumed);
            last
        })
    };
    resume(2);
    for file in [WEIGHTS_FILE, OPTIMIZER_FILE, STATE_FILE] {
        assert!(read(straight, file) == read(resumed, file), "{file} differs after a resume");
    }
    let alone = resume(1)[0];
    assert!((alone - losses[0][39]).abs() < 1e-4, "{alone} and {}", losses[0][39]);
}

#[test]
fn more_ranks_than_micro_batches_are_refused() {
    let spec = cut(&spec(llama(), 1, Precision::Float32), (4, 1, 1));
    let refused = among(2, |world| {
        let data = Data::packed(tokens(4_000, 1), None, &spec).unwrap();
        let made = Trainer::new(spec.clone(), String::new(), data, Start::Random, Device::Cpu, world);
        made.err().unwrap().to_string()
    });
    assert!(refused.iter().all(|error| error.contains("too few for 2 ranks")), "{refused:?}");
}
