//! Initial weights: numbers from a counter, so that they depend on nothing but (seed, parameter, element).

use std::f64::consts::TAU;

/// `count` draws from a normal distribution around 0, the same on every machine for the same seed and parameter index.
pub(crate) fn normal(seed: u64, parameter: u64, count: usize, deviation: f64) -> Vec<f32> {
    let key = mix(seed ^ mix(parameter.wrapping_add(1)));
    let mut values = Vec::with_capacity(count + 1);
    for pair in 0..count.div_ceil(2) as u64 {
        // Box-Muller; 1 - u keeps the logarithm's argument above zero.
        let radius = deviation * (-2.0 * (1.0 - unit(key, 2 * pair)).ln()).sqrt();
        let angle = TAU * unit(key, 2 * pair + 1);
        values.push((radius * angle.cos()) as f32);
        values.push((radius * angle.sin()) as f32);
    }
    values.truncate(count);
    values
}

/// `count` draws between minus and plus `bound`, in the same way.
pub(crate) fn uniform(seed: u64, parameter: u64, count: usize, bound: f64) -> Vec<f32> {
    let key = mix(seed ^ mix(parameter.wrapping_add(1)));
    (0..count as u64).map(|counter| (bound * (2.0 * unit(key, counter) - 1.0)) as f32).collect()
}

fn unit(key: u64, counter: u64) -> f64 {
    let bits = mix(key.wrapping_add(counter.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// The finaliser of splitmix64.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::normal;

    #[test]
    fn draws_have_the_asked_moments_and_differ_by_seed_and_parameter() {
        let draws = normal(7, 3, 100_001, 0.02);
        let mean = draws.iter().map(|v| f64::from(*v)).sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / draws.len() as f64;
        assert_eq!(draws.len(), 100_001);
        assert!(mean.abs() < 3e-4, "{mean}");
        assert!((variance.sqrt() - 0.02).abs() < 2e-4, "{}", variance.sqrt());
        assert_eq!(draws[..8], normal(7, 3, 8, 0.02)[..]);
        assert_ne!(draws[..8], normal(8, 3, 8, 0.02)[..]);
        assert_ne!(draws[..8], normal(7, 4, 8, 0.02)[..]);
    }
}
