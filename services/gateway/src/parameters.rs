//! What completions and chat completions have in common: the model, how tokens are drawn, how the answer is sent.

use serde_json::Value;
use tidemill_proto::inference::v1::GenerateRequest;
use tidemill_proto::inference::v1::generate_request::Input;
use tidemill_proto::r#type::v1::SamplingParameters;

use crate::fields::Fields;

/// Fields of OpenAI's requests that name or route, and do not change an answer.
const HARMLESS: &[&str] = &[
    "user",
    "metadata",
    "service_tier",
    "parallel_tool_calls",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
];

/// The common part of a request.
#[derive(Debug)]
pub(crate) struct Parameters {
    pub(crate) model: String,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    sampling: SamplingParameters,
    store: bool,
}

impl Parameters {
    /// Reads and removes the common fields.
    pub(crate) fn read(fields: &mut Fields, store_by_default: bool) -> Self {
        let zero = |value: &Value| value.as_f64() == Some(0.0);
        let empty = |value: &Value| {
            value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(serde_json::Map::is_empty)
        };
        fields.ignore(HARMLESS);
        fields.unsupported("presence_penalty", zero);
        fields.unsupported("frequency_penalty", zero);
        fields.unsupported("logit_bias", empty);
        fields.unsupported("logprobs", |value| *value == Value::Bool(false));
        fields.unsupported("top_logprobs", zero);
        if let Some(n) = fields.integer("n")
            && n != 1
        {
            fields.wrong("n", format!("{n} should be 1: send the request again for another answer"));
        }
        let model = fields.required_text("model");
        let max_tokens = fields.integer("max_tokens");
        let sampling = SamplingParameters {
            temperature: fields.number("temperature"),
            top_k: fields.integer("top_k"),
            top_p: fields.number("top_p"),
            seed: seed(fields),
            stop: stop(fields),
            max_tokens: fields.integer("max_completion_tokens").or(max_tokens),
        };
        let stream = fields.flag("stream").unwrap_or(false);
        let include_usage = stream_options(fields, stream);
        let store = fields.flag("store").unwrap_or(store_by_default);
        Self { model, stream, include_usage, sampling, store }
    }

    /// The request to the inference service.
    pub(crate) fn request(&self, input: Input) -> GenerateRequest {
        GenerateRequest {
            model: self.model.clone(),
            input: Some(input),
            sampling: Some(self.sampling.clone()),
            store: self.store,
            answer_id: String::new(),
        }
    }
}

fn seed(fields: &mut Fields) -> Option<u64> {
    let value = fields.take("seed")?;
    // A negative seed is as good as any: its bits are the key.
    let seed = value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned));
    if seed.is_none() {
        fields.wrong("seed", format!("{value} should be a whole number of at most 64 bits"));
    }
    seed
}

fn stop(fields: &mut Fields) -> Vec<String> {
    let texts = match fields.take("stop") {
        None => Some(Vec::new()),
        Some(Value::String(stop)) => Some(vec![stop]),
        Some(Value::Array(list)) => list.iter().map(|stop| stop.as_str().map(str::to_owned)).collect(),
        Some(_) => None,
    };
    texts.unwrap_or_else(|| {
        fields.wrong("stop", "should be a string or a list of strings");
        Vec::new()
    })
}

fn stream_options(fields: &mut Fields, stream: bool) -> bool {
    let Some(options) = fields.take("stream_options") else { return false };
    if !stream {
        fields.wrong("stream_options", "only allowed where stream is true");
    }
    match (&options, &options["include_usage"]) {
        (Value::Object(_), Value::Bool(include)) => *include,
        (Value::Object(_), Value::Null) => false,
        _ => {
            fields.wrong("stream_options.include_usage", "should be true or false");
            false
        }
    }
}
