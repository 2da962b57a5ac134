//! Rotary positions in a configuration. Version 4 has `rope_theta` and `rope_scaling` at the top, version 5 both in `rope_parameters`.

use serde_json::{Map, Value, json};

use super::Fields;

/// How positions turn queries and keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// How they are stretched to a longer context.
    pub scaling: Option<RopeScaling>,
}

/// Ways of stretching, named as in transformers.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Every position counts for less.
    Linear {
        /// By this much.
        factor: f64,
    },
    /// Low frequencies are slowed, high ones stay (Llama 3.1).
    Llama3 {
        /// How much low frequencies are slowed.
        factor: f64,
        /// Waves that turn less often than this over the original context are low.
        low_frequency_factor: f64,
        /// Waves that turn more often are high.
        high_frequency_factor: f64,
        /// Context before stretching.
        original_context: i64,
    },
    /// YaRN (arXiv 2309.00071).
    Yarn {
        /// How much low frequencies are slowed.
        factor: f64,
        /// Factor on cosines and sines.
        attention_factor: f64,
        /// Waves that turn more often than this over the original context stay.
        beta_fast: f64,
        /// Waves that turn less often are slowed in full.
        beta_slow: f64,
        /// Context before stretching; absent means the model's.
        original_context: Option<i64>,
        /// Whether the bounds between the two are whole dimensions.
        truncate: bool,
    },
}

const DEFAULT_THETA: f64 = 10_000.0;

impl Default for Rope {
    fn default() -> Self {
        Self { theta: DEFAULT_THETA, scaling: None }
    }
}

pub(super) fn read(fields: &mut Fields) -> Rope {
    let top = fields.number_or("rope_theta", 0.0); // 0: absent
    let old = fields.object("rope_scaling").map(|object| ("rope_scaling", object));
    let new = fields.object("rope_parameters").map(|object| ("rope_parameters", object));
    if let (Some((_, old)), Some((_, new))) = (&old, &new)
        && !new.same(old, "rope_theta")
    {
        fields.problem("rope_scaling", "contradicts rope_parameters; keep one of them");
    }
    let Some((name, mut inner)) = new.or(old) else {
        return Rope { theta: if top > 0.0 { top } else { DEFAULT_THETA }, scaling: None };
    };
    let theta = inner.number_or("rope_theta", if top > 0.0 { top } else { DEFAULT_THETA });
    if top > 0.0 && top != theta {
        fields.problem("rope_theta", &format!("{top} contradicts {name}.rope_theta {theta}"));
    }
    let scaling = scaling(&mut inner);
    fields.absorb(name, inner);
    Rope { theta, scaling }
}

fn scaling(fields: &mut Fields) -> Option<RopeScaling> {
    // Old files say `type`.
    let old = fields.text("type");
    let kind = fields.text("rope_type").or(old).unwrap_or_else(|| "default".to_owned());
    fields.require_default("partial_rotary_factor", &json!(1.0));
    match kind.as_str() {
        "default" => {
            fields.accept_any(&["factor"]);
            None
        }
        "linear" => Some(RopeScaling::Linear { factor: fields.number("factor") }),
        "llama3" => Some(RopeScaling::Llama3 {
            factor: fields.number("factor"),
            low_frequency_factor: fields.number("low_freq_factor"),
            high_frequency_factor: fields.number("high_freq_factor"),
            original_context: fields.size("original_max_position_embeddings"),
        }),
        "yarn" => {
            let factor = fields.number("factor");
            let (mscale, all) = (fields.number_or("mscale", 0.0), fields.number_or("mscale_all_dim", 0.0));
            let usual = match mscale > 0.0 && all > 0.0 {
                true => attention_factor(factor, mscale) / attention_factor(factor, all),
                false => attention_factor(factor, 1.0),
            };
            let original = fields.size_or("original_max_position_embeddings", 0);
            Some(RopeScaling::Yarn {
                factor,
                attention_factor: fields.number_or("attention_factor", usual),
                beta_fast: fields.number_or("beta_fast", 32.0),
                beta_slow: fields.number_or("beta_slow", 1.0),
                original_context: (original > 0).then_some(original),
                truncate: fields.bool_or("truncate", true),
            })
        }
        other => {
            fields.problem("rope_type", &format!("{other:?} is not supported, only default, linear, llama3 and yarn"));
            None
        }
    }
}

/// How much YaRN sharpens attention for its stretch.
fn attention_factor(factor: f64, mscale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 }
}

/// `rope_parameters`.
pub(super) fn write(rope: &Rope) -> Value {
    let mut map = Map::from_iter([("rope_theta".to_owned(), json!(rope.theta))]);
    let entries = match &rope.scaling {
        None => vec![("rope_type", json!("default"))],
        Some(RopeScaling::Linear { factor }) => vec![("factor", json!(factor)), ("rope_type", json!("linear"))],
        Some(RopeScaling::Llama3 { factor, low_frequency_factor, high_frequency_factor, original_context }) => vec![
            ("factor", json!(factor)),
            ("high_freq_factor", json!(high_frequency_factor)),
            ("low_freq_factor", json!(low_frequency_factor)),
            ("original_max_position_embeddings", json!(original_context)),
            ("rope_type", json!("llama3")),
        ],
        Some(RopeScaling::Yarn { factor, attention_factor, beta_fast, beta_slow, original_context, truncate }) => {
            let mut entries = vec![
                ("attention_factor", json!(attention_factor)),
                ("beta_fast", json!(beta_fast)),
                ("beta_slow", json!(beta_slow)),
                ("factor", json!(factor)),
                ("rope_type", json!("yarn")),
                ("truncate", json!(truncate)),
            ];
            entries.extend(original_context.map(|context| ("original_max_position_embeddings", json!(context))));
            entries
        }
    };
    map.extend(entries.into_iter().map(|(name, value)| (name.to_owned(), value)));
    Value::Object(map)
}
