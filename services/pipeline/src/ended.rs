//! What follows the end of a run: its open steps are closed, the job it waited for is cancelled with it, and feedback that came
//! meanwhile may begin the next.

use async_trait::async_trait;
use tidemill_chassis::Fault;
use tidemill_platform::consumer::{Handler, Incoming};
use tidemill_platform::{Clients, Platform, fault_of_resources};
use tidemill_proto::event::v1::JobEnded;
use tidemill_proto::names;
use tidemill_proto::pipeline::v1::PipelineRun;
use tidemill_proto::r#type::v1::State;
use tidemill_resources::{Collection, Error, OutboxEvent};

use crate::feedback::Feedback;
use crate::turn;

/// Reads the topic of ended runs.
pub(crate) struct Ended {
    runs: Collection<PipelineRun>,
    clients: Clients,
    feedback: Feedback,
}

impl Ended {
    pub(crate) fn new(platform: &Platform, feedback: Feedback) -> Self {
        Self { runs: platform.collection(), clients: platform.clients.clone(), feedback }
    }

    /// The runner does this too where it still lives; after a crash nobody else would.
    async fn close(&self, name: &str, state: State) -> Result<(), Fault> {
        let run = match self.runs.get(name).await {
            Err(Error::NotFound(_)) => return Ok(()),
            run => run.map_err(fault_of_resources)?,
        };
        for step in run.steps.iter().filter(|step| step.state() == State::Running) {
            turn::cancel(&self.clients, &step.resource).await?;
        }
        let closed = self.runs.modify(name, |run: &mut PipelineRun| {
            let end_time = run.end_time;
            for step in run.steps.iter_mut().filter(|step| step.state() == State::Running) {
                step.set_state(state);
                step.end_time = end_time;
            }
            Ok::<Vec<OutboxEvent>, Error>(Vec::new())
        });
        closed.await.map_err(fault_of_resources)?;
        Ok(())
    }
}

#[async_trait]
impl Handler for Ended {
    type Payload = JobEnded;

    async fn handle(&self, incoming: Incoming<JobEnded>) -> Result<(), Fault> {
        let ended = incoming.payload;
        let state = ended.state();
        if matches!(state, State::Cancelled | State::Failed) {
            self.close(&ended.job, state).await?;
        }
        self.feedback.begin_if_due(names::parent(&ended.job)).await
    }
}
