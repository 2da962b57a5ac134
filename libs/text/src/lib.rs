//! Tokenizers and chat templates: text to ids and back, messages to the text a model was trained to continue.
//! Pure: the same text trains the same tokenizer, byte for byte.

mod chat;
mod config;
mod error;
mod gguf;
mod masking;
mod stream;
mod supervised;
mod tokenizer;

pub use chat::{ChatFormat, ChatTemplate, Message, PLAIN_TEMPLATE, Rendered};
pub use config::{tokenizer_config, with_special_tokens};
pub use error::Error;
pub use gguf::GgufVocabulary;
pub use masking::Masking;
pub use stream::StreamDecoder;
pub use supervised::{IGNORED, Lesson, Passage, Question, Sourced, Sources, Supervised, Supervisor};
pub use tokenizer::{ASSISTANT, END_OF_TEXT, SPECIAL_TOKENS, SYSTEM, Tokenizer, USER};
