//! From a request as it came to one that can be run: every mistake is reported, all at once.

use tidemill_chassis::Fault;
use tidemill_models::sampling::Sampling;
use tidemill_proto::inference::v1::generate_request::Input;
use tidemill_proto::inference::v1::{Chat, GenerateRequest};
use tidemill_proto::names;
use tidemill_proto::r#type::v1::SamplingParameters;
use tidemill_text::Message;
use tracing::Span;

use crate::engine::Job;
use crate::loaded::Loaded;

const MOST_STOPS: usize = 8;
const LONGEST_STOP_BYTES: usize = 1024;
const USUAL_MAX_TOKENS: usize = 256;

/// A request that can be run.
#[derive(Debug)]
pub(crate) struct ValidRequest {
    pub(crate) job: Job,
    pub(crate) stop: Vec<String>,
    /// The prompt as the model sees it.
    pub(crate) prompt: String,
    pub(crate) store: bool,
    pub(crate) answer_id: String,
}

/// Wrong fields: (path, what is wrong).
type Violations = Vec<(String, String)>;

/// Checks a request against the model that shall answer it. Blocks for as long as the prompt takes to tokenize.
pub(crate) fn validate(request: GenerateRequest, model: &Loaded) -> Result<ValidRequest, Fault> {
    let mut wrong = Violations::new();
    if !request.answer_id.is_empty()
        && let Err(error) = names::check_id(&request.answer_id)
    {
        wrong.push(("answer_id".to_owned(), error.to_string()));
    }
    let parameters = request.sampling.unwrap_or_default();
    let sampling = sampling(&parameters, model.sampling(), &mut wrong);
    let max_tokens = match parameters.max_tokens {
        Some(most) if most < 1 => {
            wrong.push(("sampling.max_tokens".to_owned(), format!("{most} should be at least 1")));
            None
        }
        // Not negative, as just checked.
        given => given.map(i32::unsigned_abs).map(|most| most as usize),
    };
    let input = match request.input {
        None => {
            wrong.push(("prompt".to_owned(), "missing; send a prompt or a chat".to_owned()));
            None
        }
        Some(Input::Prompt(text)) => prompt(text, model, &mut wrong),
        Some(Input::Chat(chat)) => conversation(chat, model, &mut wrong),
    };
    let Some((prompt, ids)) = input.filter(|_| wrong.is_empty()) else {
        return Err(Fault::invalid_fields(wrong));
    };
    let left = model.context - ids.len();
    let max_tokens = max_tokens.or(model.defaults.max_tokens).unwrap_or(USUAL_MAX_TOKENS).min(left);
    Ok(ValidRequest {
        job: Job {
            prompt: ids,
            max_tokens,
            sampling,
            seed: parameters.seed.unwrap_or_else(random_seed),
            end: model.end.clone(),
            span: Span::none(),
        },
        stop: parameters.stop,
        prompt,
        store: request.store,
        answer_id: match request.answer_id {
            id if id.is_empty() => uuid::Uuid::new_v4().simple().to_string(),
            id => id,
        },
    })
}

fn sampling(parameters: &SamplingParameters, usual: Sampling, wrong: &mut Violations) -> Sampling {
    let mut violation = |field: &str, text: String| wrong.push((format!("sampling.{field}"), text));
    let temperature = parameters.temperature.unwrap_or(usual.temperature);
    if !(0.0..=2.0).contains(&temperature) {
        violation("temperature", format!("{temperature} should be from 0 (greedy) to 2"));
    }
    let top_p = parameters.top_p.unwrap_or(usual.top_p);
    if !(top_p > 0.0 && top_p <= 1.0) {
        violation("top_p", format!("{top_p} should be above 0 and at most 1"));
    }
    let top_k = match parameters.top_k.map(usize::try_from) {
        None => usual.top_k,
        Some(Ok(top_k)) => top_k,
        Some(Err(_)) => {
            violation("top_k", format!("{} should be 0 (all tokens) or more", parameters.top_k()));
            0
        }
    };
    if parameters.stop.len() > MOST_STOPS {
        violation("stop", format!("{} stop strings; at most {MOST_STOPS} are allowed", parameters.stop.len()));
    }
    for (index, stop) in parameters.stop.iter().enumerate() {
        if stop.is_empty() {
            violation(&format!("stop[{index}]"), "empty; it would end every answer at once".to_owned());
        } else if stop.len() > LONGEST_STOP_BYTES {
            let text = format!("{} bytes; at most {LONGEST_STOP_BYTES} are allowed", stop.len());
            violation(&format!("stop[{index}]"), text);
        }
    }
    Sampling { temperature, top_k, top_p }
}

fn prompt(text: String, model: &Loaded, wrong: &mut Violations) -> Option<(String, Vec<u32>)> {
    let ids = match (text.is_empty(), model.start) {
        (true, Some(start)) => Ok(vec![start]),
        (true, None) => Err("empty, and the model has no token that begins a document; send some text".to_owned()),
        (false, _) => model.tokenizer.encode(&text).map_err(|error| error.to_string()),
    };
    within_context("prompt", ids, model, wrong).map(|ids| (text, ids))
}

fn conversation(chat: Chat, model: &Loaded, wrong: &mut Violations) -> Option<(String, Vec<u32>)> {
    let before = wrong.len();
    if chat.messages.is_empty() {
        wrong.push(("chat.messages".to_owned(), "empty; send at least one message".to_owned()));
    }
    for (index, message) in chat.messages.iter().enumerate() {
        if !["system", "user", "assistant"].contains(&message.role.as_str()) {
            let text = format!("{:?} should be system, user or assistant", message.role);
            wrong.push((format!("chat.messages[{index}].role"), text));
        }
        if let Some(token) = forged(&message.content, model) {
            let text = format!("it holds {token}, which only the chat template may write");
            wrong.push((format!("chat.messages[{index}].content"), text));
        }
    }
    if wrong.len() > before {
        return None;
    }
    let messages: Vec<Message> = chat.messages.into_iter().map(|m| Message::new(m.role, m.content)).collect();
    match model.template.render(&messages, true, &model.bos_token, &model.eos_token) {
        Ok(text) if text.is_empty() => prompt(text, model, wrong),
        Ok(text) => {
            let ids = model.tokenizer.encode_template(&text).map_err(|error| error.to_string());
            within_context("chat.messages", ids, model, wrong).map(|ids| (text, ids))
        }
        Err(error) => {
            wrong.push(("chat.messages".to_owned(), error.to_string()));
            None
        }
    }
}

/// A special token spelled out in a message: the template's text is read with special tokens on, so it would pass for a real one.
fn forged(content: &str, model: &Loaded) -> Option<String> {
    let ids = model.tokenizer.encode_template(content).ok()?;
    let id = ids.into_iter().find(|id| model.tokenizer.is_special(*id))?;
    Some(model.tokenizer.token(id).unwrap_or_default())
}

fn within_context(
    field: &str,
    ids: Result<Vec<u32>, String>,
    model: &Loaded,
    wrong: &mut Violations,
) -> Option<Vec<u32>> {
    let problem = match ids {
        Ok(ids) if ids.len() < model.context => return Some(ids),
        Ok(ids) => format!(
            "it has {} tokens and must leave room for an answer in the model's context of {}; shorten it",
            ids.len(),
            model.context
        ),
        Err(problem) => problem,
    };
    wrong.push((field.to_owned(), problem));
    None
}

/// Of 53 bits, so that it survives JSON readers that keep numbers as doubles.
fn random_seed() -> u64 {
    let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
    (high.rotate_left(32) ^ low) >> 11
}
