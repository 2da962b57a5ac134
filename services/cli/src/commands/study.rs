//! `tidemill study`: searches for hyper-parameters, from a file to a table of trials.

use std::path::Path;

use serde_json::Value;
use tidemill_proto::training::v1::{
    CancelStudyRequest, CreateStudyRequest, GetStudyRequest, ListStudiesRequest, PlotStudyRequest, Study, Trial,
};
use tidemill_proto::r#type::v1::State;

use super::{Context, named, request_id, watch};
use crate::arguments::StudyVerb;
use crate::document;
use crate::failure::Failure;
use crate::output::{self, json};
use crate::view::trials;
use crate::words;

/// Does what a verb says.
pub(super) async fn execute(context: &Context, verb: &StudyVerb) -> Result<(), Failure> {
    match verb {
        StudyVerb::Run { file, check, id, detach } => run(context, file, *check, id, *detach).await,
        StudyVerb::Show { name, plot } => show(context, name, plot.as_deref()).await,
        StudyVerb::List { limit } => list(context, *limit).await,
        StudyVerb::Cancel { name } => cancel(context, name).await,
    }
}

async fn run(context: &Context, file: &Path, check: bool, id: &str, detach: bool) -> Result<(), Failure> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Failure::NotFound(format!("{name} does not exist; `tidemill study run --help` shows what it holds"))
        }
        _ => Failure::Usage(format!("{name} cannot be read: {error}")),
    })?;
    let (study, places) = document::study(&text).map_err(|mistakes| Failure::document(&name, &mistakes))?;
    if check {
        if context.output.for_people() {
            context.output.note(&format!("{name} is well"));
        } else {
            context.output.one(&study);
        }
        return Ok(());
    }
    let connection = context.connect().await?;
    let request = CreateStudyRequest { study_id: id.to_owned(), study: Some(study), request_id: request_id() };
    let created = connection.studies().create_study(request).await;
    let created = created.map_err(|status| Failure::of_document(status, &name, &places))?.into_inner();
    if detach {
        if context.output.for_people() {
            output::line(&created.name);
        } else {
            context.output.one(&created);
        }
        return Ok(());
    }
    context.output.note(&format!("{} has begun; Ctrl-C leaves it running", created.name));
    watch::to_the_end(context, &connection, &created.name).await
}

async fn show(context: &Context, name: &str, plot: Option<&Path>) -> Result<(), Failure> {
    let connection = context.connect().await?;
    let name = named("studies", name);
    let study = connection.studies().get_study(GetStudyRequest { name: name.clone() }).await?.into_inner();
    if let Some(path) = plot {
        let svg = connection.studies().plot_study(PlotStudyRequest { name }).await?.into_inner().svg;
        std::fs::write(path, svg).map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?;
        context.output.note(&format!("the plot of {} trials is in {}", study.trials.len(), path.display()));
    }
    if !context.output.for_people() {
        context.output.one(&study);
        return Ok(());
    }
    output::line(&format!("{}: {}", study.name, summary(&study)));
    if study.trials.is_empty() {
        context.output.note("no trial yet");
    } else {
        output::line(&format!("\n{}", trials(&study)));
    }
    Ok(())
}

/// Where a study stands, in a line.
fn summary(study: &Study) -> String {
    let ended = |state: State| matches!(state, State::Succeeded | State::Failed | State::Cancelled);
    let count = study.trials.iter().filter(|trial| ended(trial.state())).count();
    let mut parts = vec![words::state(study.state()).to_owned(), format!("{count} of {} trials", study.max_trials)];
    if let Some(best) = best(study) {
        parts.push(format!("the best is {}: {}", best.number, best.model_version));
    }
    parts.extend(study.error.as_ref().map(|error| error.message.clone()));
    parts.join(", ")
}

fn best(study: &Study) -> Option<&Trial> {
    study.trials.iter().find(|trial| study.best_trial == Some(trial.number))
}

async fn list(context: &Context, limit: usize) -> Result<(), Failure> {
    let connection = context.connect().await?;
    let page_size = i32::try_from(limit.min(1000)).unwrap_or(1000);
    let request = ListStudiesRequest { page_size, page_token: String::new() };
    let studies = connection.studies().list_studies(request).await?.into_inner().studies;
    let rows = studies.iter().map(|study| {
        let objective = best(study).and_then(|trial| trial.objective);
        vec![
            study.name.clone(),
            words::state(study.state()).to_owned(),
            format!("{}/{}", study.trials.len(), study.max_trials),
            objective.map_or_else(|| "-".to_owned(), |objective| format!("{objective:.4}")),
            if study.model_version.is_empty() { "-".to_owned() } else { study.model_version.clone() },
            words::ago(study.create_time.as_ref()),
        ]
    });
    let rows = rows.collect();
    let messages: Vec<Value> = studies.iter().map(json).collect();
    context.output.list(&messages, &["STUDY", "STATE", "TRIALS", "BEST", "MODEL", "CREATED"], rows);
    Ok(())
}

async fn cancel(context: &Context, name: &str) -> Result<(), Failure> {
    let connection = context.connect().await?;
    let name = named("studies", name);
    let study = connection.studies().cancel_study(CancelStudyRequest { name: name.clone() }).await?.into_inner();
    if context.output.for_people() {
        context.output.note(&format!("asked {name} to stop"));
    } else {
        context.output.one(&study);
    }
    Ok(())
}
