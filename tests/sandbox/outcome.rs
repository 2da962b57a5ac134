//! What a pipeline's runs came to, for comparing one life of a Tidemill with another.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use tidemill_proto::pipeline::v1 as pipeline;
use tidemill_proto::registry::v1 as registry;
use tidemill_proto::r#type::v1::State;

use crate::{Clients, wait_for_run};

/// Waits for the first `runs` runs of a pipeline that serves a model of its own name; gives every digest of theirs, and the counts in
/// which an event that was applied twice, or not at all, would show.
///
/// # Errors
/// A run or a step that did not succeed.
pub async fn outcome(clients: &Clients, id: &str, runs: u32) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for number in 1..=runs {
        let name = format!("pipelines/{id}/runs/{number}");
        let run = wait_for_run(clients, &name).await?;
        for step in run.steps {
            ensure!(step.state() == State::Succeeded, "{name}: {} ended as {:?}", step.id, step.state());
            found.insert(format!("{number} {}", step.id), step.digest);
        }
        found.insert(format!("{number} model"), run.model_digest);
        let version = registry::GetModelVersionRequest { name: run.model_version };
        let version = clients.registry.clone().get_model_version(version).await?.into_inner();
        found.insert(format!("{number} tokenizer"), version.tokenizer_digest);
    }
    let alias = registry::GetAliasRequest { name: format!("models/{id}/aliases/champion") };
    let alias = clients.registry.clone().get_alias(alias).await?.into_inner();
    found.insert("champion".to_owned(), alias.digest);
    found.insert("alias moves".to_owned(), alias.move_count.to_string());
    let pipeline = pipeline::GetPipelineRequest { name: format!("pipelines/{id}") };
    let pipeline = clients.pipeline.clone().get_pipeline(pipeline).await?.into_inner();
    found.insert("runs".to_owned(), pipeline.run_count.to_string());
    found.insert("feedback left over".to_owned(), pipeline.pending_feedback_count.to_string());
    Ok(found)
}
