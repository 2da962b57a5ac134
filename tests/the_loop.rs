//! Raw text becomes a gated, served model; feedback becomes the next one, while requests keep flowing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tidemill_proto::inference::v1 as inference;
use tidemill_proto::ingestion::v1 as ingestion;
use tidemill_proto::pipeline::v1::pipeline_run::{Trigger, Verdict};
use tidemill_proto::registry::v1 as registry;
use tidemill_proto::registry::v1::lineage_node::Type;
use tidemill_proto::r#type::v1::threshold;
use tidemill_sandbox::{Sandbox, complete, corpus, mini_pipeline, post_feedback, run_to_end, wait_for_run};

async fn champion(sandbox: &Sandbox, model: &str) -> registry::Alias {
    let name = format!("models/{model}/aliases/champion");
    sandbox.clients.registry.clone().get_alias(registry::GetAliasRequest { name }).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_moves_the_alias_while_requests_keep_flowing() {
    let sandbox = Arc::new(Sandbox::start().await.unwrap());
    let texts = tempfile::tempdir().unwrap();
    let run = run_to_end(&sandbox.clients, mini_pipeline("code", &corpus(texts.path()).unwrap())).await.unwrap();
    assert_eq!(run.verdict(), Verdict::Promoted, "{:?}", run.findings);
    let first = champion(&sandbox, "code").await;
    assert_eq!(first.digest, run.model_digest);

    // Requests flow from here on; none may fail.
    let (stop, failed, answered) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let flow = {
        let (sandbox, stop, failed, answered) = (sandbox.clone(), stop.clone(), failed.clone(), answered.clone());
        tokio::spawn(async move {
            let mut seed = 0;
            while !stop.load(Ordering::Relaxed) {
                seed += 1;
                match complete(&sandbox.clients, "code", seed).await {
                    Ok(_) => answered.fetch_add(1, Ordering::Relaxed),
                    Err(_) => failed.fetch_add(1, Ordering::Relaxed),
                };
            }
        })
    };

    let names = post_feedback(&sandbox.clients, "code", 3).await.unwrap();
    let second_run = {
        tidemill_sandbox::eventually("a second run", async || {
            let request = tidemill_proto::pipeline::v1::GetPipelineRunRequest { name: "pipelines/code/runs/2".into() };
            sandbox.clients.pipeline.clone().get_pipeline_run(request).await.ok()
        })
        .await
        .unwrap();
        wait_for_run(&sandbox.clients, "pipelines/code/runs/2").await.unwrap()
    };
    assert_eq!(second_run.trigger(), Trigger::Feedback);
    assert_eq!(second_run.feedback, names);
    assert_eq!(second_run.verdict(), Verdict::Promoted, "{:?}", second_run.findings);
    let second = champion(&sandbox, "code").await;
    assert_ne!(second.digest, first.digest);
    assert_eq!(second.move_count, 2);
    tidemill_sandbox::eventually("the new version's answers", async || {
        let name = "deployments/code".to_owned();
        let deployment = sandbox.clients.inference.clone();
        let mut deployment = deployment;
        let deployment = deployment.get_deployment(inference::GetDeploymentRequest { name }).await.ok()?.into_inner();
        (deployment.model_digest == second.digest).then_some(())
    })
    .await
    .unwrap();
    stop.store(true, Ordering::Relaxed);
    flow.await.unwrap();
    assert_eq!(failed.load(Ordering::Relaxed), 0, "of {} requests", answered.load(Ordering::Relaxed));
    assert!(answered.load(Ordering::Relaxed) > 10);

    lineage_leads_both_ways(&sandbox, &first.digest, &second.digest, &names[0]).await;
    Arc::into_inner(sandbox).unwrap().stop().await.unwrap();
}

/// From the second model back to the feedback and the first; from one record forth to both models.
async fn lineage_leads_both_ways(sandbox: &Sandbox, first: &str, second: &str, feedback: &str) {
    let walk = async |id: &str| {
        let request = registry::GetLineageRequest { id: id.to_owned(), ..Default::default() };
        sandbox.clients.registry.clone().get_lineage(request).await.unwrap().into_inner()
    };
    let back = walk(second).await;
    let ids: Vec<&str> = back.nodes.iter().map(|node| node.id.as_str()).collect();
    assert!(ids.contains(&first) && ids.contains(&feedback), "{ids:?}");

    let request = ingestion::ListRecordsRequest {
        parent: "datasets/code/versions/code-1".to_owned(),
        page_size: 3,
        ..Default::default()
    };
    let versions = ingestion::ListDatasetVersionsRequest { parent: "datasets/-".to_owned(), ..Default::default() };
    let versions = sandbox.clients.ingestion.clone().list_dataset_versions(versions).await.unwrap().into_inner();
    let raw = versions.dataset_versions.iter().find(|v| v.record_count > 10).unwrap();
    let request = ingestion::ListRecordsRequest { parent: raw.name.clone(), ..request };
    let records = sandbox.clients.ingestion.clone().list_records(request).await.unwrap().into_inner().records;
    let forth = walk(&records[0].digest).await;
    assert_eq!(forth.root.as_ref().unwrap().r#type(), Type::Record);
    let models: Vec<&str> = forth.nodes.iter().filter(|n| n.r#type() == Type::Model).map(|n| n.id.as_str()).collect();
    assert!(models.contains(&first) && models.contains(&second), "{models:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_that_misses_its_threshold_leaves_the_champion_in_place() {
    let sandbox = Sandbox::start().await.unwrap();
    let texts = tempfile::tempdir().unwrap();
    let good = mini_pipeline("code", &corpus(texts.path()).unwrap());
    let run = run_to_end(&sandbox.clients, good.clone()).await.unwrap();
    assert_eq!(run.verdict(), Verdict::Promoted, "{:?}", run.findings);

    let mut bad = good;
    bad.id = "code-undertrained".to_owned();
    bad.feedback = None;
    let training = bad.training.as_mut().unwrap();
    training.steps = 1;
    training.schedule.as_mut().unwrap().warmup_steps = 0;
    bad.objective.as_mut().unwrap().thresholds[0].bound = Some(threshold::Bound::Max(0.5));
    let refused = run_to_end(&sandbox.clients, bad).await.unwrap();
    assert_eq!(refused.verdict(), Verdict::Refused);
    assert!(refused.findings.iter().any(|finding| finding.contains("bits_per_byte")), "{:?}", refused.findings);
    assert_eq!(champion(&sandbox, "code").await.digest, run.model_digest);
    assert_ne!(refused.model_digest, run.model_digest);

    // By hand it is refused too: there is no way around the gate.
    let request = registry::PromoteModelVersionRequest {
        name: refused.model_version.clone(),
        alias: "champion".to_owned(),
        objective: {
            let list = registry::ListObjectivesRequest::default();
            let all = sandbox.clients.registry.clone().list_objectives(list).await.unwrap().into_inner().objectives;
            all.iter().find(|o| o.name.contains("undertrained")).unwrap().name.clone()
        },
        ..Default::default()
    };
    let status = sandbox.clients.registry.clone().promote_model_version(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::FailedPrecondition);
    sandbox.stop().await.unwrap();
}
