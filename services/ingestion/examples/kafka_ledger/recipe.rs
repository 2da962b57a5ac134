//! What is produced: message `i` is a function of `i`, so that whoever reads can say what should be there.

use sha2::{Digest as _, Sha256};
use tidemill_dataset::RecordId;

/// Bytes of a well-formed message.
const SIZE: usize = 1024;
/// The limit that the source sets.
pub(crate) const LARGEST: usize = 4096;

/// The messages of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipe {
    pub(crate) messages: u64,
    pub(crate) partitions: u64,
    /// Whether one in a hundred is malformed.
    pub(crate) malformed: bool,
}

/// What is wrong with a malformed message: the code that it should be refused with.
const KINDS: [&str; 8] = [
    "MALFORMED_JSON",
    "INVALID_UTF8",
    "MISSING_TEXT",
    "RECORD_TOO_LARGE",
    "BINARY",
    "NOT_AN_OBJECT",
    "EMPTY",
    "TOMBSTONE",
];

impl Recipe {
    /// Where message `i` goes; the offset is `i / partitions`.
    pub(crate) fn partition(&self, i: u64) -> u32 {
        (i % self.partitions) as u32
    }

    /// The message at a place.
    pub(crate) fn index(&self, partition: u64, offset: u64) -> u64 {
        offset * self.partitions + partition
    }

    /// Why message `i` should be refused, if it should.
    pub(crate) fn cause(&self, i: u64) -> Option<&'static str> {
        (self.malformed && i % 100 == 37).then(|| KINDS[(i / 100) as usize % KINDS.len()])
    }

    /// Message `i`; one without a value is none.
    pub(crate) fn value(&self, i: u64) -> Option<Vec<u8>> {
        let Some(cause) = self.cause(i) else { return Some(object(&text(self.original(i)))) };
        let mut value = object(&text(i));
        match cause {
            "MALFORMED_JSON" => value.truncate(SIZE / 2),
            "INVALID_UTF8" => value[SIZE / 2] = 0xFF,
            "MISSING_TEXT" => value = format!(r#"{{"body": {i}}}"#).into_bytes(),
            "RECORD_TOO_LARGE" => value.resize(LARGEST + 1, b' '),
            "BINARY" => value[SIZE / 2] = 0,
            "NOT_AN_OBJECT" => value = format!(r#"["text", {i}]"#).into_bytes(),
            "EMPTY" => value = object(" \n"),
            _ => return None,
        }
        Some(value)
    }

    /// The ids of all records that should be in the dataset, sorted, each once; and how often one came again.
    pub(crate) fn expected(&self) -> (Vec<RecordId>, u64) {
        let well_formed = (0..self.messages).filter(|&i| self.cause(i).is_none());
        let mut ids: Vec<_> = well_formed.map(|i| RecordId::of(text(self.original(i)).as_bytes())).collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        let again = (all - ids.len()) as u64;
        (ids, again)
    }

    /// One in ten repeats an earlier one, anywhere in the topic: its text is that one's.
    fn original(&self, i: u64) -> u64 {
        if i % 10 != 9 {
            return i;
        }
        let earlier = Sha256::digest(i.to_le_bytes()).first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)) % i;
        // Neither a repeat nor a malformed one: the first of its ten.
        earlier - earlier % 10
    }
}

/// Words that no other message has in this order.
fn text(i: u64) -> String {
    let seed: [u8; 32] = Sha256::digest(i.to_le_bytes()).into();
    let mut state = u64::from_le_bytes(seed[..8].try_into().expect("8 of 32 bytes"));
    let mut text = format!("Record {i} says");
    while text.len() < SIZE - 40 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let word = WORDS[(state >> 33) as usize % WORDS.len()];
        text.push(' ');
        text.push_str(word);
    }
    text
}

fn object(text: &str) -> Vec<u8> {
    let mut value = serde_json::json!({ "text": text, "lang": "en" }).to_string().into_bytes();
    // White space behind the object makes every message as long as another.
    value.resize(SIZE.max(value.len()), b' ');
    value
}

const WORDS: [&str; 64] = [
    "river", "mill", "tide", "stone", "wheel", "harvest", "grain", "water", "evening", "lantern", "market", "valley",
    "orchard", "winter", "letter", "captain", "harbour", "morning", "silver", "thunder", "garden", "window", "journey",
    "mountain", "meadow", "shadow", "candle", "bridge", "village", "copper", "feather", "forest", "island", "kettle",
    "ladder", "marble", "needle", "oyster", "parlour", "quarry", "ribbon", "saddle", "tailor", "umbrella", "velvet",
    "walnut", "yonder", "zephyr", "anchor", "barrel", "cellar", "dagger", "ember", "falcon", "goblet", "hammer",
    "ivory", "jacket", "kernel", "locket", "mirror", "nutmeg", "ochre", "pebble",
];
