//! The record of steps on the run: begun, ended, how, and with what result.

use tidemill_chassis::Fault;
use tidemill_proto::pipeline::v1::PipelineRun;
use tidemill_proto::pipeline::v1::pipeline_run::Step;
use tidemill_proto::r#type::v1::{Progress, State};

use super::Turn;

impl Turn {
    /// Does a step: notes its beginning and the resource that it drives, works, and notes its end with the digest of its result.
    pub(super) async fn step<T>(
        &self,
        id: &'static str,
        resource: String,
        work: impl Future<Output = Result<T, Fault>> + Send,
        digest: impl Fn(&T) -> String + Send + Sync,
    ) -> Result<T, Fault> {
        self.context.check()?;
        self.context.progress(Progress { phase: id.to_owned(), ..Progress::default() });
        self.context.update(|run| begin(run, id, &resource)).await?;
        match work.await {
            Ok(result) => {
                self.context.update(|run| end(run, id, State::Succeeded, &digest(&result))).await?;
                Ok(result)
            }
            // It will be tried again, or was stopped: not its end.
            Err(fault) if fault.is_transient() || self.context.cancelled().is_cancelled() => Err(named(id, fault)),
            Err(fault) => {
                self.context.update(|run| end(run, id, State::Failed, "")).await?;
                Err(named(id, fault))
            }
        }
    }
}

fn named(id: &str, fault: Fault) -> Fault {
    Fault { message: format!("step {id}: {}", fault.message), ..fault }
}

fn begin(run: &mut PipelineRun, id: &str, resource: &str) {
    let at = run.steps.iter().position(|step| step.id == id).unwrap_or_else(|| {
        run.steps.push(Step { id: id.to_owned(), start_time: Some(now()), ..Step::default() });
        run.steps.len() - 1
    });
    let step = &mut run.steps[at];
    step.resource = resource.to_owned();
    // A run that is started over passes by what it had done.
    if step.state() != State::Succeeded {
        step.set_state(State::Running);
    }
}

fn end(run: &mut PipelineRun, id: &str, state: State, digest: &str) {
    for step in run.steps.iter_mut().filter(|step| step.id == id && step.state() == State::Running) {
        step.set_state(state);
        step.digest = digest.to_owned();
        step.end_time = Some(now());
    }
}

fn now() -> prost_types::Timestamp {
    let now = jiff::Timestamp::now();
    prost_types::Timestamp { seconds: now.as_second(), nanos: now.subsec_nanosecond() }
}
