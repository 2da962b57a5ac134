//! How a model's conversations are written, as the files of its directory say.

use serde_json::Value;

use super::{ChatTemplate, Message, Rendered};
use crate::Error;

/// A model's template, and the names of the tokens that templates write. The names are empty where the model has none.
#[derive(Debug, Default)]
pub struct ChatFormat {
    /// The template; a base model may have none.
    pub template: Option<ChatTemplate>,
    /// The token before a text.
    pub bos_token: String,
    /// The token after a text.
    pub eos_token: String,
}

impl ChatFormat {
    /// From the bytes of `chat_template.jinja` and `tokenizer_config.json`, where the directory has them. The former wins.
    pub fn read(chat_template: Option<&[u8]>, tokenizer_config: Option<&[u8]>) -> Result<Self, Error> {
        const FILES: [&str; 2] = ["chat_template.jinja", "tokenizer_config.json"];
        let failed = |file: &str, detail: String| Error::Template { name: file.to_owned(), detail };
        let config: Value = match tokenizer_config {
            Some(bytes) => serde_json::from_slice(bytes).map_err(|error| failed(FILES[1], error.to_string()))?,
            None => Value::Null,
        };
        let template = match chat_template {
            Some(bytes) => {
                let source = std::str::from_utf8(bytes).map_err(|error| failed(FILES[0], error.to_string()))?;
                Some(ChatTemplate::parse(FILES[0], source)?)
            }
            None => match of_config(&config["chat_template"]) {
                Some(source) => Some(ChatTemplate::parse(FILES[1], source)?),
                None => None,
            },
        };
        let token = |key: &str| {
            let value = &config[key];
            value.as_str().or_else(|| value["content"].as_str()).unwrap_or_default().to_owned()
        };
        Ok(Self { template, bos_token: token("bos_token"), eos_token: token("eos_token") })
    }

    /// The text of a conversation.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, Error> {
        let template = self.template.as_ref().ok_or(Error::NoTemplate)?;
        template.render(messages, add_generation_prompt, &self.bos_token, &self.eos_token)
    }

    /// The text of a conversation, and what of it the assistant says.
    pub fn render_spans(&self, messages: &[Message]) -> Result<Rendered, Error> {
        let template = self.template.as_ref().ok_or(Error::NoTemplate)?;
        template.render_spans(messages, &self.bos_token, &self.eos_token)
    }
}

/// A template, or the one called `default` of several.
fn of_config(value: &Value) -> Option<&str> {
    let named = || value.as_array()?.iter().find(|named| named["name"] == "default")?["template"].as_str();
    value.as_str().or_else(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_beats_the_config_and_token_names_have_two_forms() {
        let config = br#"{"chat_template": "config", "bos_token": "<s>", "eos_token": {"content": "</s>"}}"#;
        let format = ChatFormat::read(Some(b"file {{ bos_token }}{{ eos_token }}"), Some(config)).unwrap();
        assert_eq!(format.render(&[], true).unwrap(), "file <s></s>");
        assert_eq!(ChatFormat::read(None, Some(config)).unwrap().render(&[], true).unwrap(), "config");
        let several =
            br#"{"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]}"#;
        assert_eq!(ChatFormat::read(None, Some(several)).unwrap().render(&[], true).unwrap(), "d");
    }

    #[test]
    fn a_model_without_a_template_is_said_to_have_none() {
        let format = ChatFormat::read(None, Some(br#"{"bos_token": null}"#)).unwrap();
        assert_eq!((format.bos_token.as_str(), format.eos_token.as_str()), ("", ""));
        assert!(format.render(&[], true).unwrap_err().to_string().contains("chat_template.jinja"));
        assert!(ChatFormat::read(None, Some(b"{")).unwrap_err().to_string().contains("tokenizer_config.json"));
        assert!(ChatFormat::read(Some(&[0xFF]), None).unwrap_err().to_string().contains("chat_template.jinja"));
    }
}
