//! Several continuations of one prompt, drawn side by side: the prompt is read once, and those that have ended cost nothing.

use tch::Tensor;

use super::State;
use crate::{
    Model, Result,
    sampling::{Sampler, Sampling},
};

/// Draws a continuation of a prompt for each of `seeds`, until a token of `ends` or `most` new ones; gives the new ones. Draws depend on
/// the seed and the place of a token alone.
///
/// # Errors
/// The model gives numbers that nothing can be drawn from.
pub fn sample(
    model: &Model,
    prompt: &[i64],
    most: usize,
    ends: &[i64],
    sampling: Sampling,
    seeds: &[u64],
) -> Result<Vec<Vec<i64>>> {
    let _guard = tch::no_grad_guard();
    let mut drawn = vec![Vec::new(); seeds.len()];
    if most == 0 || seeds.is_empty() {
        return Ok(drawn);
    }
    let mut samplers: Vec<Sampler> = seeds.iter().map(|seed| Sampler::new(sampling, *seed)).collect();
    let (mut state, first) = State::begin(model, prompt, most)?;
    // All go on from the one row that has read the prompt.
    state.reorder(&vec![0; seeds.len()])?;
    let mut logits = rows_of(&first)?.repeat(seeds.len());
    let mut running: Vec<usize> = (0..seeds.len()).collect();
    loop {
        let vocabulary = logits.len() / running.len();
        for (sequence, logits) in running.iter().zip(logits.chunks_exact(vocabulary)) {
            let place = drawn[*sequence].len() as u64;
            drawn[*sequence].push(i64::from(samplers[*sequence].draw(logits, place)?));
        }
        let last = |sequence: usize| drawn[sequence].last().copied().unwrap_or_default();
        let (rows, going): (Vec<i64>, Vec<usize>) = (0i64..)
            .zip(&running)
            .filter(|(_, sequence)| drawn[**sequence].len() < most && !ends.contains(&last(**sequence)))
            .unzip();
        if going.is_empty() {
            return Ok(drawn);
        }
        if going.len() < running.len() {
            state.reorder(&rows)?;
        }
        running = going;
        logits = rows_of(&state.step(&running.iter().map(|sequence| last(*sequence)).collect::<Vec<_>>())?)?;
    }
}

/// Rows of logits end to end.
fn rows_of(logits: &Tensor) -> Result<Vec<f32>> {
    Ok(Vec::try_from(&logits.f_flatten(0, -1)?)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tch::{Device, Kind};

    use super::*;
    use crate::{Attention, generate::greedy, tests::families};

    const GREEDY: Sampling = Sampling { temperature: 0.0, top_k: 0, top_p: 1.0 };

    fn models() -> impl Iterator<Item = Model> {
        families().into_iter().map(|config| Model::new(config, 3, Device::Cpu).unwrap())
    }

    #[test]
    fn draws_side_by_side_are_what_each_is_alone_whenever_the_others_end() {
        let mut lengths = BTreeSet::new();
        for model in models() {
            let (prompt, ends, seeds) = ([5, 9, 30], [7, 11, 40, 52], [1, 2, 3, 4, 5, 6]);
            let together = sample(&model, &prompt, 20, &ends, Sampling::default(), &seeds).unwrap();
            for (seed, drawn) in seeds.into_iter().zip(&together) {
                let alone = sample(&model, &prompt, 20, &ends, Sampling::default(), &[seed]).unwrap();
                assert_eq!(&alone[0], drawn);
                let ended = drawn.last().is_some_and(|last| ends.contains(last));
                assert!(ended || drawn.len() == 20, "{drawn:?}");
                assert!(!drawn[..drawn.len() - 1].iter().any(|token| ends.contains(token)), "{drawn:?}");
            }
            lengths.extend(together.iter().map(Vec::len));
        }
        assert!(lengths.len() > 5, "the test wants answers that end at several places: {lengths:?}");
    }

    #[test]
    fn a_temperature_of_nothing_takes_the_likeliest_tokens() {
        for model in models() {
            let drawn = sample(&model, &[5, 9, 30], 20, &[7], GREEDY, &[1, 2]).unwrap();
            let likeliest = greedy(&model, &[5, 9, 30], 20, &[7]).unwrap();
            assert_eq!(drawn, [likeliest.clone(), likeliest]);
        }
    }

    #[test]
    fn tokens_are_drawn_as_often_as_the_model_says() {
        let (model, temperature) = (models().next().unwrap(), 1.5);
        let seeds: Vec<u64> = (0..4_000).collect();
        let sampling = Sampling { temperature, ..Sampling::default() };
        let drawn = sample(&model, &[5, 9, 30], 1, &[], sampling, &seeds).unwrap();
        let ids = Tensor::from_slice(&[5i64, 9, 30]).unsqueeze(0);
        let logits = model.next(&ids, Attention::Full).unwrap() / temperature;
        let expected: Vec<f32> = Vec::try_from(&logits.softmax(-1, Kind::Float).view([-1])).unwrap();
        let mut found = vec![0.0; expected.len()];
        drawn.iter().for_each(|tokens| found[tokens[0] as usize] += 1.0 / seeds.len() as f32);
        let apart: f32 = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).sum();
        // Of 4,000 draws from 61 tokens about 0.1 is expected.
        assert!(apart < 0.16, "{apart}");
    }
}
