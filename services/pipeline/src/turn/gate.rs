//! The gate: the registry decides; a refusal is a verdict, not a failure.

use tidemill_chassis::Fault;
use tidemill_proto::pipeline::v1::pipeline_run::Verdict;
use tidemill_proto::registry::v1::*;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{Turn, Version, alias_id, alias_name, ensured, keys};

/// The registry's reason for a refusal.
const REFUSED: &str = "GATE_REFUSED";

impl Turn {
    /// Asks for the alias to move to the candidate; tells whether it points there now.
    pub(super) async fn gate(&self, candidate: &Version) -> Result<bool, Fault> {
        let work = async {
            let spec = self.spec.objective.clone().unwrap_or_default();
            let objective = keys::of_content(self.pipeline(), &spec);
            let request = CreateObjectiveRequest {
                request_id: keys::stable(&format!("objectives/{objective}")),
                objective_id: objective.clone(),
                objective: Some(Objective { labels: self.labels(), spec: Some(spec), ..Objective::default() }),
            };
            ensured(self.clients.registry().create_objective(request).await)?;
            let request = PromoteModelVersionRequest {
                name: candidate.name.clone(),
                alias: alias_id(self.serving()).to_owned(),
                objective: format!("objectives/{objective}"),
                request_id: self.request_id("gate"),
            };
            match self.clients.registry().promote_model_version(request).await {
                Ok(response) => {
                    let decision = response.into_inner().decision.unwrap_or_default();
                    Ok((Verdict::Promoted, decision.findings))
                }
                Err(status) if is_refusal(&status) => Ok((Verdict::Refused, self.findings(candidate, &status).await?)),
                Err(status) => Err(status.into()),
            }
        };
        let promoted = |verdict: &Verdict| *verdict == Verdict::Promoted;
        let digest = |(verdict, _): &(Verdict, Vec<String>)| match verdict {
            Verdict::Promoted => candidate.digest.clone(),
            _ => String::new(),
        };
        let (verdict, findings) = self.step("gate", alias_name(self.serving()), work, digest).await?;
        self.context
            .update(|run| {
                run.set_verdict(verdict);
                run.findings.clone_from(&findings);
            })
            .await?;
        Ok(promoted(&verdict))
    }

    /// What a refusal said of every threshold: the status names only those that do not hold.
    async fn findings(&self, candidate: &Version, status: &Status) -> Result<Vec<String>, Fault> {
        let alias = alias_name(self.serving());
        let version = self.version(&candidate.name).await?;
        let decision = version.decisions.into_iter().rev().find(|decision| decision.alias == alias && !decision.passed);
        Ok(decision.map_or_else(|| vec![status.message().to_owned()], |decision| decision.findings))
    }
}

fn is_refusal(status: &Status) -> bool {
    let reason = status.get_error_details().error_info().map(|info| info.reason.clone());
    status.code() == Code::FailedPrecondition && reason.as_deref() == Some(REFUSED)
}
