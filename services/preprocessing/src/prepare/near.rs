//! Near duplicates: MinHash over word 5-grams, 14 buckets of 8 hashes, then the true Jaccard similarity of each candidate pair.

use std::collections::HashMap;

use rayon::prelude::*;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::Document;
use crate::{error::Error, watch::Watch};

const WORDS: usize = 5;
const BUCKETS: usize = 14;
const HASHES: usize = 8;
const SEED: u64 = 1;
/// From this Jaccard similarity on, where the recipe does not say.
const USUAL_THRESHOLD: f64 = 0.8;

/// Drops each document that is near to an earlier one that stays; documents come in the order of preference.
pub(crate) fn deduplicate(documents: &mut [Document], threshold: f64, watch: &Watch) -> Result<(), Error> {
    let threshold = if threshold > 0.0 { threshold } else { USUAL_THRESHOLD };
    watch.phase("deduplicating", "records", documents.len())?;
    let hashes = family();
    let sketches: Vec<Option<Vec<u64>>> = documents
        .par_iter()
        .map(|document| {
            watch.advance(1)?;
            Ok(document.dropped.is_none().then(|| sketch(&shingles(&document.text), &hashes)))
        })
        .collect::<Result<_, Error>>()?;
    let mut buckets: HashMap<(usize, u64), Vec<usize>> = HashMap::new();
    for (index, keys) in sketches.into_iter().enumerate() {
        let Some(keys) = keys else { continue };
        watch.advance(0)?;
        let near = keys.iter().enumerate().filter_map(|(bucket, &key)| buckets.get(&(bucket, key)));
        let mut candidates: Vec<usize> = near.flatten().copied().collect();
        candidates.sort_unstable();
        candidates.dedup();
        let own = if candidates.is_empty() { Vec::new() } else { shingles(&documents[index].text) };
        let mut found = None;
        for candidate in candidates {
            watch.advance(0)?;
            let similarity = jaccard(&own, &shingles(&documents[candidate].text));
            if similarity >= threshold {
                found = Some((candidate, similarity));
                break;
            }
        }
        match found {
            Some((first, similarity)) => {
                let detail = format!("Jaccard similarity {similarity:.3} to {}", documents[first].id);
                documents[index].drop_for("NEAR_DUPLICATE", detail);
            }
            None => {
                for (bucket, &key) in keys.iter().enumerate() {
                    buckets.entry((bucket, key)).or_default().push(index);
                }
            }
        }
    }
    Ok(())
}

/// The set of word 5-grams, as sorted hashes; words are compared without case and punctuation. A shorter text is one gram.
fn shingles(text: &str) -> Vec<u64> {
    let word = |word: &str| {
        let plain: String = word.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
        (!plain.is_empty()).then(|| xxh3_64(plain.as_bytes()))
    };
    let words: Vec<u64> = text.split_whitespace().filter_map(word).collect();
    let gram = |words: &[u64]| words.iter().fold(SEED, |hash, word| xxh3_64_with_seed(&word.to_le_bytes(), hash));
    let mut shingles: Vec<u64> =
        if words.len() < WORDS { vec![gram(&words)] } else { words.windows(WORDS).map(gram).collect() };
    shingles.sort_unstable();
    shingles.dedup();
    shingles
}

/// Multipliers (odd) and summands of the hash functions.
fn family() -> Vec<(u64, u64)> {
    let draw = |i: u64| xxh3_64_with_seed(&i.to_le_bytes(), SEED);
    (0..(BUCKETS * HASHES) as u64).map(|i| (draw(2 * i) | 1, draw(2 * i + 1))).collect()
}

/// One key a bucket: the hash of its minima.
fn sketch(shingles: &[u64], hashes: &[(u64, u64)]) -> Vec<u64> {
    let mut minima = vec![u64::MAX; hashes.len()];
    for &shingle in shingles {
        for (minimum, &(multiplier, summand)) in minima.iter_mut().zip(hashes) {
            *minimum = (*minimum).min(shingle.wrapping_mul(multiplier).wrapping_add(summand));
        }
    }
    let key =
        |minima: &[u64]| minima.iter().fold(SEED, |hash, minimum| xxh3_64_with_seed(&minimum.to_le_bytes(), hash));
    minima.chunks_exact(HASHES).map(key).collect()
}

/// Similarity of two sorted sets.
fn jaccard(a: &[u64], b: &[u64]) -> f64 {
    let (mut i, mut j, mut both) = (0, 0, 0usize);
    while i < a.len() && j < b.len() {
        match a[i].cmp(&b[j]) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => {
                (i, j) = (i + 1, j + 1);
                both += 1;
            }
        }
    }
    both as f64 / (a.len() + b.len() - both).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(words: std::ops::Range<usize>) -> String {
        words.map(|i| format!("word{} ", i * 7919 % 100_000)).collect()
    }

    #[test]
    fn similarity_is_that_of_the_sets() {
        let (a, b) = (shingles(&text(0..104)), shingles(&text(50..154)));
        assert_eq!((a.len(), b.len()), (100, 100));
        assert!((jaccard(&a, &b) - 50.0 / 150.0).abs() < 1e-12);
        assert_eq!(shingles("One, two three: FOUR five!"), shingles("one two Three four five"));
        assert_eq!(shingles("a b").len(), 1);
    }

    #[test]
    fn near_texts_share_a_bucket_and_far_ones_do_not() {
        let hashes = family();
        let keys = |text: &str| sketch(&shingles(text), &hashes);
        let share = |a: &str, b: &str| keys(a).iter().zip(keys(b)).any(|(a, b)| *a == b);
        let (mut near, mut far) = (0, 0);
        for i in 0..50 {
            let base = i * 10_000;
            // Similarity 0.9 by construction: the S-curve gives 0.9998; 0.3 gives 0.001.
            near += usize::from(share(&text(base..base + 1904), &text(base + 100..base + 2004)));
            far += usize::from(share(&text(base..base + 1304), &text(base + 700..base + 2004)));
        }
        assert!(near >= 49, "{near} of 50 near pairs were found");
        assert!(far <= 2, "{far} of 50 far pairs were candidates");
    }
}
