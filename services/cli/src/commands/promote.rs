//! `tidemill promote`: asks the gate.

use tidemill_proto::registry::v1::{ListObjectivesRequest, PromoteModelVersionRequest};
use tonic::Code;
use tonic_types::StatusExt as _;

use super::{Context, named, print_findings, request_id};
use crate::arguments::Promote;
use crate::failure::Failure;
use crate::output;

/// Moves an alias, or prints why not.
pub(super) async fn execute(context: &Context, promote: &Promote) -> Result<(), Failure> {
    let connection = context.connect().await?;
    let request = PromoteModelVersionRequest {
        name: promote.model_version.clone(),
        alias: promote.alias.clone(),
        objective: named("objectives", &promote.objective),
        request_id: request_id(),
    };
    let response = match connection.registry().promote_model_version(request).await {
        Ok(response) => response.into_inner(),
        Err(status) if status.code() == Code::FailedPrecondition => {
            let details = status.get_error_details();
            let violations =
                details.precondition_failure().map(|failure| failure.violations.clone()).unwrap_or_default();
            let findings: Vec<String> =
                violations.iter().map(|violation| format!("  {}", violation.description)).collect();
            return Err(Failure::Refused(
                format!("refused: {}\n{}", status.message(), findings.join("\n")).trim_end().to_owned(),
            ));
        }
        Err(status) if status.code() == Code::NotFound && status.message().contains("objectives/") => {
            let known = connection.registry().list_objectives(ListObjectivesRequest::default()).await?.into_inner();
            let known: Vec<&str> = known.objectives.iter().map(|objective| objective.name.as_str()).collect();
            return Err(Failure::NotFound(format!("{}; there are: {}", status.message(), known.join(", "))));
        }
        Err(status) => return Err(status.into()),
    };
    if !context.output.for_people() {
        context.output.one(&response);
        return Ok(());
    }
    let alias = response.alias.unwrap_or_default();
    output::line(&format!("{} now points to {}", alias.name, alias.model_version));
    print_findings(&response.decision.unwrap_or_default().findings);
    Ok(())
}
