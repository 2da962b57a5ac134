//! One answer as it is written: tokens become text, stop strings end it, and its receipt is durable before its last piece is sent.

use std::sync::Arc;

use tidemill_chassis::Fault;
use tidemill_platform::fault_of_resources;
use tidemill_proto::inference::v1::Answer;
use tidemill_resources::Collection;
use tidemill_text::StreamDecoder;

use crate::engine::{Busy, Failure, Step, Tokens};
use crate::fleet::Served;
use crate::stop::{Passed, StopFilter};
use crate::told::Told;
use crate::validate::ValidRequest;

/// An answer that is being written. Dropping it stops the work.
pub(crate) struct Generation {
    answers: Collection<Answer>,
    receipt: Answer,
    store: bool,
    tokens: Tokens,
    text: Option<(StreamDecoder, StopFilter)>,
    completion: String,
    told: Told,
}

/// What an answer gives out next.
pub(crate) enum Piece {
    /// New text, never empty.
    Text(String),
    /// The last text, which may be empty, and the receipt.
    Last(String, Box<Answer>),
}

impl Generation {
    /// Hands the request to the model's engine.
    pub(crate) fn start(
        mut request: ValidRequest,
        served: &Arc<Served>,
        answers: Collection<Answer>,
        told: Told,
    ) -> Result<Self, Fault> {
        let mut receipt = Answer {
            name: format!("answers/{}", request.answer_id),
            deployment: served.deployment.clone(),
            model: served.model.clone(),
            model_version: served.version.clone(),
            model_digest: served.loaded.digest.clone(),
            prompt_tokens: i32::try_from(request.job.prompt.len()).unwrap_or(i32::MAX),
            seed: request.job.seed,
            ..Answer::default()
        };
        if request.store {
            receipt.prompt = request.prompt;
        }
        request.job.span = told.span().clone();
        let tokens = match served.loaded.engine.submit(request.job) {
            Ok(tokens) => tokens,
            Err(busy) => {
                told.rejected();
                return Err(busy.into());
            }
        };
        let text = Some((StreamDecoder::new(&served.loaded.tokenizer), StopFilter::new(request.stop)));
        Ok(Self { answers, receipt, store: request.store, tokens, text, completion: String::new(), told })
    }

    /// The answer's name.
    pub(crate) fn name(&self) -> &str {
        &self.receipt.name
    }

    /// Waits for the next piece. After [`Piece::Last`] there is none.
    pub(crate) async fn next(&mut self) -> Result<Piece, Fault> {
        loop {
            let step = self.tokens.recv().await.ok_or_else(|| Fault::internal("the engine's thread has ended"))?;
            let passed = match step.inspect_err(|_| self.told.failed())? {
                Step::Token(id) => {
                    self.told.token();
                    self.receipt.completion_tokens += 1;
                    let (decoder, stop) = self.text()?;
                    stop.push(&decoder.push(id).map_err(Fault::internal)?)
                }
                end @ (Step::Ended | Step::Full) => {
                    let (decoder, mut stop) =
                        self.text.take().ok_or_else(|| Fault::internal("an answer ended twice"))?;
                    let rest = stop.push(&decoder.finish().map_err(Fault::internal)?);
                    return match rest {
                        Passed::Stopped(text) => self.end(text, "stop").await,
                        Passed::Text(text) => {
                            let reason = if end == Step::Ended { "stop" } else { "length" };
                            self.end(text + &stop.finish(), reason).await
                        }
                    };
                }
            };
            match passed {
                Passed::Text(text) if text.is_empty() => {}
                Passed::Text(text) => {
                    self.completion.push_str(&text);
                    return Ok(Piece::Text(text));
                }
                Passed::Stopped(text) => {
                    // The engine need not write what nobody will read.
                    self.tokens.close();
                    return self.end(text, "stop").await;
                }
            }
        }
    }

    fn text(&mut self) -> Result<&mut (StreamDecoder, StopFilter), Fault> {
        self.text.as_mut().ok_or_else(|| Fault::internal("an answer went on after its end"))
    }

    async fn end(&mut self, text: String, reason: &str) -> Result<Piece, Fault> {
        self.completion.push_str(&text);
        self.receipt.finish_reason = reason.to_owned();
        if self.store {
            self.receipt.completion = std::mem::take(&mut self.completion);
        }
        let created = self.answers.create(&self.receipt, None, Vec::new()).await;
        let (receipt, _created) = created.map_err(fault_of_resources).inspect_err(|_| self.told.failed())?;
        self.told.finished(&receipt);
        Ok(Piece::Last(text, Box::new(receipt)))
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Fault::internal(failure)
    }
}

impl From<Busy> for Fault {
    fn from(busy: Busy) -> Self {
        Fault::exhausted("QUEUE_FULL", busy.to_string())
    }
}
