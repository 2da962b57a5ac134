//! Asks the inference service and gives its answer out, whole or as a stream. Whoever drops the future or the stream stops the work.

use axum::Json;
use axum::response::{IntoResponse, Response};
use tidemill_proto::inference::v1::generate_request::Input;
use tidemill_proto::inference::v1::{Answer, GenerateStreamResponse};
use tokio::time::Instant;
use tonic::{Status, Streaming};

use crate::error::ApiError;
use crate::parameters::Parameters;
use crate::shape::Shape;
use crate::{Gateway, sse};

/// The messages of one answer, with the time by which it must end.
pub(crate) struct Messages {
    stream: Streaming<GenerateStreamResponse>,
    deadline: Instant,
    gateway_timeout_seconds: u64,
}

impl Messages {
    /// The next message. The last one has a receipt; there is none after it.
    pub(crate) async fn next(&mut self) -> Result<GenerateStreamResponse, Status> {
        match tokio::time::timeout_at(self.deadline, self.stream.message()).await {
            Ok(Ok(Some(message))) => {
                if message.receipt.is_some() {
                    // To the end of the call: one that is dropped before its trailers came looks cancelled.
                    let _end = tokio::time::timeout_at(self.deadline, self.stream.message()).await;
                }
                Ok(message)
            }
            Ok(Ok(None)) => Err(Status::internal("the answer ended without its last message")),
            Ok(Err(status)) => Err(status),
            Err(_elapsed) => Err(Status::deadline_exceeded(format!(
                "the answer was not written within gateway.request_timeout_seconds = {}",
                self.gateway_timeout_seconds
            ))),
        }
    }
}

/// Answers a request in the shape of the API that was asked.
pub(crate) async fn answer(
    gateway: &Gateway,
    shape: Shape,
    parameters: &Parameters,
    input: Input,
) -> Result<Response, ApiError> {
    let deadline = Instant::now() + gateway.timeout;
    // A stream also where one piece is wanted: its deadline is ours, not that of a single call.
    let called = gateway.clients.inference().generate_stream(parameters.request(input)).await;
    let stream = called.map_err(|status| ApiError::about_model(&status))?.into_inner();
    let messages = Messages { stream, deadline, gateway_timeout_seconds: gateway.timeout.as_secs() };
    if parameters.stream {
        return Ok(sse::response(messages, shape, parameters));
    }
    let (text, receipt) = whole(messages).await.map_err(|status| ApiError::about_model(&status))?;
    let head = shape.head(&receipt.name, &parameters.model);
    Ok(Json(shape.whole(&head, &text, &receipt)).into_response())
}

async fn whole(mut messages: Messages) -> Result<(String, Answer), Status> {
    let mut text = String::new();
    loop {
        let message = messages.next().await?;
        text.push_str(&message.text);
        if let Some(receipt) = message.receipt {
            return Ok((text, *receipt));
        }
    }
}
