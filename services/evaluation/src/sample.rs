//! Continues prompts, for people to read. The same model, prompt and parameters give the same text.

use std::path::Path;

use tch::{Kind, Tensor};
use tidemill_models::sampling::{Sampler, Sampling};
use tidemill_models::{Attention, Cache, Config, Model};
use tidemill_proto::r#type::v1::SamplingParameters;

use crate::error::{Error, Result};
use crate::outcome::Sample;
use crate::subject::Subject;

/// Tokens generated where neither the suite nor the context sets a limit.
const USUAL_TOKENS: i64 = 256;

/// How prompts are continued, with every default filled in.
pub(crate) struct Generation {
    sampling: Sampling,
    seed: u64,
    stop: Vec<String>,
    max_tokens: Option<i64>,
    /// Tokens that end an answer, beside the tokenizer's end of text.
    ends: Vec<u32>,
}

impl Generation {
    /// The suite's parameters over those of the model's `generation_config.json` over the defaults.
    pub(crate) fn of(parameters: &SamplingParameters, model_folder: &Path) -> Self {
        let config: serde_json::Value = std::fs::read(model_folder.join("generation_config.json"))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let number = |key: &str| config.get(key).and_then(serde_json::Value::as_f64);
        let usual = Sampling::default();
        let top_k = parameters.top_k.map(f64::from).or_else(|| number("top_k"));
        Self {
            sampling: Sampling {
                temperature: parameters.temperature.or_else(|| number("temperature")).unwrap_or(usual.temperature),
                top_k: top_k.map_or(usual.top_k, |k| k as usize),
                top_p: parameters.top_p.or_else(|| number("top_p")).unwrap_or(usual.top_p),
            },
            // A seed drawn by chance would give another digest every time.
            seed: parameters.seed.unwrap_or(0),
            stop: parameters.stop.clone(),
            max_tokens: parameters.max_tokens.map(i64::from),
            ends: ids(&config["eos_token_id"]),
        }
    }
}

/// One id, or a list of them.
fn ids(value: &serde_json::Value) -> Vec<u32> {
    let one = |value: &serde_json::Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    value.as_array().map_or_else(|| one(value).into_iter().collect(), |list| list.iter().filter_map(one).collect())
}

/// Continues one prompt, which has become `ids`; `index` names it in errors. `go_on` is asked after each token; nothing comes back if it said no.
pub(crate) async fn complete(
    subject: &Subject<'_>,
    generation: &Generation,
    (index, prompt, mut ids): (usize, &str, Vec<u32>),
    mut go_on: impl FnMut() -> bool,
) -> Result<Option<Sample>> {
    let Subject { model, tokenizer, .. } = *subject;
    let digest = subject.model_digest();
    let text = |source| Error::Text { what: format!("suite.prompts[{index}]"), source };
    let failed = |source| Error::Model { digest: digest.to_owned(), source };
    if ids.is_empty() {
        // An empty prompt asks for the beginning of a document.
        ids.push(tokenizer.end_of_text().ok_or_else(|| Error::NoEndOfText(digest.to_owned()))?);
    }
    // An encoder-decoder reads the prompt once, and writes from a token of its own.
    let mut source = None;
    if let Config::T5(config) = model.config() {
        source = Some(encoded(model, &ids).map_err(failed)?);
        ids = vec![config.decoder_start_token_id as u32];
    }
    let context = model.config().context_length();
    let room = context - ids.len() as i64;
    if room < 1 {
        return Err(Error::LongPrompt { index, tokens: ids.len(), context });
    }
    let limit = generation.max_tokens.unwrap_or(USUAL_TOKENS).min(room);
    let mut cache = Cache::new(model, ids.len() as i64 + limit).map_err(failed)?;
    let mut sampler = Sampler::new(generation.sampling, generation.seed);
    let (mut fresh, mut generated, mut completion) = (ids, Vec::new(), String::new());
    for position in 0..limit as u64 {
        let input: Vec<i64> = fresh.iter().map(|id| i64::from(*id)).collect();
        let logits = next_logits(model, &input, &mut cache, source.as_ref()).map_err(failed)?;
        let id = sampler.draw(&logits, position).map_err(|_| Error::NotFinite(digest.to_owned()))?;
        if Some(id) == tokenizer.end_of_text() || generation.ends.contains(&id) {
            break;
        }
        generated.push(id);
        completion = tokenizer.decode(&generated).map_err(text)?;
        if let Some(at) = generation.stop.iter().filter_map(|stop| completion.find(stop.as_str())).min() {
            completion.truncate(at);
            break;
        }
        fresh = vec![id];
        tokio::task::yield_now().await;
        if !go_on() {
            return Ok(None);
        }
    }
    Ok(Some(Sample { prompt: prompt.to_owned(), completion }))
}

/// What an encoder makes of a prompt.
fn encoded(model: &Model, ids: &[u32]) -> tidemill_models::Result<Tensor> {
    let ids: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
    let source = Tensor::from_slice(&ids).f_unsqueeze(0)?.f_to_device(model.device())?;
    model.encode(&source, Attention::Full)
}

fn next_logits(
    model: &Model,
    ids: &[i64],
    cache: &mut Cache,
    source: Option<&Tensor>,
) -> tidemill_models::Result<Vec<f32>> {
    let input = Tensor::from_slice(ids).f_unsqueeze(0)?.f_to_device(model.device())?;
    let attention = Attention::Cached(cache);
    let logits = match source {
        Some(source) => model.decode(&input, attention, source, Attention::Full)?.f_select(1, -1)?,
        None => model.next(&input, attention)?,
    };
    Ok(Vec::<f32>::try_from(&logits.f_view([-1])?.f_to_kind(Kind::Float)?)?)
}
