//! What is said in a row: plain text, or turns of a conversation.

use serde::Serialize;
use serde_json::Value;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// What holds for the whole conversation.
    System,
    /// Who asks.
    User,
    /// Who is trained.
    Assistant,
    /// What a tool answered.
    Tool,
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Turn {
    /// Who speaks.
    pub role: Role,
    /// What was said.
    pub content: String,
}

/// A prompt or an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Turns {
    /// Plain text, which no chat template touches.
    Text(String),
    /// Turns, which the model's chat template renders.
    Messages(Vec<Turn>),
}

impl Turns {
    pub(super) fn said_by(role: Role, content: impl Into<String>) -> Self {
        Self::Messages(vec![Turn { role, content: content.into() }])
    }

    pub(super) fn texts_mut(&mut self) -> Vec<&mut String> {
        match self {
            Self::Text(text) => vec![text],
            Self::Messages(turns) => turns.iter_mut().map(|turn| &mut turn.content).collect(),
        }
    }

    pub(super) fn is_blank(&self) -> bool {
        match self {
            Self::Text(text) => text.trim().is_empty(),
            Self::Messages(turns) => turns.iter().all(|turn| turn.content.trim().is_empty()),
        }
    }

    /// A prompt ends with a turn that someone answers.
    pub(super) fn check_prompt(&self) -> Result<(), String> {
        match self {
            Self::Text(_) => Ok(()),
            Self::Messages(turns) => match turns.last() {
                None => Err("column prompt: it has no turns".to_owned()),
                Some(last) if last.role == Role::Assistant => {
                    Err("column prompt: its last turn is the assistant's, which belongs to the answer".to_owned())
                }
                Some(_) => Ok(()),
            },
        }
    }

    /// An answer is the assistant's, and says something.
    pub(super) fn check_answer(&self, column: &str) -> Result<(), String> {
        if let Self::Messages(turns) = self
            && let Some(at) = turns.iter().position(|turn| turn.role != Role::Assistant)
        {
            return Err(format!(
                "column {column}[{at}]: an answer holds turns of the assistant only; give whole conversations as messages"
            ));
        }
        if self.is_blank() { Err(format!("column {column}: it is empty, so nothing can be learned")) } else { Ok(()) }
    }
}

/// Reads a text, a list of turns, or one turn alone.
pub(super) fn turns(column: &str, value: &Value) -> Result<Turns, String> {
    match value {
        Value::String(text) => Ok(Turns::Text(text.clone())),
        Value::Object(_) => Ok(Turns::Messages(vec![turn(column, value)?])),
        Value::Array(_) => Ok(Turns::Messages(messages(column, value)?)),
        _ => Err(format!("column {column}: it should be text or a list of turns")),
    }
}

/// Reads a list of turns.
pub(super) fn messages(column: &str, value: &Value) -> Result<Vec<Turn>, String> {
    let Value::Array(list) = value else {
        return Err(format!("column {column}: it should be a list of turns"));
    };
    list.iter().enumerate().map(|(at, value)| turn(&format!("{column}[{at}]"), value)).collect()
}

/// Reads a turn in either spelling: `{role, content}`, or ShareGPT's `{from, value}`.
fn turn(place: &str, value: &Value) -> Result<Turn, String> {
    let object = value.as_object().ok_or_else(|| format!("column {place}: a turn should be a JSON object"))?;
    let get = |key: &str| object.get(key).filter(|value| !value.is_null());
    // What would change the turn's meaning, and cannot be kept.
    for key in ["tool_calls", "function_call", "thinking", "reasoning_content"] {
        if get(key).is_some_and(|value| !is_empty(value)) {
            return Err(format!("column {place}.{key}: rows cannot hold it; leave such rows out"));
        }
    }
    let (speaker, said) = if get("from").is_some() { ("from", "value") } else { ("role", "content") };
    let name = get(speaker).and_then(Value::as_str);
    let name = name.ok_or_else(|| format!("column {place}: a turn should have role and content, or from and value"))?;
    let role = role(name).ok_or_else(|| match name {
        "function_call" | "observation" | "function" => {
            format!(
                "column {place}.{speaker}: {name} is part of a tool call, which rows cannot hold; leave such rows out"
            )
        }
        _ => format!("column {place}.{speaker}: {name:?} should be system, user, assistant or tool"),
    })?;
    for key in ["loss_weight", "weight"] {
        let usual = if role == Role::Assistant { 1.0 } else { 0.0 };
        if get(key).is_some_and(|weight| weight.as_f64() != Some(usual)) {
            return Err(format!(
                "column {place}.{key}: turns cannot be weighted; it should be {usual} for {name}, or absent"
            ));
        }
    }
    let content = get(said).ok_or_else(|| format!("column {place}.{said}: it is missing"))?;
    Ok(Turn { role, content: text(&format!("{place}.{said}"), content)? })
}

fn role(name: &str) -> Option<Role> {
    match name {
        "system" => Some(Role::System),
        "user" | "human" => Some(Role::User),
        "assistant" | "gpt" => Some(Role::Assistant),
        "tool" => Some(Role::Tool),
        _ => None,
    }
}

/// Text, or a list of parts that are all text.
fn text(place: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => parts
            .iter()
            .enumerate()
            .map(|(at, part)| {
                let kind = part["type"].as_str().unwrap_or("something unnamed");
                let text = part["text"].as_str().or(part["value"].as_str());
                text.filter(|_| kind == "text")
                    .ok_or_else(|| format!("column {place}[{at}]: {kind} is no text; leave such rows out"))
            })
            .collect(),
        _ => Err(format!("column {place}: it should be text")),
    }
}

/// Whether a column holds nothing, in one of the ways to write that.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty() || text == "[]",
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}
