//! Draws the next token from a row of logits.
//!
//! Filters apply in the order of Hugging Face's generation: temperature, top-k, top-p. Every draw is keyed by (seed, position), so a
//! sequence depends on nothing but its own seed and logits, however requests are mixed.

/// How tokens are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by this; 0 takes the most likely token (the lowest id among equals).
    pub temperature: f64,
    /// Only so many of the most likely tokens are kept; 0 keeps all.
    pub top_k: usize,
    /// Only the smallest set of most likely tokens whose probability reaches this is kept; 1 keeps all.
    pub top_p: f64,
}

impl Default for Sampling {
    /// The model's own distribution.
    fn default() -> Self {
        Self { temperature: 1.0, top_k: 0, top_p: 1.0 }
    }
}

/// The model answered with numbers that no token can be drawn from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the model's logits hold {0}; its weights are not usable")]
pub struct BadLogits(&'static str);

/// Draws the tokens of one sequence.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    seed: u64,
    /// Kept between tokens so that a draw allocates nothing: (id, weight).
    candidates: Vec<(u32, f64)>,
}

impl Sampler {
    /// A sampler of one sequence.
    pub fn new(sampling: Sampling, seed: u64) -> Self {
        Self { sampling, seed, candidates: Vec::new() }
    }

    /// Draws the token at `position` (counted from 0 at the first token drawn) from one logit a token id.
    ///
    /// # Errors
    /// A logit is NaN or infinite, or none is left; minus infinity means "never", which is fine.
    pub fn draw(&mut self, logits: &[f32], position: u64) -> Result<u32, BadLogits> {
        let (best, most) = best(logits)?;
        if self.sampling.temperature <= 0.0 {
            return Ok(best);
        }
        // Weights relative to the best token: it has 1, so nothing overflows at any temperature.
        let weight = |logit: f32| ((f64::from(logit) - most) / self.sampling.temperature).exp();
        let candidates = &mut self.candidates;
        candidates.clear();
        candidates
            .extend((0u32..).zip(logits).map(|(id, logit)| (id, weight(*logit))).filter(|(_, weight)| *weight > 0.0));
        keep_top_k(candidates, self.sampling.top_k);
        keep_top_p(candidates, self.sampling.top_p);
        let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
        let mut left = uniform(self.seed, position) * total;
        for (id, weight) in candidates.iter() {
            left -= weight;
            if left < 0.0 {
                return Ok(*id);
            }
        }
        // Rounding can leave a rest above the last weight.
        Ok(candidates.last().map_or(best, |(id, _)| *id))
    }
}

fn best(logits: &[f32]) -> Result<(u32, f64), BadLogits> {
    let mut best = None;
    for (id, &logit) in (0u32..).zip(logits) {
        if logit.is_nan() {
            return Err(BadLogits("NaN"));
        }
        if logit == f32::INFINITY {
            return Err(BadLogits("infinity"));
        }
        if logit > best.map_or(f32::NEG_INFINITY, |(_, most)| most) {
            best = Some((id, logit));
        }
    }
    best.map(|(id, most)| (id, f64::from(most))).ok_or(BadLogits("no token that may follow"))
}

/// More likely first, then the lower id.
fn by_weight(a: &(u32, f64), b: &(u32, f64)) -> std::cmp::Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

fn keep_top_k(candidates: &mut Vec<(u32, f64)>, top_k: usize) {
    if top_k > 0 && top_k < candidates.len() {
        candidates.select_nth_unstable_by(top_k - 1, by_weight);
        candidates.truncate(top_k);
        // The selection leaves an order of its own making: sort, so that a draw means the same in every version of it.
        candidates.sort_unstable_by(by_weight);
    }
}

fn keep_top_p(candidates: &mut Vec<(u32, f64)>, top_p: f64) {
    if top_p >= 1.0 {
        return;
    }
    candidates.sort_unstable_by(by_weight);
    let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
    let mut sum = 0.0;
    let kept = candidates.iter().position(|(_, weight)| {
        sum += weight;
        sum >= top_p * total
    });
    candidates.truncate(kept.map_or(candidates.len(), |last| last + 1));
}

/// A number in [0, 1) that depends on its key alone: SplitMix64's finaliser over the seed's own stream.
fn uniform(seed: u64, position: u64) -> f64 {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let stream = mix(seed.wrapping_add(GOLDEN));
    let bits = mix(stream.wrapping_add(position.wrapping_add(1).wrapping_mul(GOLDEN)));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests;
