use super::*;

const LOGITS: [f32; 6] = [0.0, 2.0, -1.0, 2.5, 1.0, f32::NEG_INFINITY];

fn counts(sampling: Sampling, seed: u64, draws: u64) -> [u64; 6] {
    let mut sampler = Sampler::new(sampling, seed);
    let mut counts = [0; 6];
    for position in 0..draws {
        counts[sampler.draw(&LOGITS, position).unwrap() as usize] += 1;
    }
    counts
}

/// Probabilities at a temperature, with only `kept` ids.
fn probabilities(temperature: f64, kept: &[usize]) -> [f64; 6] {
    let mut weights = [0.0; 6];
    for id in kept {
        weights[*id] = (f64::from(LOGITS[*id]) / temperature).exp();
    }
    let total: f64 = weights.iter().sum();
    weights.map(|weight| weight / total)
}

fn chi_square(counts: &[u64; 6], expected: &[f64; 6]) -> f64 {
    let draws: u64 = counts.iter().sum();
    let mut sum = 0.0;
    for (count, probability) in counts.iter().zip(expected) {
        let mean = probability * draws as f64;
        if mean == 0.0 {
            assert_eq!(*count, 0, "a token of probability 0 was drawn");
        } else {
            sum += (*count as f64 - mean).powi(2) / mean;
        }
    }
    sum
}

#[test]
fn draws_follow_the_distribution() {
    // The 99.9 % quantile of chi-square with 4 degrees of freedom is 18.47.
    for (temperature, seed) in [(1.0, 1), (0.5, 2), (2.0, 3)] {
        let sampling = Sampling { temperature, ..Sampling::default() };
        let statistic = chi_square(&counts(sampling, seed, 50_000), &probabilities(temperature, &[0, 1, 2, 3, 4]));
        assert!(statistic < 18.47, "temperature {temperature}: chi-square {statistic}");
    }
}

#[test]
fn seeds_are_independent_of_each_other() {
    let mut pairs = [0u64; 4];
    for seed in 0..40_000 {
        let bit = |seed| usize::from(uniform(seed, 0) >= 0.5);
        pairs[bit(seed) * 2 + bit(seed + 1)] += 1;
    }
    let statistic: f64 = pairs.iter().map(|count| (*count as f64 - 10_000.0).powi(2) / 10_000.0).sum();
    assert!(statistic < 16.27, "chi-square {statistic} of neighbouring seeds: {pairs:?}");
}

#[test]
fn top_k_keeps_the_most_likely_and_renormalises() {
    let sampling = Sampling { top_k: 2, ..Sampling::default() };
    let statistic = chi_square(&counts(sampling, 5, 20_000), &probabilities(1.0, &[1, 3]));
    assert!(statistic < 10.83, "chi-square {statistic}");
}

#[test]
fn top_p_keeps_the_smallest_set_that_reaches_it() {
    let all = probabilities(1.0, &[0, 1, 2, 3, 4]);
    let edge = all[3] + all[1];
    for (top_p, kept) in [
        (1e-9, &[3][..]),
        (all[3] - 1e-9, &[3]),
        (all[3] + 1e-9, &[3, 1]),
        (edge - 1e-9, &[3, 1]),
        (edge + 1e-9, &[3, 1, 4]),
        (1.0 - 1e-9, &[3, 1, 4, 0, 2]),
        (1.0, &[3, 1, 4, 0, 2]),
    ] {
        let sampling = Sampling { top_p, ..Sampling::default() };
        let counts = counts(sampling, 7, 20_000);
        let drawn: Vec<usize> = (0..6).filter(|id| counts[*id] > 0).collect();
        let mut kept = kept.to_vec();
        kept.sort_unstable();
        assert_eq!(drawn, kept, "top_p {top_p}");
    }
}

#[test]
fn top_p_counts_within_what_top_k_left() {
    // Of {3, 1} alone token 3 has 0.62: with top-k first, top-p 0.6 leaves only it; of all tokens it has 0.53.
    let sampling = Sampling { top_k: 2, top_p: 0.6, ..Sampling::default() };
    assert_eq!(counts(sampling, 9, 1000)[3], 1000);
}

#[test]
fn temperature_zero_takes_the_best_and_the_lowest_id_among_equals() {
    let mut sampler = Sampler::new(Sampling { temperature: 0.0, ..Sampling::default() }, 1);
    assert_eq!(sampler.draw(&LOGITS, 0), Ok(3));
    assert_eq!(sampler.draw(&[1.0, 4.0, 4.0], 0), Ok(1));
    assert_eq!(sampler.draw(&[-3.0; 5], 9), Ok(0));
}

#[test]
fn equal_logits_are_cut_by_id() {
    let mut sampler = Sampler::new(Sampling { top_k: 3, ..Sampling::default() }, 4);
    for position in 0..500 {
        assert!(sampler.draw(&[1.0; 50], position).unwrap() < 3);
    }
}

#[test]
fn a_draw_depends_on_seed_and_position_alone() {
    let sampling = Sampling { temperature: 1.3, top_k: 4, top_p: 0.97 };
    let mut one = Sampler::new(sampling, 42);
    let forward: Vec<u32> = (0..64).map(|position| one.draw(&LOGITS, position).unwrap()).collect();
    let mut other = Sampler::new(sampling, 42);
    let mut backward: Vec<u32> = (0..64).rev().map(|position| other.draw(&LOGITS, position).unwrap()).collect();
    backward.reverse();
    assert_eq!(forward, backward);
    let mut another = Sampler::new(sampling, 43);
    assert_ne!(forward, (0..64).map(|position| another.draw(&LOGITS, position).unwrap()).collect::<Vec<_>>());
}

#[test]
fn the_draws_of_a_seed_never_change_between_versions() {
    // Receipts promise that a seed reproduces an answer: changing these numbers breaks that promise.
    let mut sampler = Sampler::new(Sampling::default(), 2026);
    let drawn: Vec<u32> = (0..16).map(|position| sampler.draw(&LOGITS, position).unwrap()).collect();
    assert_eq!(drawn, [3, 0, 1, 1, 3, 3, 3, 3, 3, 1, 1, 3, 4, 1, 1, 1]);
}

#[test]
fn logits_that_are_no_numbers_are_an_error() {
    for (logits, word) in
        [([1.0, f32::NAN], "NaN"), ([f32::INFINITY, 0.0], "infinity"), ([f32::NEG_INFINITY; 2], "no token")]
    {
        for temperature in [0.0, 1.0] {
            let mut sampler = Sampler::new(Sampling { temperature, ..Sampling::default() }, 1);
            let message = sampler.draw(&logits, 0).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }
    assert!(Sampler::new(Sampling::default(), 1).draw(&[], 0).is_err());
}

#[test]
fn extreme_logits_and_temperatures_are_drawn_from() {
    for temperature in [1e-9, 1e-3, 2.0, 1e9] {
        let mut sampler = Sampler::new(Sampling { temperature, ..Sampling::default() }, 6);
        assert!(sampler.draw(&[f32::MAX, -f32::MAX, 0.0], 3).unwrap() < 3);
    }
}
