//! One wrapper around Hugging Face's `tokenizers`: loading with caps, encoding documents and prompts, decoding.

mod around;
mod mask;
mod spans;
mod train;

use std::{collections::HashMap, sync::Arc};

use tokenizers::{DecoderWrapper, ModelWrapper, PreTokenizerWrapper, pre_tokenizers::split::SplitPattern};

use crate::Error;

/// Ends a document, and a model's answer.
pub const END_OF_TEXT: &str = "<|endoftext|>";
/// Begins a user's turn.
pub const USER: &str = "<|user|>";
/// Begins the model's turn.
pub const ASSISTANT: &str = "<|assistant|>";
/// Begins the system prompt.
pub const SYSTEM: &str = "<|system|>";
/// What every tokenizer trained here reserves, in id order.
pub const SPECIAL_TOKENS: [&str; 4] = [END_OF_TEXT, USER, ASSISTANT, SYSTEM];

const MAX_FILE_BYTES: usize = 64 << 20;
const MAX_VOCABULARY: usize = 1 << 20;
/// Longer texts are encoded in pieces: the library needs some 30 bytes of memory for each byte it encodes at once.
const PIECE_BYTES: usize = 256 << 10;
/// What loaded tokenizers call the end of a text, most specific first.
const END_NAMES: [&str; 7] = [END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eot_id|>", "<|im_end|>", "[SEP]"];

/// Text to ids and back. Cheap to clone.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

struct Inner {
    /// Takes special tokens in the text for plain text.
    plain: tokenizers::Tokenizer,
    /// Recognises them.
    special: tokenizers::Tokenizer,
    kind: Kind,
    special_ids: Vec<u32>,
    end_of_text: Option<u32>,
    vocabulary_size: usize,
    json: Vec<u8>,
}

enum Kind {
    /// GPT-2's scheme: bytes of each id, and pieces can be encoded apart.
    ByteLevel(Vec<Option<Box<[u8]>>>),
    /// One id a character.
    Characters { ids: HashMap<char, u32>, bytes: Vec<Option<Box<[u8]>>> },
    /// Whatever else a tokenizer.json may hold.
    Other,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("vocabulary_size", &self.vocabulary_size()).finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads a tokenizer.json of at most 64 MiB.
    pub fn from_bytes(json: &[u8]) -> Result<Self, Error> {
        if json.len() > MAX_FILE_BYTES {
            return Err(Error::Tokenizer(format!("{} bytes are more than the {MAX_FILE_BYTES} allowed", json.len())));
        }
        let tokenizer = tokenizers::Tokenizer::from_bytes(json).map_err(|e| Error::Tokenizer(e.to_string()))?;
        Self::wrap(tokenizer, json.to_vec())
    }

    fn wrap(mut tokenizer: tokenizers::Tokenizer, json: Vec<u8>) -> Result<Self, Error> {
        // A stored truncation or padding would silently change documents.
        tokenizer.with_truncation(None).map_err(|e| Error::Tokenizer(e.to_string()))?.with_padding(None);
        let vocabulary = tokenizer.get_vocab(true);
        let vocabulary_size = vocabulary.values().max().map_or(0, |&id| id as usize + 1);
        if vocabulary_size == 0 || vocabulary_size > MAX_VOCABULARY {
            return Err(Error::Tokenizer(format!(
                "the vocabulary has {vocabulary_size} ids: 1 to {MAX_VOCABULARY} are allowed"
            )));
        }
        let mut special_ids: Vec<u32> =
            tokenizer.get_added_tokens_decoder().iter().filter(|(_, token)| token.special).map(|(&id, _)| id).collect();
        special_ids.sort_unstable();
        let kind = kind(&tokenizer, &vocabulary, vocabulary_size, &special_ids);
        let end_of_text = END_NAMES.iter().find_map(|name| tokenizer.token_to_id(name));
        let mut plain = tokenizer.clone();
        plain.set_encode_special_tokens(true);
        // Templates write all special tokens themselves, and post-processors cut white space off the places of tokens.
        tokenizer.with_post_processor(None::<tokenizers::PostProcessorWrapper>);
        let inner = Inner { plain, special: tokenizer, kind, special_ids, end_of_text, vocabulary_size, json };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The tokenizer.json.
    #[must_use]
    pub fn json(&self) -> &[u8] {
        &self.inner.json
    }

    /// One more than the largest id: the rows an embedding needs.
    #[must_use]
    pub fn vocabulary_size(&self) -> usize {
        self.inner.vocabulary_size
    }

    /// The id after each document; none where the tokenizer has no such token.
    #[must_use]
    pub fn end_of_text(&self) -> Option<u32> {
        self.inner.end_of_text
    }

    /// The id that fills up a batch; none where the tokenizer has no such token.
    #[must_use]
    pub fn padding(&self) -> Option<u32> {
        ["<pad>", "[PAD]"].iter().find_map(|name| self.token_id(name)).filter(|id| self.is_special(*id))
    }

    /// The id of a token by its name in the vocabulary.
    #[must_use]
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.special.token_to_id(token)
    }

    /// The name of an id in the vocabulary.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.special.id_to_token(id)
    }

    /// All special tokens, in order.
    #[must_use]
    pub fn special_ids(&self) -> &[u32] {
        &self.inner.special_ids
    }

    /// Whether an id is a special token, which decoding leaves out.
    #[must_use]
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.special_ids.binary_search(&id).is_ok()
    }

    /// Ids of a text. What looks like a special token is plain text: nobody's document or message can forge one.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        match &self.inner.kind {
            Kind::Characters { ids, .. } => text
                .char_indices()
                .map(|(at, character)| ids.get(&character).copied().ok_or(Error::UnknownCharacter { character, at }))
                .collect(),
            Kind::ByteLevel(_) => {
                let mut ids = Vec::with_capacity(text.len() / 3);
                for piece in pieces(text) {
                    ids.extend(encode(&self.inner.plain, piece)?);
                }
                Ok(ids)
            }
            Kind::Other => encode(&self.inner.plain, text),
        }
    }

    /// Ids of a rendered template, with special tokens recognised.
    pub fn encode_template(&self, text: &str) -> Result<Vec<u32>, Error> {
        if self.inner.special_ids.is_empty() {
            return self.encode(text);
        }
        if let Kind::Characters { ids, .. } = &self.inner.kind
            && !text.contains("<|")
        {
            return text
                .char_indices()
                .map(|(at, character)| ids.get(&character).copied().ok_or(Error::UnknownCharacter { character, at }))
                .collect();
        }
        encode(&self.inner.special, text)
    }

    /// The text of ids; special tokens are left out, bytes that are not UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        self.check(ids)?;
        if !matches!(self.inner.kind, Kind::Other) {
            let bytes: Vec<u8> = ids.iter().filter_map(|&id| self.bytes(id)).flatten().copied().collect();
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
        self.inner.special.decode(ids, true).map_err(|e| Error::Failed(e.to_string()))
    }

    /// The bytes an id adds to the text; none for special tokens and for schemes where an id has no bytes of its own.
    pub(crate) fn bytes(&self, id: u32) -> Option<&[u8]> {
        match &self.inner.kind {
            Kind::ByteLevel(bytes) | Kind::Characters { bytes, .. } => bytes.get(id as usize)?.as_deref(),
            Kind::Other => None,
        }
    }

    pub(crate) fn has_bytes(&self) -> bool {
        !matches!(self.inner.kind, Kind::Other)
    }

    pub(crate) fn check(&self, ids: &[u32]) -> Result<(), Error> {
        let vocabulary_size = self.inner.vocabulary_size;
        match ids.iter().find(|&&id| id as usize >= vocabulary_size) {
            Some(&id) => Err(Error::UnknownId { id, vocabulary_size }),
            None => Ok(()),
        }
    }
}

fn encode(tokenizer: &tokenizers::Tokenizer, text: &str) -> Result<Vec<u32>, Error> {
    let encoding = tokenizer.encode_fast(text, false).map_err(|e| Error::Failed(e.to_string()))?;
    Ok(encoding.get_ids().to_vec())
}

/// Cuts a text where GPT-2's pattern always ends a word, so that pieces encode as the whole would: after a line feed that
/// stands before something visible.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let cut = rest.as_bytes().iter().enumerate().skip(PIECE_BYTES).find_map(|(at, &byte)| {
            let next = (byte == b'\n').then(|| rest[at + 1..].chars().next()).flatten()?;
            (!next.is_whitespace()).then_some(at + 1)
        });
        let (piece, after) = rest.split_at(cut.unwrap_or(rest.len()));
        rest = after;
        Some(piece)
    })
}

fn kind(
    tokenizer: &tokenizers::Tokenizer,
    vocabulary: &HashMap<String, u32>,
    size: usize,
    special_ids: &[u32],
) -> Kind {
    if tokenizer.get_normalizer().is_some() || tokenizer.get_post_processor().is_some_and(adds_tokens) {
        return Kind::Other;
    }
    let ordinary = || vocabulary.iter().filter(|(_, id)| special_ids.binary_search(id).is_err());
    match (tokenizer.get_model(), tokenizer.get_pre_tokenizer(), tokenizer.get_decoder()) {
        (ModelWrapper::BPE(_), Some(PreTokenizerWrapper::ByteLevel(pre)), Some(DecoderWrapper::ByteLevel(_)))
            if pre.use_regex && !pre.add_prefix_space =>
        {
            let alphabet = byte_alphabet();
            let mut bytes = vec![None; size];
            for (token, &id) in ordinary() {
                let mapped: Option<Vec<u8>> = token.chars().map(|c| alphabet.get(&c).copied()).collect();
                bytes[id as usize] = Some(mapped.unwrap_or_else(|| token.as_bytes().to_vec()).into_boxed_slice());
            }
            Kind::ByteLevel(bytes)
        }
        (ModelWrapper::WordLevel(_), Some(PreTokenizerWrapper::Split(split)), Some(DecoderWrapper::Fuse(_)))
            if split.pattern == SplitPattern::Regex(train::ANY_CHARACTER.into()) =>
        {
            let (mut ids, mut bytes) = (HashMap::new(), vec![None; size]);
            for (token, &id) in ordinary() {
                let mut characters = token.chars();
                let (Some(character), None) = (characters.next(), characters.next()) else { return Kind::Other };
                ids.insert(character, id);
                bytes[id as usize] = Some(token.as_bytes().into());
            }
            Kind::Characters { ids, bytes }
        }
        _ => Kind::Other,
    }
}

fn adds_tokens(processor: &tokenizers::PostProcessorWrapper) -> bool {
    !matches!(processor, tokenizers::PostProcessorWrapper::ByteLevel(_))
}

/// GPT-2's map from printable characters to bytes.
fn byte_alphabet() -> HashMap<char, u8> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let (own, shifted): (Vec<u8>, Vec<u8>) = (0..=255).partition(printable);
    let shifted = shifted.into_iter().zip('\u{100}'..).map(|(byte, character)| (character, byte));
    own.into_iter().map(|byte| (char::from(byte), byte)).chain(shifted).collect()
}

#[cfg(test)]
mod tests;
