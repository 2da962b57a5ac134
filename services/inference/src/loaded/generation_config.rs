//! generation_config.json: what a model's maker wants where a request does not say.

use serde_json::Value;
use tidemill_models::sampling::Sampling;

/// Defaults of one model.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Defaults {
    pub(crate) sampling: Sampling,
    /// Most tokens written.
    pub(crate) max_tokens: Option<usize>,
    /// Tokens that end an answer.
    pub(crate) end: Vec<u32>,
    /// The token that begins a document.
    pub(crate) start: Option<u32>,
}

impl Defaults {
    /// Reads the fields that matter here; all that are wrong are named.
    pub(crate) fn from_json(file: &Value) -> Result<Self, String> {
        let mut wrong = Vec::new();
        let mut number = |field: &str, least: f64, most: f64| match &file[field] {
            Value::Null => None,
            value => match value.as_f64() {
                Some(number) if (least..=most).contains(&number) => Some(number),
                _ => {
                    wrong.push(format!("{field} is {value} and should be a number from {least} to {most}"));
                    None
                }
            },
        };
        let usual = Sampling::default();
        let mut sampling = Sampling {
            temperature: number("temperature", 0.0, 2.0).unwrap_or(usual.temperature),
            top_k: number("top_k", 0.0, f64::from(i32::MAX)).map_or(usual.top_k, |k| k as usize),
            top_p: number("top_p", f64::MIN_POSITIVE, 1.0).unwrap_or(usual.top_p),
        };
        let max_tokens = number("max_new_tokens", 1.0, f64::from(i32::MAX)).map(|most| most as usize);
        if file["do_sample"] == Value::Bool(false) && file["temperature"].is_null() {
            sampling.temperature = 0.0;
        }
        let mut tokens = |field: &str| {
            let listed = match &file[field] {
                Value::Null => Vec::new(),
                Value::Array(list) => list.iter().collect(),
                one => vec![one],
            };
            let mut ids = Vec::new();
            for value in listed {
                match value.as_u64().and_then(|id| u32::try_from(id).ok()) {
                    Some(id) => ids.push(id),
                    None => wrong.push(format!("{field} holds {value}, which is no token id")),
                }
            }
            ids
        };
        let (end, start) = (tokens("eos_token_id"), tokens("bos_token_id").first().copied());
        if wrong.is_empty() { Ok(Self { sampling, max_tokens, end, start }) } else { Err(wrong.join("; ")) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_files_fields_become_defaults() {
        let file = json!({"temperature": 0.7, "top_k": 40, "top_p": 0.9, "max_new_tokens": 64, "eos_token_id": [0, 3], "bos_token_id": 1});
        let defaults = Defaults::from_json(&file).unwrap();
        assert_eq!(defaults.sampling, Sampling { temperature: 0.7, top_k: 40, top_p: 0.9 });
        assert_eq!((defaults.max_tokens, defaults.end, defaults.start), (Some(64), vec![0, 3], Some(1)));
        assert_eq!(Defaults::from_json(&Value::Null).unwrap(), Defaults::default());
        assert_eq!(Defaults::from_json(&json!({"do_sample": false})).unwrap().sampling.temperature, 0.0);
    }

    #[test]
    fn every_wrong_field_is_named() {
        let file = json!({"temperature": "hot", "top_p": 0, "eos_token_id": -1});
        let message = Defaults::from_json(&file).unwrap_err();
        assert!(["temperature", "top_p", "eos_token_id"].iter().all(|field| message.contains(field)), "{message}");
    }
}
