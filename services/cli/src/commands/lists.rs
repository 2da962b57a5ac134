//! `list` and `get` of datasets, models, jobs and evaluations.

use serde_json::Value;
use tidemill_proto::Job as _;
use tidemill_proto::registry::v1::{
    Alias, GetModelRequest, GetModelVersionRequest, ListAliasesRequest, ListModelVersionsRequest, ListModelsRequest,
};
use tidemill_proto::r#type::v1::State;
use tonic::Status;

use super::{Context, named};
use crate::arguments::Verb;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::jobs::{self, AnyJob, each};
use crate::output::{self, json};
use crate::view::evaluation_report;
use crate::words;

/// Raw dataset versions, and prepared datasets under the jobs that made them.
pub(super) async fn datasets(context: &Context, verb: &Verb) -> Result<(), Failure> {
    let connection = context.connect().await?;
    let limit = match verb {
        Verb::Get(name) => {
            let name = jobs::resolve(&connection, &name.name).await?;
            context.output.value(&jobs::get(&connection, &name).await?.json());
            return Ok(());
        }
        Verb::List { limit } => *limit,
    };
    let found = jobs::list(&connection, &["ingestion", "preprocessing"], limit).await?;
    let rows = found.iter().map(|job| {
        let (kind, records, bytes, digest) = match job {
            AnyJob::Preprocessing(job) => {
                let sum = |of: fn(&tidemill_proto::preprocessing::v1::preprocessing_job::SplitCounts) -> i64| {
                    job.splits.values().map(of).sum::<i64>()
                };
                ("prepared", sum(|split| split.document_count), sum(|split| split.text_bytes), &job.digest)
            }
            AnyJob::Ingestion(version) => ("raw", version.record_count, version.text_bytes, &version.digest),
            _ => ("", 0, 0, &EMPTY),
        };
        let (name, state, created) = each!(job, job => (job.name.clone(), job.job_state(), job.create_time));
        vec![
            name,
            kind.to_owned(),
            words::state(state).to_owned(),
            records.to_string(),
            words::count(bytes),
            words::digest(digest),
            words::ago(created.as_ref()),
        ]
    });
    let rows = rows.collect();
    let messages: Vec<Value> = found.iter().map(AnyJob::json).collect();
    context.output.list(&messages, &["DATASET", "KIND", "STATE", "RECORDS", "BYTES", "DIGEST", "CREATED"], rows);
    Ok(())
}

const EMPTY: String = String::new();

/// Models with their versions, aliases and figures.
pub(super) async fn models(context: &Context, verb: &Verb) -> Result<(), Failure> {
    let connection = context.connect().await?;
    match verb {
        Verb::Get(name) if name.name.contains("/versions/") => {
            let request = GetModelVersionRequest { name: name.name.clone() };
            context.output.one(&connection.registry().get_model_version(request).await?.into_inner());
        }
        Verb::Get(name) => {
            let name = named("models", &name.name);
            let model = connection.registry().get_model(GetModelRequest { name: name.clone() }).await?.into_inner();
            let request = ListModelVersionsRequest { parent: name.clone(), page_size: 1000, page_token: String::new() };
            let versions = connection.registry().list_model_versions(request).await?.into_inner().model_versions;
            let aliases = aliases(&connection, &name).await?;
            context.output.value(&serde_json::json!({
                "model": json(&model),
                "aliases": aliases.iter().map(json).collect::<Vec<_>>(),
                "versions": versions.iter().map(json).collect::<Vec<_>>(),
            }));
        }
        Verb::List { limit } => list_versions(context, &connection, *limit).await?,
    }
    Ok(())
}

async fn aliases(connection: &Connection, model: &str) -> Result<Vec<Alias>, Status> {
    let request = ListAliasesRequest { parent: model.to_owned(), page_size: 1000, page_token: String::new() };
    Ok(connection.registry().list_aliases(request).await?.into_inner().aliases)
}

async fn list_versions(context: &Context, connection: &Connection, limit: usize) -> Result<(), Status> {
    let page_size = i32::try_from(limit.min(1000)).unwrap_or(1000);
    let models = ListModelsRequest { page_size, page_token: String::new() };
    let models = connection.registry().list_models(models).await?.into_inner().models;
    let request = ListModelVersionsRequest { parent: "models/-".to_owned(), page_size, page_token: String::new() };
    let versions = connection.registry().list_model_versions(request).await?.into_inner().model_versions;
    let aliases = aliases(connection, "models/-").await?;
    let rows = versions.iter().map(|version| {
        let pointing = aliases.iter().filter(|alias| alias.model_version == version.name);
        let pointing = pointing.map(|alias| tidemill_proto::names::last_id(&alias.name)).collect::<Vec<_>>().join(", ");
        let bits = version.evaluations.last().and_then(|result| result.metrics.get("bits_per_byte"));
        let gate =
            version.decisions.last().map_or("-", |decision| if decision.passed { "promoted" } else { "refused" });
        vec![
            version.name.clone(),
            if pointing.is_empty() { "-".to_owned() } else { pointing },
            words::count(version.parameter_count),
            bits.map_or_else(|| "-".to_owned(), |bits| format!("{bits:.4}")),
            gate.to_owned(),
            words::digest(&version.digest),
            words::ago(version.create_time.as_ref()),
        ]
    });
    let empty = models
        .iter()
        .filter(|model| !versions.iter().any(|version| version.name.starts_with(&format!("{}/", model.name))));
    let empty = empty.map(|model| {
        vec![
            model.name.clone(),
            "-".into(),
            "-".into(),
            "-".into(),
            "-".into(),
            "-".into(),
            words::ago(model.create_time.as_ref()),
        ]
    });
    let rows = rows.chain(empty).collect();
    let messages: Vec<Value> = versions.iter().map(json).collect();
    context.output.list(&messages, &["VERSION", "ALIASES", "WEIGHTS", "BITS/BYTE", "GATE", "DIGEST", "CREATED"], rows);
    Ok(())
}

/// Runs and jobs of every kind but evaluations.
pub(super) async fn jobs(context: &Context, verb: &Verb) -> Result<(), Failure> {
    work(context, verb, &["run", "training", "preprocessing", "ingestion"]).await
}

/// Evaluations.
pub(super) async fn evaluations(context: &Context, verb: &Verb) -> Result<(), Failure> {
    work(context, verb, &["evaluation"]).await
}

async fn work(context: &Context, verb: &Verb, kinds: &[&str]) -> Result<(), Failure> {
    let connection = context.connect().await?;
    match verb {
        Verb::Get(name) => {
            let name = jobs::resolve(&connection, &name.name).await?;
            let job = jobs::get(&connection, &name).await?;
            context.output.value(&job.json());
            if let (AnyJob::Evaluation(evaluation), true) = (&job, context.output.for_people()) {
                output::line(&format!("\n{}", evaluation_report(evaluation)));
            }
        }
        Verb::List { limit } => {
            let found = jobs::list(&connection, kinds, *limit).await?;
            let messages: Vec<Value> = found.iter().map(AnyJob::json).collect();
            let rows = found.iter().map(job_row).collect();
            context.output.list(&messages, &["JOB", "KIND", "STATE", "TOOK", "CREATED", "RESULT"], rows);
        }
    }
    Ok(())
}

/// A job as a row: name, kind, state, time taken, age, result.
pub(super) fn job_row(job: &AnyJob) -> Vec<String> {
    let (name, state, start, end, created, digest) = each!(job, job => (job.name.clone(), job.job_state(), job.start_time, job.end_time, job.create_time, job.result_digest().to_owned()));
    let took =
        words::between(start.as_ref(), end.as_ref()).map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1}s"));
    let bits = match job {
        AnyJob::Evaluation(evaluation) => {
            evaluation.metrics.get("bits_per_byte").map(|bits| format!("{bits:.4} bits/byte"))
        }
        AnyJob::Run(run) if run.state() == State::Succeeded => {
            Some(run.verdict().as_str_name().trim_start_matches("VERDICT_").to_lowercase())
        }
        _ => None,
    };
    let error = each!(job, job => job.error().map(|error| words::excerpt(&error.message, 60)));
    let result = error.or(bits).unwrap_or_else(|| words::digest(&digest));
    vec![name, job.kind().to_owned(), words::state(state).to_owned(), took, words::ago(created.as_ref()), result]
}
