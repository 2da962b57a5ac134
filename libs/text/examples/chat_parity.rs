//! Renders conversations and marks what the assistant says, for a comparison with other implementations: cases as JSON on standard
//! input (`{"tokenizer": PATH, "cases": [{"template", "messages", "bos_token", "eos_token"}]}`), one answer a line.

use serde::Deserialize;
use serde_json::json;
use tidemill_text::{ChatTemplate, Error, Message, Tokenizer};

#[derive(Deserialize)]
struct Input {
    tokenizer: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    template: String,
    messages: Vec<Message>,
    bos_token: String,
    eos_token: String,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let input: Input = serde_json::from_reader(std::io::stdin())?;
    let tokenizer = Tokenizer::from_bytes(&std::fs::read(&input.tokenizer)?)?;
    for case in &input.cases {
        let answer = answer(case, &tokenizer).unwrap_or_else(|error| json!({"error": error.to_string()}));
        println!("{answer}");
    }
    Ok(())
}

fn answer(case: &Case, tokenizer: &Tokenizer) -> Result<serde_json::Value, Error> {
    let Case { messages, bos_token, eos_token, .. } = case;
    let template = ChatTemplate::parse("case", &case.template)?;
    let prompt = template.render(messages, true, bos_token, eos_token)?;
    let text = template.render(messages, false, bos_token, eos_token)?;
    let spans = template.render_spans(messages, bos_token, eos_token).and_then(|rendered| {
        let (ids, mask) = tokenizer.encode_template_spans(&rendered.text, &rendered.assistant)?;
        Ok(json!({"ids": ids, "mask": mask.into_iter().map(u8::from).collect::<Vec<_>>()}))
    });
    let spans = spans.unwrap_or_else(|error| json!({"error": error.to_string()}));
    Ok(json!({"prompt": prompt, "text": text, "spans": spans}))
}
