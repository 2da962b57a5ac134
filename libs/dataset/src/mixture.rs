//! Several datasets as one sequence of samples: which comes from which is a pure function of the position, so that one number resumes a run.

use crate::Error;

/// Samples to a round, in which every source has its share.
const ROUND: u64 = 1000;

/// Interleaves sources by weight, as evenly as whole samples can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mixture {
    /// For each place of a round: the source, and how many of it came before in the round.
    places: Vec<(usize, u64)>,
    counts: Vec<u64>,
}

impl Mixture {
    /// Sources of these weights, of which only proportions matter. Every source has at least one sample in a thousand.
    ///
    /// # Errors
    /// No weight, more than a thousand, or one that is not a positive number.
    pub fn new(weights: &[f64]) -> Result<Self, Error> {
        let wrong = weights.iter().find(|weight| !(weight.is_finite() && **weight > 0.0));
        if let Some(weight) = wrong {
            return Err(Error::Invalid(format!("the weight {weight} is not a positive number")));
        }
        if weights.is_empty() || weights.len() as u64 > ROUND {
            return Err(Error::Invalid(format!("{} datasets cannot be mixed: use 1 to {ROUND}", weights.len())));
        }
        let sum: f64 = weights.iter().sum();
        let counts: Vec<u64> = weights.iter().map(|w| ((w / sum * ROUND as f64).round() as u64).max(1)).collect();
        // The nth of a source stands in the middle of the nth of its equal parts of the round.
        let mut order: Vec<(f64, usize, u64)> = Vec::new();
        for (source, count) in counts.iter().enumerate() {
            order.extend((0..*count).map(|nth| ((nth as f64 + 0.5) / *count as f64, source, nth)));
        }
        order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        Ok(Self { places: order.into_iter().map(|(_, source, nth)| (source, nth)).collect(), counts })
    }

    /// The source of the sample at `position`, and its position among the samples of that source.
    #[must_use]
    pub fn place(&self, position: u64) -> (usize, u64) {
        let length = self.places.len() as u64;
        let (source, nth) = self.places[(position % length) as usize];
        (source, position / length * self.counts[source] + nth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_has_its_share_everywhere_and_misses_no_sample() {
        let mixture = Mixture::new(&[1.0, 3.0, 0.5]).unwrap();
        let mut next = [0; 3];
        for position in 0..10_000 {
            let (source, at) = mixture.place(position);
            assert_eq!(at, next[source], "position {position}");
            next[source] += 1;
            if position > 100 {
                let share = next[1] as f64 / (position + 1) as f64;
                assert!((share - 2.0 / 3.0).abs() < 0.02, "{share} at {position}");
            }
        }
        assert_eq!(next.iter().sum::<u64>(), 10_000);
    }

    #[test]
    fn one_source_is_itself_and_wrong_weights_are_refused() {
        let alone = Mixture::new(&[7.0]).unwrap();
        assert!((0..5000).all(|position| alone.place(position) == (0, position)));
        for weights in [&[][..], &[1.0, 0.0], &[1.0, f64::NAN], &[-1.0]] {
            assert!(Mixture::new(weights).is_err(), "{weights:?}");
        }
    }
}
