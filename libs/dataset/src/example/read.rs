//! Rows as the world writes them: TRL's columns, Alpaca's, ShareGPT's, and LLaMA-Factory's spellings of those.

use serde_json::Value;

use super::columns::Columns;
use super::turns::{Role, Turn, Turns, messages, turns};
use super::{Example, RowType};

/// Where a conversation stands.
const CONVERSATIONS: [&str; 2] = ["messages", "conversations"];

impl Example {
    /// Reads a row; the error names the column and the remedy.
    ///
    /// | columns | row |
    /// | --- | --- |
    /// | `messages` or `conversations` | conversation |
    /// | `prompt`, `completion`; or `instruction`, `input`, `output`, `system`, `history` | prompt and completion |
    /// | `chosen`, `rejected` with a prompt in any of these ways, or as the turns that both begin with | preference |
    /// | `label` with any of the first two | judged |
    /// | `prompt`, `answer` | prompt |
    pub fn from_json(row: &Value) -> Result<Self, String> {
        let columns = Columns::of(row)?;
        let example = match row_type(&columns)? {
            RowType::Preference => preference(&columns)?,
            RowType::Judged => judged(&columns)?,
            RowType::PromptCompletion => {
                let (prompt, completion) = answered(&columns)?;
                Self::PromptCompletion { prompt, completion }
            }
            RowType::Conversation => {
                let (column, value) = columns.first(&CONVERSATIONS).ok_or("column messages: it is missing")?;
                Self::Conversation { messages: with_system(&columns, messages(column, value)?)? }
            }
            RowType::Prompt => Self::Prompt {
                prompt: prompt(&columns)?,
                answer: match columns.get("answer") {
                    None => None,
                    Some(Value::String(answer)) => Some(answer.clone()),
                    Some(Value::Number(answer)) => Some(answer.to_string()),
                    Some(_) => return Err("column answer: it should be text or a number".to_owned()),
                },
            },
        };
        example.check()?;
        Ok(example)
    }
}

/// The type of a row, by the columns it has.
fn row_type(columns: &Columns<'_>) -> Result<RowType, String> {
    let has = |column| columns.has(column);
    if has("chosen") || has("rejected") || has("chosen_messages") || has("rejected_messages") {
        Ok(RowType::Preference)
    } else if has("label") {
        Ok(RowType::Judged)
    } else if has("completion") || has("instruction") {
        Ok(RowType::PromptCompletion)
    } else if columns.first(&CONVERSATIONS).is_some() {
        Ok(RowType::Conversation)
    } else if has("output") {
        Err("column instruction: it is missing, and output answers it".to_owned())
    } else if has("prompt") {
        Ok(RowType::Prompt)
    } else if has("text") {
        Err("column text: plain text is no row; read it with RECORD_FORMAT_JSONL, or call it completion".to_owned())
    } else {
        Err("the row has none of the columns messages, conversations, prompt, instruction, chosen: rename its columns \
             to those of TRL, Alpaca or ShareGPT"
            .to_owned())
    }
}

fn judged(columns: &Columns<'_>) -> Result<Example, String> {
    let Some(Value::Bool(label)) = columns.get("label") else {
        return Err("column label: it should be true or false; call it another name if it judges nothing".to_owned());
    };
    if columns.has("completion") || columns.has("instruction") {
        let (prompt, completion) = answered(columns)?;
        return Ok(Example::Judged { prompt, completion, label: *label });
    }
    let (column, value) =
        columns.first(&CONVERSATIONS).ok_or("column label: it needs messages, or prompt and completion, beside it")?;
    let mut prompt = with_system(columns, messages(column, value)?)?;
    match prompt.pop() {
        Some(last) if last.role == Role::Assistant => Ok(Example::Judged {
            prompt: Turns::Messages(prompt),
            completion: Turns::Messages(vec![last]),
            label: *label,
        }),
        _ => Err(format!("column {column}: the last turn should be the assistant's, which label judges")),
    }
}

/// A prompt with its answer.
fn answered(columns: &Columns<'_>) -> Result<(Turns, Turns), String> {
    if columns.has("instruction") {
        let output = Turns::said_by(Role::Assistant, columns.need("output").and_then(|_| columns.text("output"))?);
        return Ok((alpaca(columns)?, output));
    }
    Ok(alike(prompt(columns)?, turns("completion", columns.need("completion")?)?))
}

/// The column `prompt`, after what the column `system` says.
fn prompt(columns: &Columns<'_>) -> Result<Turns, String> {
    match turns("prompt", columns.need("prompt")?)? {
        Turns::Messages(turns) => Ok(Turns::Messages(with_system(columns, turns)?)),
        Turns::Text(_) if !columns.text("system")?.is_empty() => {
            Err("column system: beside a prompt of plain text nothing can say it; give the prompt as turns".to_owned())
        }
        text @ Turns::Text(_) => Ok(text),
    }
}

fn preference(columns: &Columns<'_>) -> Result<Example, String> {
    let names = if columns.has("chosen") || columns.has("rejected") {
        ["chosen", "rejected"]
    } else {
        ["chosen_messages", "rejected_messages"]
    };
    let mut answers = names.into_iter().map(|name| turns(name, columns.need(name)?));
    let (Some(chosen), Some(rejected)) = (answers.next().transpose()?, answers.next().transpose()?) else {
        return Err("columns chosen and rejected: both are needed".to_owned());
    };
    let prompt = if columns.has("instruction") {
        Some(alpaca(columns)?)
    } else if columns.get("prompt").is_some_and(|prompt| prompt.is_string()) && begins_with_prompt(&chosen) {
        // Whole conversations repeat their prompt, and some tables name it once more as text.
        None
    } else if columns.has("prompt") {
        Some(prompt(columns)?)
    } else if let Some((column, value)) = columns.first(&CONVERSATIONS) {
        Some(Turns::Messages(with_system(columns, messages(column, value)?)?))
    } else {
        None
    };
    let (prompt, chosen, rejected) = match prompt {
        Some(prompt) => {
            let (own, chosen) = alike(prompt.clone(), chosen);
            let (other, rejected) = alike(prompt, rejected);
            if own != other {
                return Err("columns chosen and rejected: both should be text, or both lists of turns".to_owned());
            }
            (own, chosen, rejected)
        }
        None => implicit(chosen, rejected)?,
    };
    Ok(Example::Preference { prompt, chosen, rejected })
}

fn begins_with_prompt(turns: &Turns) -> bool {
    matches!(turns, Turns::Messages(turns) if turns.first().is_some_and(|turn| turn.role != Role::Assistant))
}

/// The prompt is what both begin with, as TRL's `extract_prompt` finds it.
fn implicit(chosen: Turns, rejected: Turns) -> Result<(Turns, Turns, Turns), String> {
    match (chosen, rejected) {
        (Turns::Messages(mut chosen), Turns::Messages(mut rejected)) => {
            let common = chosen.iter().zip(&rejected).take_while(|(a, b)| a == b).count();
            // Of equal conversations the answer stays, so that the error is about the answers.
            let common = common.min(chosen.len().saturating_sub(1)).min(rejected.len().saturating_sub(1));
            let answer = chosen.split_off(common);
            Ok((Turns::Messages(chosen), Turns::Messages(answer), Turns::Messages(rejected.split_off(common))))
        }
        (Turns::Text(chosen), Turns::Text(rejected)) => {
            let same = chosen.char_indices().zip(rejected.chars()).take_while(|((_, a), b)| a == b);
            let end = same.last().map_or(0, |((at, last), _)| at + last.len_utf8());
            // The space before a word belongs to the word.
            let end = if chosen[..end].ends_with(' ') { end - 1 } else { end };
            Ok((
                Turns::Text(chosen[..end].to_owned()),
                Turns::Text(chosen[end..].to_owned()),
                Turns::Text(rejected[end..].to_owned()),
            ))
        }
        _ => Err("columns chosen and rejected: both should be text, or both lists of turns".to_owned()),
    }
}

/// A prompt and an answer of one kind: text beside turns becomes a turn.
fn alike(prompt: Turns, answer: Turns) -> (Turns, Turns) {
    match (prompt, answer) {
        (prompt @ Turns::Messages(_), Turns::Text(text)) => (prompt, Turns::said_by(Role::Assistant, text)),
        (Turns::Text(text), answer @ Turns::Messages(_)) => (Turns::said_by(Role::User, text), answer),
        same => same,
    }
}

/// Alpaca's columns as the turns of a prompt: instruction, and input below it.
fn alpaca(columns: &Columns<'_>) -> Result<Turns, String> {
    let mut turns = Vec::new();
    let mut say = |role, content: &str| turns.push(Turn { role, content: content.to_owned() });
    match columns.get("history") {
        None => {}
        Some(Value::Array(history)) => {
            for (at, pair) in history.iter().enumerate() {
                let (Some(asked), Some(said)) = (pair[0].as_str(), pair[1].as_str()) else {
                    return Err(format!("column history[{at}]: it should be a pair of texts, question and answer"));
                };
                say(Role::User, asked);
                say(Role::Assistant, said);
            }
        }
        Some(_) => return Err("column history: it should be a list of pairs, question and answer".to_owned()),
    }
    let asked = [columns.text("instruction")?, columns.text("input")?];
    let asked: Vec<&str> = asked.into_iter().filter(|text| !text.is_empty()).collect();
    if asked.is_empty() {
        return Err("column instruction: it is empty, and so is input".to_owned());
    }
    say(Role::User, &asked.join("\n"));
    Ok(Turns::Messages(with_system(columns, turns)?))
}

/// The turns after what the column `system` says, if it says anything.
fn with_system(columns: &Columns<'_>, mut turns: Vec<Turn>) -> Result<Vec<Turn>, String> {
    let system = columns.text("system")?;
    if !system.is_empty() {
        if turns.first().is_some_and(|turn| turn.role == Role::System) {
            return Err("column system: the conversation has a system turn of its own; keep one of them".to_owned());
        }
        turns.insert(0, Turn { role: Role::System, content: system.to_owned() });
    }
    Ok(turns)
}
