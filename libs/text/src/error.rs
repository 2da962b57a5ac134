//! What can go wrong with tokenizers and templates, by meaning.

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An argument is out of range; the message names it and the remedy.
    #[error("{0}")]
    Invalid(String),
    /// tokenizer.json cannot be used.
    #[error("tokenizer.json cannot be used: {0}")]
    Tokenizer(String),
    /// A character tokenizer met a character that its training text did not hold.
    #[error(
        "the tokenizer has no id for {character:?} at byte {at}: use a byte-level tokenizer for text beyond its training text"
    )]
    UnknownCharacter {
        /// The character.
        character: char,
        /// Where it stands.
        at: usize,
    },
    /// An id that the tokenizer does not have.
    #[error("id {id} is not in the vocabulary of {vocabulary_size}")]
    UnknownId {
        /// The id.
        id: u32,
        /// How many ids there are.
        vocabulary_size: usize,
    },
    /// Nothing says which token hides others from an encoder.
    #[error(
        "the tokenizer has no mask token{0}: name it as mask_token in tokenizer_config.json, or use a tokenizer of which [MASK] or <mask> is a special token"
    )]
    NoMaskToken(String),
    /// The library failed on valid input.
    #[error("tokenizing failed: {0}")]
    Failed(String),
    /// A chat template cannot be parsed or rendered.
    #[error("chat template {name}: {detail}")]
    Template {
        /// Which template.
        name: String,
        /// What is wrong, with the line where known.
        detail: String,
    },
    /// A chat template refused the messages by `raise_exception`.
    #[error("chat template {name} refuses the messages: {reason}")]
    Refused {
        /// Which template.
        name: String,
        /// What the template said.
        reason: String,
    },
    /// What the assistant says in a rendered conversation cannot be told from the rest.
    #[error(
        "template mismatch: chat template {name} {detail}; mark what the assistant says with {{% generation %}} and {{% endgeneration %}}"
    )]
    TemplateMismatch {
        /// Which template.
        name: String,
        /// How it hides what is looked for.
        detail: String,
    },
    /// The model has no chat template, and conversations need one.
    #[error(
        "the model has no chat template: put chat_template.jinja into its directory, or give prompts as plain text"
    )]
    NoTemplate,
    /// No token of a row would be learned.
    #[error("nothing would be learned from the row: {0}")]
    NothingLearned(String),
    /// A row is of another type than what is done with it.
    #[error("the row is a {found}, and {wanted} is wanted: choose the method that fits the dataset's rows")]
    OtherRow {
        /// The row's type.
        found: &'static str,
        /// What was asked for.
        wanted: &'static str,
    },
}
