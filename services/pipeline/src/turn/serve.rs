//! The deployment: there, and answering with the promoted version.

use std::time::Duration;

use tidemill_chassis::Fault;
use tidemill_proto::inference::v1::deployment::Status;
use tidemill_proto::inference::v1::{CreateDeploymentRequest, Deployment, GetDeploymentRequest};
use tidemill_proto::r#type::v1::Progress;
use tokio::time::Instant;

use super::{Turn, Version, alias_id, ensured, keys};

/// What a deployment gets to answer with the promoted version.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is asked.
const LOOK: Duration = Duration::from_millis(250);

impl Turn {
    /// Creates the deployment if it is absent, and waits until it answers with the candidate.
    pub(super) async fn deploy(&self, candidate: &Version) -> Result<(), Fault> {
        let id = self.serving().deployment.clone();
        if id.is_empty() {
            return Ok(());
        }
        let name = format!("deployments/{id}");
        let work = async {
            let wanted = Deployment {
                labels: self.labels(),
                model: format!("models/{}", self.serving().model),
                alias: alias_id(self.serving()).to_owned(),
                ..Deployment::default()
            };
            let request = CreateDeploymentRequest {
                deployment_id: id.clone(),
                deployment: Some(wanted.clone()),
                request_id: keys::stable(&format!("deployments/{id}")),
            };
            ensured(self.clients.inference().create_deployment(request).await)?;
            self.answers(&name, &wanted, candidate).await
        };
        self.step("deploy", name.clone(), work, |()| candidate.digest.clone()).await
    }

    async fn answers(&self, name: &str, wanted: &Deployment, candidate: &Version) -> Result<(), Fault> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.context.check()?;
            let request = GetDeploymentRequest { name: name.to_owned() };
            let present = self.clients.inference().get_deployment(request).await?.into_inner();
            if (&present.model, &present.alias) != (&wanted.model, &wanted.alias) {
                let text = format!(
                    "{name} serves {} of {}, not {} of {}; give the pipeline another deployment",
                    present.alias, present.model, wanted.alias, wanted.model
                );
                return Err(Fault::precondition("OTHER_DEPLOYMENT", name, text));
            }
            if present.status() == Status::Ready && present.model_digest == candidate.digest {
                return Ok(());
            }
            // A later turn may have moved the alias on: then this version will not be loaded any more.
            if self.champion().await?.is_some_and(|champion| champion.digest != candidate.digest) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let detail = if present.detail.is_empty() { "it does not say why" } else { &present.detail };
                let text =
                    format!("{name} does not answer with {} after {} s: {detail}", candidate.name, PATIENCE.as_secs());
                return Err(Fault::precondition("NOT_DEPLOYED", name, text));
            }
            let phase = format!("deploy: loading {}", candidate.name);
            self.context.progress(Progress { phase, ..Progress::default() });
            tokio::time::sleep(LOOK).await;
        }
    }
}
