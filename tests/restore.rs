//! Everything is lost, and comes back from a backup that was taken while Tidemill ran: the same digests, champion, answers and lineage.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use tidemill_proto::inference::v1 as inference;
use tidemill_proto::ingestion::v1 as ingestion;
use tidemill_proto::pipeline::v1 as pipeline;
use tidemill_proto::registry::v1 as registry;
use tidemill_sandbox::{
    Clients, Distributed, OwnServers, Servers, complete, corpus, eventually, mini_pipeline, outcome, post_feedback,
    run_to_end, wait_for_run,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_cluster_comes_back_from_its_backup() {
    if std::env::var("TIDEMILL_TEST_KAFKA").is_err() {
        eprintln!("skipped: restore: TIDEMILL_TEST_KAFKA is not set; run make deps-up");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup");
    let before = {
        let servers = OwnServers::start().await.unwrap();
        let addresses = servers.addresses().unwrap();
        let tidemill = Distributed::start(&addresses, &folder.path().join("lost"), 1, None, "").await.unwrap();
        let clients = Clients::connect(&tidemill.endpoints).unwrap();
        run_to_end(&clients, mini_pipeline("code", &corpus(folder.path()).unwrap())).await.unwrap();
        post_feedback(&clients, "code", 3).await.unwrap();
        eventually("a second run", async || run(&clients, "pipelines/code/runs/2").await).await.unwrap();
        outcome(&clients, "code", 2).await.unwrap();
        let before = known(&clients).await.unwrap();
        backed_up("save", &backup, &addresses);
        before
        // Here all is killed and deleted: the services with their scratch space, and the four servers with what they hold.
    };
    std::fs::remove_dir_all(folder.path().join("lost")).unwrap();

    let servers = OwnServers::start().await.unwrap();
    let addresses = servers.addresses().unwrap();
    backed_up("load", &backup, &addresses);
    let tidemill = Distributed::start(&addresses, &folder.path().join("restored"), 1, None, "").await.unwrap();
    let clients = Clients::connect(&tidemill.endpoints).unwrap();
    assert_eq!(known(&clients).await.unwrap(), before);

    // It is not a museum: the next turn runs over an event log that knows nothing of the former ones.
    let request = pipeline::CreatePipelineRunRequest {
        parent: "pipelines/code".to_owned(),
        pipeline_run: Some(pipeline::PipelineRun::default()),
        ..Default::default()
    };
    clients.pipeline.clone().create_pipeline_run(request).await.unwrap();
    let third = wait_for_run(&clients, "pipelines/code/runs/3").await.unwrap();
    assert_eq!(third.model_digest, before["1 model"], "the same spec on the same data gives the same model");
    tidemill.terminate().await.unwrap();
}

async fn run(clients: &Clients, name: &str) -> Option<pipeline::PipelineRun> {
    let request = pipeline::GetPipelineRunRequest { name: name.to_owned() };
    Some(clients.pipeline.clone().get_pipeline_run(request).await.ok()?.into_inner())
}

/// What people would miss: digests, the champion, what it answers, answers that were kept, feedback, lineage.
async fn known(clients: &Clients) -> Result<BTreeMap<String, String>> {
    let mut known = outcome(clients, "code", 2).await?;
    for seed in 0..3 {
        let text = eventually("an answer", async || complete(clients, "code", seed).await.ok()).await?;
        known.insert(format!("completion {seed}"), text);
    }
    let request = inference::GetAnswerRequest { name: "answers/answer-0".to_owned() };
    let answer = clients.inference.clone().get_answer(request).await?.into_inner();
    known.insert(answer.name.clone(), format!("{answer:?}"));
    let versions = ingestion::ListDatasetVersionsRequest { parent: "datasets/-".to_owned(), ..Default::default() };
    for version in clients.ingestion.clone().list_dataset_versions(versions).await?.into_inner().dataset_versions {
        known.insert(version.name, format!("{} {} records", version.digest, version.record_count));
    }
    let feedbacks = ingestion::ListFeedbacksRequest::default();
    let feedbacks = clients.ingestion.clone().list_feedbacks(feedbacks).await?.into_inner().feedback;
    let feedbacks: BTreeSet<String> = feedbacks.into_iter().map(|feedback| feedback.name).collect();
    ensure!(feedbacks.len() == 3, "{feedbacks:?}");
    known.insert("feedback".to_owned(), format!("{feedbacks:?}"));
    let request = registry::GetLineageRequest { id: known["champion"].clone(), ..Default::default() };
    let lineage = clients.registry.clone().get_lineage(request).await?.into_inner();
    let ids: BTreeSet<String> = lineage.nodes.into_iter().map(|node| node.id).collect();
    ensure!(ids.contains(&known["1 model"]), "the lineage of the second model is {ids:?}");
    known.insert("lineage".to_owned(), format!("{ids:?}"));
    Ok(known)
}

fn backed_up(verb: &str, folder: &Path, servers: &Servers) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("restore/backup");
    let mut command = Command::new(script);
    command.arg(verb).arg(folder);
    command.env("TIDEMILL_RESOURCES", &servers.resources).env("TIDEMILL_ARTIFACTS", &servers.artifacts);
    let status = command.status().unwrap();
    assert!(status.success(), "tests/restore/backup {verb} ended with {status}");
}
