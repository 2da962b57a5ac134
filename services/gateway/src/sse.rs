//! Server-sent events as OpenAI sends them: `data: {chunk}`, and `data: [DONE]` at the end; an error is an event too, and the last.

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use futures::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde_json::Value;
use tidemill_proto::inference::v1::GenerateStreamResponse;

use crate::answering::Messages;
use crate::error::ApiError;
use crate::parameters::Parameters;
use crate::shape::{Head, Shape};

/// An answer on its way out.
struct Outgoing {
    messages: Messages,
    shape: Shape,
    model: String,
    include_usage: bool,
    /// Known with the first message.
    head: Option<Head>,
}

pub(crate) fn response(messages: Messages, shape: Shape, parameters: &Parameters) -> Response {
    let outgoing = Outgoing {
        messages,
        shape,
        model: parameters.model.clone(),
        include_usage: parameters.include_usage,
        head: None,
    };
    let events = stream::unfold(Some(outgoing), async |outgoing| {
        let mut outgoing = outgoing?;
        let mut events = String::new();
        match outgoing.messages.next().await {
            Ok(message) => {
                let ended = message.receipt.is_some();
                outgoing.write(&message, &mut events);
                let bytes = Ok::<_, std::convert::Infallible>(Bytes::from(events));
                Some((bytes, (!ended).then_some(outgoing)))
            }
            Err(status) => {
                write(&ApiError::about_model(&status).body(), &mut events);
                Some((Ok(Bytes::from(events)), None))
            }
        }
    });
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(events)).into_response()
}

impl Outgoing {
    fn write(&mut self, message: &GenerateStreamResponse, events: &mut String) {
        let head = match self.head.take() {
            Some(head) => head,
            None => {
                let head = self.shape.head(&message.answer, &self.model);
                if let Some(first) = self.shape.first(&head) {
                    self.chunk(first, events);
                }
                head
            }
        };
        if !message.text.is_empty() {
            self.chunk(self.shape.piece(&head, &message.text), events);
        }
        if let Some(receipt) = &message.receipt {
            self.chunk(self.shape.last(&head, receipt), events);
            if self.include_usage {
                write(&self.shape.usage(&head, receipt), events);
            }
            events.push_str("data: [DONE]\n\n");
        }
        self.head = Some(head);
    }

    /// Where usage comes at the end, every chunk before it says that it has none.
    fn chunk(&self, mut chunk: Value, events: &mut String) {
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        write(&chunk, events);
    }
}

fn write(value: &Value, events: &mut String) {
    // JSON has no raw line feeds, so one `data:` line holds it.
    events.push_str(&format!("data: {value}\n\n"));
}
