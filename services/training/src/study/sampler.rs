//! Chooses the values of the next trial. A choice is a function of the study's seed, the trial's number and the results so far.

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::Rng as _;
use tidemill_proto::training::v1::study::Algorithm;
use tpe::{TpeOptimizer, categorical_range, histogram_estimator, parzen_estimator, range};

use super::space::{Dimension, Space, Values};

/// Trials drawn at random first, where the study does not say.
const STARTUP: usize = 10;

/// The values of trial `number`. `results` are values of other trials, the best first.
pub(super) fn propose(algorithm: &Algorithm, space: &Space, seed: u64, number: usize, results: &[&Values]) -> Values {
    let startup = match algorithm {
        Algorithm::RandomSearch(_) => usize::MAX,
        Algorithm::TreeParzenEstimator(asked) => match usize::try_from(asked.startup_trials) {
            Ok(0) | Err(_) => STARTUP,
            Ok(trials) => trials,
        },
    };
    let each = space.dimensions.iter().map(|dimension| {
        let mut random = generator(seed, number, &dimension.name);
        let coordinate = match results.len() < startup {
            true => uniform(dimension, &mut random),
            false => estimate(dimension, results, &mut random).unwrap_or_else(|| uniform(dimension, &mut random)),
        };
        (dimension.name.clone(), dimension.value(coordinate))
    });
    each.collect()
}

/// Draws of one parameter of one trial.
fn generator(seed: u64, number: usize, name: &str) -> Pcg64Mcg {
    let key = [&seed.to_le_bytes()[..], &(number as u64).to_le_bytes()[..], name.as_bytes()].concat();
    Pcg64Mcg::new(xxhash_rust::xxh3::xxh3_128(&key))
}

fn uniform(dimension: &Dimension, random: &mut Pcg64Mcg) -> f64 {
    let (start, end) = dimension.bounds();
    // 53 bits: every double in [0, 1) that is a multiple of 2^-53.
    let share = (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    (start + share * (end - start)).min(end.next_down())
}

/// TPE's choice; none where the range is beyond what it can work with.
fn estimate(dimension: &Dimension, results: &[&Values], random: &mut Pcg64Mcg) -> Option<f64> {
    let (start, end) = dimension.bounds();
    let mut optimizer = if dimension.is_listed() {
        TpeOptimizer::new(histogram_estimator(), categorical_range(end as usize).ok()?)
    } else {
        TpeOptimizer::new(parzen_estimator(), range(start, end).ok()?)
    };
    // Only the order of results matters to it: trials that were stopped or failed have no figure to compare.
    for (rank, values) in results.iter().enumerate() {
        let coordinate = values.get(&dimension.name).and_then(|value| dimension.coordinate(value))?;
        optimizer.tell(coordinate, rank as f64).ok()?;
    }
    optimizer.ask(random).ok()
}
