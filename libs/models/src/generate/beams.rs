//! Beam search, with the rules of `GenerationMixin._beam_search` in transformers 5: scores are sums of log-probabilities divided by the
//! number of new tokens (length penalty 1), and search ends when no running beam can beat the worst finished one (early stopping off).

use tch::Kind;

use super::State;
use crate::{Model, Result};

/// A sequence of new tokens and the sum of their log-probabilities.
#[derive(Clone)]
struct Beam {
    tokens: Vec<i64>,
    sum: f32,
}

/// Goes on from a prompt with the best of `beams` beams, until a token of `ends` or `most` new ones; gives the new ones.
pub fn beam_search(model: &Model, prompt: &[i64], most: usize, ends: &[i64], beams: usize) -> Result<Vec<i64>> {
    let _guard = tch::no_grad_guard();
    if most == 0 {
        return Ok(Vec::new());
    }
    let beams = beams.max(1);
    let (mut state, mut logits) = State::begin(model, prompt, most)?;
    let mut running = vec![Beam { tokens: Vec::new(), sum: 0.0 }];
    // Best first, with their scores.
    let mut finished: Vec<(f32, Beam)> = Vec::new();
    for length in 1..=most {
        let candidates = candidates(&logits, &running, beams * (ends.len() + 1).max(2))?;
        let done = |beam: &Beam| length == most || beam.tokens.last().is_some_and(|last| ends.contains(last));
        // Only those among the best `beams` may end.
        let ended = candidates.iter().take(beams).filter(|(_, beam)| done(beam));
        finished.extend(ended.map(|(_, beam)| (beam.sum / length as f32, beam.clone())));
        finished.sort_by(|a, b| b.0.total_cmp(&a.0));
        finished.truncate(beams);
        let going: Vec<(i64, Beam)> = candidates.into_iter().filter(|(_, beam)| !done(beam)).take(beams).collect();
        let Some((_, best)) = going.first() else { break };
        let possible = best.sum / length as f32;
        if finished.len() == beams && finished.last().is_some_and(|(worst, _)| possible <= *worst) {
            break;
        }
        state.reorder(&going.iter().map(|(row, _)| *row).collect::<Vec<_>>())?;
        running = going.into_iter().map(|(_, beam)| beam).collect();
        let last: Vec<i64> = running.iter().filter_map(|beam| beam.tokens.last().copied()).collect();
        logits = state.step(&last)?;
    }
    Ok(finished.into_iter().next().map(|(_, beam)| beam.tokens).unwrap_or_default())
}

/// The best continuations by one token, best first, each with the row that it continues.
fn candidates(logits: &tch::Tensor, running: &[Beam], count: usize) -> Result<Vec<(i64, Beam)>> {
    let vocabulary = logits.size()[1];
    let sums: Vec<f32> = running.iter().map(|beam| beam.sum).collect();
    let sums = tch::Tensor::f_from_slice(&sums)?.f_unsqueeze(1)?.f_to_device(logits.device())?;
    let all = logits.f_log_softmax(-1, Kind::Float)?.f_add(&sums)?.f_flatten(0, 1)?;
    let (values, places) = all.f_topk((count as i64).min(all.size()[0]), 0, true, true)?;
    let (values, places) = (Vec::<f32>::try_from(&values)?, Vec::<i64>::try_from(&places)?);
    let beam = |(sum, place): (f32, i64)| {
        let row = place / vocabulary;
        let mut tokens = running[row as usize].tokens.clone();
        tokens.push(place % vocabulary);
        (row, Beam { tokens, sum })
    };
    Ok(values.into_iter().zip(places).map(beam).collect())
}
