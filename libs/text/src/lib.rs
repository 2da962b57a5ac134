//! Tokenizers and chat templates: text to ids and back, messages to the text a model was trained to continue.
//! Pure: the same text trains the same tokenizer, byte for byte.

mod chat;
mod config;
mod error;
mod stream;
mod tokenizer;

pub use chat::{ChatTemplate, Message, PLAIN_TEMPLATE};
pub use config::tokenizer_config;
pub use error::Error;
pub use stream::StreamDecoder;
pub use tokenizer::{ASSISTANT, END_OF_TEXT, SPECIAL_TOKENS, SYSTEM, Tokenizer, USER};
