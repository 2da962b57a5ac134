//! `tidemill watch`: follows a job or a run, and ends with what came of it.

use tidemill_proto::evaluation::v1::GetEvaluationRequest;
use tidemill_proto::pipeline::v1::PipelineRun;
use tidemill_proto::pipeline::v1::pipeline_run::Verdict;
use tidemill_proto::r#type::v1::State;

use super::{Context, print_findings};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::jobs::{self, AnyJob, each};
use crate::output;
use crate::view::{End, evaluation_report, follow, trials};

/// Follows what a name or an id names.
pub(super) async fn execute(context: &Context, name: &str) -> Result<(), Failure> {
    let connection = context.connect().await?;
    let name = jobs::resolve(&connection, name).await?;
    to_the_end(context, &connection, &name).await
}

/// Follows a job or a run; its end decides how the command ends.
pub(super) async fn to_the_end(context: &Context, connection: &Connection, name: &str) -> Result<(), Failure> {
    let job = match follow(connection, context.output, name).await? {
        End::Ended(job) => job,
        End::Detached => {
            context.output.note(&format!("\n{name} goes on; follow it again with `tidemill watch {name}`"));
            return Ok(());
        }
    };
    if !context.output.for_people() {
        context.output.value(&job.json());
    }
    match job.as_ref() {
        AnyJob::Run(run) if run.state() == State::Succeeded => verdict(context, connection, run).await,
        AnyJob::Evaluation(evaluation) if evaluation.state() == State::Succeeded => {
            if context.output.for_people() {
                output::line(&evaluation_report(evaluation));
            }
            Ok(())
        }
        AnyJob::Study(study) => {
            if context.output.for_people() {
                output::line(&trials(study));
            }
            outcome(study)
        }
        job => each!(job, job => outcome(job)),
    }
}

/// Whether a job ended well.
fn outcome<J: tidemill_proto::Job>(job: &J) -> Result<(), Failure> {
    match job.job_state() {
        State::Failed => {
            let error = job.error().cloned().unwrap_or_default();
            let status = tonic::Status::with_details(error.code.into(), error.message.clone(), encoded(&error));
            Err(Failure::Failed(format!("{} failed: {}", job.name(), crate::failure::described(&status))))
        }
        State::Cancelled => Err(Failure::Failed(format!("{} was cancelled", job.name()))),
        _ => Ok(()),
    }
}

fn encoded(status: &tonic_types::Status) -> prost::bytes::Bytes {
    prost::Message::encode_to_vec(status).into()
}

/// Prints what was measured and what the gate said.
async fn verdict(context: &Context, connection: &Connection, run: &PipelineRun) -> Result<(), Failure> {
    let evaluate = run.steps.iter().find(|step| step.resource.starts_with("evaluations/"));
    if let Some(step) = evaluate.filter(|_| context.output.for_people() && !context.output.quiet) {
        let request = GetEvaluationRequest { name: step.resource.clone() };
        let evaluation = connection.evaluation().get_evaluation(request).await?.into_inner();
        output::line(&format!("\n{}", evaluation_report(&evaluation)));
    }
    let refused = run.verdict() == Verdict::Refused;
    if context.output.for_people() {
        output::line(&format!("\nthe gate {} {}", if refused { "refused" } else { "promoted" }, run.model_version));
        print_findings(&run.findings);
    }
    if refused { Err(Failure::Refused(String::new())) } else { Ok(()) }
}
