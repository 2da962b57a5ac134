//! The two shapes of an answer, whole and in chunks, as OpenAI sends them.

use serde_json::{Value, json};
use tidemill_proto::inference::v1::Answer;
use tidemill_proto::names;

/// Which API was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Completion,
    Chat,
}

/// What every chunk of an answer says.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    id: String,
    created: i64,
    model: String,
}

impl Shape {
    /// The head of an answer's chunks; its id is the receipt's behind the first dash.
    pub(crate) fn head(self, answer: &str, model: &str) -> Head {
        let kind = match self {
            Self::Completion => "cmpl",
            Self::Chat => "chatcmpl",
        };
        let created = jiff::Timestamp::now().as_second();
        Head { id: format!("{kind}-{}", names::last_id(answer)), created, model: model.to_owned() }
    }

    /// The answer in one piece.
    pub(crate) fn whole(self, head: &Head, text: &str, receipt: &Answer) -> Value {
        let reason = &receipt.finish_reason;
        let (object, choice) = match self {
            Self::Completion => {
                ("text_completion", json!({"index": 0, "text": text, "logprobs": null, "finish_reason": reason}))
            }
            Self::Chat => {
                let message = json!({"role": "assistant", "content": text, "refusal": null});
                let choice = json!({"index": 0, "message": message, "logprobs": null, "finish_reason": reason});
                ("chat.completion", choice)
            }
        };
        json!({
            "id": head.id, "object": object, "created": head.created, "model": head.model, "choices": [choice],
            "usage": usage(receipt), "system_fingerprint": fingerprint(receipt),
        })
    }

    /// What comes before the first text, if anything.
    pub(crate) fn first(self, head: &Head) -> Option<Value> {
        let delta = json!({"role": "assistant", "content": "", "refusal": null});
        (self == Self::Chat)
            .then(|| self.chunk(head, json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": null})))
    }

    /// New text.
    pub(crate) fn piece(self, head: &Head, text: &str) -> Value {
        self.chunk(
            head,
            match self {
                Self::Completion => json!({"index": 0, "text": text, "logprobs": null, "finish_reason": null}),
                Self::Chat => json!({"index": 0, "delta": {"content": text}, "logprobs": null, "finish_reason": null}),
            },
        )
    }

    /// Why there is no more.
    pub(crate) fn last(self, head: &Head, receipt: &Answer) -> Value {
        let reason = &receipt.finish_reason;
        let mut chunk = self.chunk(
            head,
            match self {
                Self::Completion => json!({"index": 0, "text": "", "logprobs": null, "finish_reason": reason}),
                Self::Chat => json!({"index": 0, "delta": {}, "logprobs": null, "finish_reason": reason}),
            },
        );
        chunk["system_fingerprint"] = json!(fingerprint(receipt));
        chunk
    }

    /// What it took: after the last text, without choices.
    pub(crate) fn usage(self, head: &Head, receipt: &Answer) -> Value {
        let mut chunk = self.chunk(head, Value::Null);
        chunk["choices"] = json!([]);
        chunk["usage"] = usage(receipt);
        chunk["system_fingerprint"] = json!(fingerprint(receipt));
        chunk
    }

    fn chunk(self, head: &Head, choice: Value) -> Value {
        let object = match self {
            Self::Completion => "text_completion",
            Self::Chat => "chat.completion.chunk",
        };
        json!({"id": head.id, "object": object, "created": head.created, "model": head.model, "choices": [choice]})
    }
}

fn usage(receipt: &Answer) -> Value {
    json!({
        "prompt_tokens": receipt.prompt_tokens,
        "completion_tokens": receipt.completion_tokens,
        "total_tokens": receipt.prompt_tokens.saturating_add(receipt.completion_tokens),
    })
}

/// The weights that answered: the first digits of their digest.
fn fingerprint(receipt: &Answer) -> String {
    let hex = receipt.model_digest.strip_prefix("sha256:").unwrap_or(&receipt.model_digest);
    format!("fp_{}", hex.get(..12).unwrap_or(hex))
}
