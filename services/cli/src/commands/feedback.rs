//! `tidemill feedback`: a judgement on one answer.

use tidemill_proto::inference::v1::GetAnswerRequest;
use tidemill_proto::ingestion::v1::feedback::Rating;
use tidemill_proto::ingestion::v1::{CreateFeedbackRequest, Feedback};

use super::{Context, answer_name, request_id};
use crate::arguments;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::output;

/// What somebody thinks of an answer.
pub(super) struct Judgement {
    pub(super) rating: Rating,
    pub(super) correction: String,
}

/// Stores a judgement.
pub(super) async fn execute(context: &Context, feedback: &arguments::Feedback) -> Result<(), Failure> {
    let connection = context.connect().await?;
    let rating = match (feedback.up, feedback.down) {
        (true, _) => Rating::Up,
        (_, true) => Rating::Down,
        _ => Rating::Unspecified,
    };
    let judgement = Judgement { rating, correction: feedback.correction.clone().unwrap_or_default() };
    let stored = post(&connection, &feedback.answer, &judgement, feedback.consent).await?;
    if context.output.for_people() {
        output::line(&stored.name);
        if !stored.consent {
            context.output.note("kept; without --consent it is never trained on");
        }
    } else {
        context.output.one(&stored);
    }
    Ok(())
}

/// Sends a judgement with what the answer's receipt knows: ingestion asks no other service.
pub(super) async fn post(
    connection: &Connection,
    answer: &str,
    judgement: &Judgement,
    consent: bool,
) -> Result<Feedback, Failure> {
    let request = GetAnswerRequest { name: answer_name(answer) };
    let answer = connection.inference().get_answer(request).await?.into_inner();
    let mut feedback = Feedback {
        answer: answer.name,
        prompt: answer.prompt,
        completion: answer.completion,
        correction: judgement.correction.clone(),
        consent,
        model_digest: answer.model_digest,
        model: answer.model,
        ..Default::default()
    };
    feedback.set_rating(judgement.rating);
    let request =
        CreateFeedbackRequest { feedback_id: String::new(), feedback: Some(feedback), request_id: request_id() };
    Ok(connection.ingestion().create_feedback(request).await?.into_inner())
}
