//! Chat templates: Jinja as Hugging Face renders it, with fuel so that a hostile template cannot run for ever.

mod format;
mod marks;
mod python;
mod spans;

use minijinja::{Environment, ErrorKind, Value, context, syntax::SyntaxConfig};
use serde::{Deserialize, Serialize};

use crate::Error;
pub use format::ChatFormat;
pub use spans::Rendered;

/// For base models trained on plain text: each message's content, then a blank line.
pub const PLAIN_TEMPLATE: &str = "{% for message in messages %}{{ message['content'] + '\\n\\n' }}{% endfor %}";

const NAME: &str = "template";
/// The same, as conversations to learn from are written.
const TRAINING: &str = "training";
const MAX_TEMPLATE_BYTES: usize = 1 << 20;
const FUEL: u64 = 10_000_000;
const REFUSAL: &str = "raise_exception: ";

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A message.
    #[must_use]
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// A parsed template.
#[derive(Debug)]
pub struct ChatTemplate {
    name: String,
    source: String,
    /// Whether the template itself marks what the assistant says.
    marked: bool,
    environment: Environment<'static>,
}

impl ChatTemplate {
    /// Parses a template; `name` appears in errors.
    pub fn parse(name: &str, source: &str) -> Result<Self, Error> {
        let failed = |detail: String| Error::Template { name: name.into(), detail };
        if source.len() > MAX_TEMPLATE_BYTES {
            return Err(failed(format!("{} bytes are more than the {MAX_TEMPLATE_BYTES} allowed", source.len())));
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| failed(describe(&error)))?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(python::method);
        environment.add_filter("tojson", python::to_json);
        environment.add_test("iterable", python::is_iterable);
        environment.add_function("raise_exception", |reason: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, format!("{REFUSAL}{reason}")))
        });
        let (text, marked) = marks::rewritten(source);
        let training = marks::every_answer_as_the_last(&text);
        for (name, text) in [(NAME, text), (TRAINING, training)] {
            environment.add_template_owned(name, text).map_err(|error| failed(describe(&error)))?;
        }
        Ok(Self { name: name.into(), source: source.into(), marked, environment })
    }

    /// The template for base models trained on plain text.
    #[must_use]
    pub fn plain() -> Self {
        Self::parse("plain", PLAIN_TEMPLATE).expect("the built-in template parses")
    }

    /// What errors call the template.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The template's text, as stored beside a model.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text of a conversation. Tokens that the tokenizer lacks are passed as "".
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        bos_token: &str,
        eos_token: &str,
    ) -> Result<String, Error> {
        self.render_as(NAME, messages, add_generation_prompt, [bos_token, eos_token], false)
    }

    fn render_as(
        &self,
        name: &str,
        messages: &[Message],
        add_generation_prompt: bool,
        [bos_token, eos_token]: [&str; 2],
        marks: bool,
    ) -> Result<String, Error> {
        let failed = |error: minijinja::Error| match error.detail().and_then(|detail| detail.strip_prefix(REFUSAL)) {
            Some(reason) => Error::Refused { name: self.name.clone(), reason: reason.into() },
            None => Error::Template { name: self.name.clone(), detail: describe(&error) },
        };
        let template = self.environment.get_template(name).map_err(failed)?;
        let turn = |m: &Message| Value::from_pairs([("role", m.role.as_str()), ("content", m.content.as_str())]);
        let messages: Value = messages.iter().map(turn).collect();
        // Templates ask whether there are tools and documents; that there are none is said in Python's way.
        let (tools, documents) = (Value::from(()), Value::from(()));
        let values = context! { messages, add_generation_prompt, bos_token, eos_token, tools, documents, tidemill_marks => marks };
        template.render(values).map_err(failed)
    }
}

fn describe(error: &minijinja::Error) -> String {
    let place = error.line().map(|line| format!(" (line {line})")).unwrap_or_default();
    let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    format!("{}{detail}{place}", error.kind())
}

#[cfg(test)]
mod tests;
