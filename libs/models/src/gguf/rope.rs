//! The rotation's settings: GGUF says them as keys, and for Llama 3 as a tensor of factors.

use std::f64::consts::TAU;

use serde_json::{Value as Json, json};

use super::{config::Keys, names::ROPE_FACTORS};

/// Llama 3's scaling: every model of the family has these, and Meta's files leave them out.
const LOW: f64 = 1.0;
const HIGH: f64 = 4.0;
const ORIGINAL: f64 = 8192.0;

/// `rope_parameters` of config.json.
pub(super) fn parameters(keys: &mut Keys<'_>, head_size: i64, factors: Option<&[f32]>) -> Json {
    let theta = keys.number("rope.freq_base").unwrap_or(10_000.0);
    let mut parameters = json!({"rope_theta": theta, "rope_type": "default"});
    if let Some(factors) = factors {
        match llama3_factor(theta, head_size, factors) {
            Some(factor) => {
                parameters["rope_type"] = json!("llama3");
                parameters["factor"] = json!(factor);
                parameters["low_freq_factor"] = json!(LOW);
                parameters["high_freq_factor"] = json!(HIGH);
                parameters["original_max_position_embeddings"] = json!(ORIGINAL as i64);
            }
            None => keys.problems.push(format!("tensor {ROPE_FACTORS} does not hold the frequency factors of Llama 3")),
        }
        return parameters;
    }
    // Files from before the type was written have only this.
    let scale = keys.number("rope.scale_linear").filter(|factor| *factor != 1.0);
    let kind = keys.text("rope.scaling.type").unwrap_or(if scale.is_some() { "linear" } else { "none" }).to_owned();
    match kind.as_str() {
        "none" => return parameters,
        "linear" | "yarn" => {}
        other => {
            keys.problem("rope.scaling.type", &format!("{other:?} is not supported, only none, linear and yarn"));
            return parameters;
        }
    }
    parameters["rope_type"] = json!(kind);
    match keys.number("rope.scaling.factor").or(scale) {
        Some(factor) => parameters["factor"] = json!(factor),
        None => keys.problem("rope.scaling.factor", "missing"),
    }
    if kind == "yarn" {
        parameters["original_max_position_embeddings"] =
            json!(keys.size_or("rope.scaling.original_context_length", None));
        for (key, name) in [("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")] {
            if let Some(value) = keys.number(&format!("rope.scaling.{key}")) {
                parameters[name] = json!(value);
            }
        }
        if keys.number("rope.scaling.attn_factor").is_some_and(|factor| factor != 1.0) {
            keys.problem("rope.scaling.attn_factor", "only 1 is supported");
        }
    }
    parameters
}

/// The factor that Llama 3's formula turns into these factors, if any does.
fn llama3_factor(theta: f64, head_size: i64, factors: &[f32]) -> Option<f64> {
    // The slowest frequencies are divided by the whole factor.
    let factor = f64::from(factors.iter().copied().fold(0.0, f32::max));
    let expected = |index: usize| {
        let frequency = theta.powf(-(2.0 * index as f64) / head_size as f64);
        let turns = ORIGINAL * frequency / TAU;
        let smooth = ((turns - LOW) / (HIGH - LOW)).clamp(0.0, 1.0);
        1.0 / ((1.0 - smooth) / factor + smooth)
    };
    let close = |(index, value): (usize, &f32)| (f64::from(*value) / expected(index) - 1.0).abs() < 1e-4;
    let fits = factor.is_finite() && factor >= 1.0 && factors.len() as i64 == head_size / 2;
    (fits && factors.iter().enumerate().all(close)).then_some(factor)
}
