//! The move of an alias through the gate. Decision, alias, event and receipt are one batch: they happen together or not at all.
//!
//! A receipt (`<model>/promotions/<hash of request_id>`) answers a retry with the first decision, also after others moved the alias on.

use prost::Message;
use tidemill_platform::{Platform, event};
use tidemill_proto::event::v1::AliasMoved;
use tidemill_proto::registry::v1::{
    Alias, GateDecision, ModelVersion, Objective, PromoteModelVersionRequest, PromoteModelVersionResponse,
};
use tidemill_proto::{names, topics};
use tidemill_resources::Collection;

use crate::draft::Draft;
use crate::error::{Error, Result};
use crate::gate::{self, Champion, Finding};

/// Decisions kept on a version, the newest.
const DECISIONS: usize = 100;

/// Aliases and the way to move them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Promotions {
    pub(crate) aliases: Collection<Alias>,
    versions: Collection<ModelVersion>,
    objectives: Collection<Objective>,
}

/// What is kept of one request.
#[derive(Clone, PartialEq, prost::Message)]
struct Receipt {
    #[prost(message, optional, tag = "1")]
    request: Option<PromoteModelVersionRequest>,
    #[prost(message, optional, tag = "2")]
    decision: Option<GateDecision>,
    /// Metrics of the findings, in their order.
    #[prost(string, repeated, tag = "3")]
    metrics: Vec<String>,
    /// Which findings hold, in their order.
    #[prost(bool, repeated, tag = "4")]
    holds: Vec<bool>,
}

impl Promotions {
    pub(crate) fn new(platform: &Platform) -> Self {
        Self { aliases: platform.collection(), versions: platform.collection(), objectives: platform.collection() }
    }

    /// Moves an alias if the objective's thresholds hold; keeps the decision either way. An alias that is there already stays.
    pub(crate) async fn promote(&self, request: &PromoteModelVersionRequest) -> Result<PromoteModelVersionResponse> {
        let objective = self.objectives.get(&request.objective).await?;
        let spec = objective.spec.unwrap_or_default();
        let model = names::parent(&request.name);
        let alias_name = format!("{model}/aliases/{}", request.alias);
        let receipt_name = (!request.request_id.is_empty()).then(|| receipt_name(model, &request.request_id));
        for attempt in 1.. {
            let mut draft = Draft::new(&**self.aliases.store());
            if let Some(receipt_name) = &receipt_name
                && let Some(body) = draft.read(receipt_name).await?
            {
                return self.answer_again(request, receipt_name, &body, &alias_name).await;
            }
            let Some(mut version) = draft.resource::<ModelVersion>(&request.name).await? else {
                return Err(tidemill_resources::Error::NotFound(request.name.clone()).into());
            };
            let alias = draft.resource::<Alias>(&alias_name).await?;
            let champion = match &alias {
                Some(alias) if alias.digest == version.digest => {
                    let decision = already_there(alias, &version);
                    if let Some(receipt_name) = &receipt_name {
                        draft.write(receipt_name, receipt(request, &decision, &[]).encode_to_vec());
                        if draft.commit(attempt).await?.is_none() {
                            continue;
                        }
                    }
                    return Ok(PromoteModelVersionResponse { alias: Some(alias.clone()), decision: Some(decision) });
                }
                Some(alias) => Some(self.versions.get(&alias.model_version).await?),
                None => None,
            };

            let result = gate::newest(&version.evaluations, &version.digest);
            let findings = gate::judge(&spec, result, champion.as_ref().map(of_version));
            let passed = findings.iter().all(|finding| finding.holds);
            let decision = GateDecision {
                alias: alias_name.clone(),
                objective: request.objective.clone(),
                evaluation: result.map(|result| result.evaluation.clone()).unwrap_or_default(),
                passed,
                findings: findings.iter().map(|finding| finding.text.clone()).collect(),
                decide_time: Some(now()),
            };
            if version.decisions.len() >= DECISIONS {
                version.decisions.remove(0);
            }
            version.decisions.push(decision.clone());
            draft.put(&version);
            if let Some(receipt_name) = &receipt_name {
                draft.write(receipt_name, receipt(request, &decision, &findings).encode_to_vec());
            }
            if passed {
                let previous_digest = alias.as_ref().map(|alias| alias.digest.clone()).unwrap_or_default();
                let moved = moved(alias, &alias_name, &version, &decision);
                let payload = AliasMoved {
                    alias: alias_name.clone(),
                    model_version: moved.model_version.clone(),
                    digest: moved.digest.clone(),
                    previous_digest,
                };
                draft.put(&moved);
                draft.publish(event(topics::ALIAS_EVENTS, &alias_name, &payload));
            }
            let Some(committed) = draft.commit(attempt).await? else { continue };
            tracing::info!(alias = alias_name, version = request.name, passed, "gate decided");
            if !passed {
                return Err(refused(request, &alias_name, findings));
            }
            return Ok(PromoteModelVersionResponse { alias: committed.get(&alias_name)?, decision: Some(decision) });
        }
        unreachable!("the last attempt ends with an error")
    }

    /// The first answer to a request, from its receipt.
    async fn answer_again(
        &self,
        request: &PromoteModelVersionRequest,
        receipt_name: &str,
        body: &[u8],
        alias_name: &str,
    ) -> Result<PromoteModelVersionResponse> {
        let receipt = Receipt::decode(body).map_err(|error| tidemill_resources::Error::Corrupt {
            name: receipt_name.to_owned(),
            reason: error.to_string(),
        })?;
        if receipt.request.as_ref() != Some(request) {
            return Err(Error::invalid("request_id", "it was used for another promotion; give each its own"));
        }
        let decision = receipt.decision.unwrap_or_default();
        if !decision.passed {
            let texts = decision.findings.into_iter().zip(receipt.metrics).zip(receipt.holds);
            let findings = texts.map(|((text, metric), holds)| Finding { metric, holds, text }).collect();
            return Err(refused(request, alias_name, findings));
        }
        let alias = self.aliases.get(alias_name).await?;
        Ok(PromoteModelVersionResponse { alias: Some(alias), decision: Some(decision) })
    }
}

/// The decision that let the alias move to where it is already.
fn already_there(alias: &Alias, version: &ModelVersion) -> GateDecision {
    let passed = version.decisions.iter().rev().find(|decision| decision.passed && decision.alias == alias.name);
    passed.cloned().unwrap_or_else(|| GateDecision {
        alias: alias.name.clone(),
        objective: alias.objective.clone(),
        evaluation: alias.evaluation.clone(),
        passed: true,
        ..GateDecision::default()
    })
}

fn of_version(version: &ModelVersion) -> Champion<'_> {
    Champion { name: &version.name, digest: &version.digest, evaluations: &version.evaluations }
}

fn moved(alias: Option<Alias>, name: &str, version: &ModelVersion, decision: &GateDecision) -> Alias {
    let alias = alias.unwrap_or_else(|| Alias { name: name.to_owned(), ..Alias::default() });
    Alias {
        model_version: version.name.clone(),
        digest: version.digest.clone(),
        objective: decision.objective.clone(),
        evaluation: decision.evaluation.clone(),
        move_count: alias.move_count + 1,
        ..alias
    }
}

fn refused(request: &PromoteModelVersionRequest, alias: &str, findings: Vec<Finding>) -> Error {
    let unmet = findings.into_iter().filter(|finding| !finding.holds).collect();
    Error::Refused { alias: alias.to_owned(), version: request.name.clone(), unmet }
}

fn receipt(request: &PromoteModelVersionRequest, decision: &GateDecision, findings: &[Finding]) -> Receipt {
    Receipt {
        request: Some(request.clone()),
        decision: Some(decision.clone()),
        metrics: findings.iter().map(|finding| finding.metric.clone()).collect(),
        holds: findings.iter().map(|finding| finding.holds).collect(),
    }
}

fn receipt_name(model: &str, request_id: &str) -> String {
    let hash = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, request_id.as_bytes());
    format!("{model}/promotions/{}", hash.simple())
}

fn now() -> prost_types::Timestamp {
    let now = jiff::Timestamp::now();
    prost_types::Timestamp { seconds: now.as_second(), nanos: now.subsec_nanosecond() }
}
