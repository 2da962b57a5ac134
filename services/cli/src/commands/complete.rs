//! `tidemill complete`: one continued text.

use futures::StreamExt as _;
use tidemill_proto::inference::v1::GenerateRequest;
use tidemill_proto::inference::v1::generate_request::Input;

use super::Context;
use crate::arguments::Complete;
use crate::failure::Failure;
use crate::output;

/// Streams for people; answers once for programs.
pub(super) async fn execute(context: &Context, complete: &Complete) -> Result<(), Failure> {
    let connection = context.connect().await?;
    let request = GenerateRequest {
        model: complete.model.clone(),
        input: Some(Input::Prompt(complete.prompt.clone())),
        sampling: Some((&complete.sampling).into()),
        store: complete.store,
        answer_id: String::new(),
    };
    if !context.output.for_people() {
        context.output.one(&connection.inference().generate(request).await?.into_inner());
        return Ok(());
    }
    let mut stream = connection.inference().generate_stream(request).await?.into_inner();
    let mut last = None;
    while let Some(part) = stream.next().await {
        let part = part?;
        output::raw(&part.text);
        last = Some(part);
    }
    output::raw("\n");
    if let Some(receipt) = last.and_then(|part| part.receipt) {
        let tokens = receipt.completion_tokens;
        context
            .output
            .note(&format!("{}  {tokens} tokens by {}, seed {}", receipt.name, receipt.model_version, receipt.seed));
    }
    Ok(())
}
