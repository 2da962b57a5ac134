//! One turn of the loop, from top to bottom: each step creates a resource of another service and waits for its end.
//!
//! Ids and request ids are made from the run, so that a run that is started over, after a crash at any instant, finds what it had
//! created and goes on from there.

mod follow;
mod gate;
mod import;
mod keys;
mod learn;
mod prepare;
mod serve;
mod steps;

use std::sync::Arc;

use async_trait::async_trait;
use tidemill_chassis::Fault;
use tidemill_platform::{Clients, Context, Platform, Runner};
use tidemill_proto::names;
use tidemill_proto::pipeline::v1::pipeline_run::Trigger;
use tidemill_proto::pipeline::v1::pipeline_spec::Serving;
use tidemill_proto::pipeline::v1::pipeline_spec::base::Base;
use tidemill_proto::pipeline::v1::{PipelineRun, PipelineSpec};
use tidemill_proto::registry::v1::{Alias, GetAliasRequest, GetModelVersionRequest, ModelVersion};
use tonic::{Code, Status};

pub(crate) use follow::cancel;

/// The alias that a gate moves where nothing else is said.
const CHAMPION: &str = "champion";
/// Label of everything that a run asks for.
const RUN_LABEL: &str = "pipeline-run";
/// Label of a run that starts from a version: which one, fixed when it began.
const BASE_LABEL: &str = "base-model-version";

/// Drives runs.
pub(crate) struct TurnRunner {
    clients: Clients,
}

/// A run being driven.
struct Turn {
    clients: Clients,
    context: Context<PipelineRun>,
    run: PipelineRun,
    spec: Arc<PipelineSpec>,
}

/// The version that a step made or starts from.
struct Version {
    name: String,
    digest: String,
    tokenizer_digest: String,
}

impl TurnRunner {
    pub(crate) fn new(platform: &Platform) -> Self {
        Self { clients: platform.clients.clone() }
    }
}

#[async_trait]
impl Runner<PipelineRun> for TurnRunner {
    async fn run(&self, run: PipelineRun, context: &Context<PipelineRun>) -> Result<PipelineRun, Fault> {
        let spec = run.spec.clone().ok_or_else(|| Fault::internal(format!("{} has no document", run.name)))?;
        let turn = Turn { clients: self.clients.clone(), context: context.clone(), run, spec: Arc::new(spec) };
        turn.go().await
    }
}

impl Turn {
    async fn go(&self) -> Result<PipelineRun, Fault> {
        let base = self.base().await?;
        let raw = self.ingest().await?;
        let feedback = self.ingest_feedback().await?;
        let prepared = self.preprocess(&raw, feedback.as_deref(), base.as_ref()).await?;
        let candidate = self.train(&prepared, base.as_ref()).await?;
        self.evaluate(&prepared, &candidate).await?;
        if self.gate(&candidate).await? {
            self.deploy(&candidate).await?;
        }
        self.context.update(|_| {}).await
    }

    /// The version that training starts from: of a feedback turn the champion, else what the document names. It is fixed at the first
    /// attempt: one that is started over must not find another.
    async fn base(&self) -> Result<Option<Version>, Fault> {
        let base = self.spec.base.as_ref().and_then(|base| base.base.as_ref());
        let name = match (self.run.labels.get(BASE_LABEL), self.run.trigger(), base) {
            (Some(name), _, _) => name.clone(),
            (None, Trigger::Feedback, _) => self.champion_of(alias_name(self.serving())).await?,
            (None, _, None) => return Ok(None),
            (None, _, Some(Base::Model(id))) => self.champion_of(format!("models/{id}/aliases/{CHAMPION}")).await?,
            (None, _, Some(Base::Import(import))) => self.import(import).await?,
        };
        self.context.update(|run| _ = run.labels.insert(BASE_LABEL.to_owned(), name.clone())).await?;
        let version = self.version(&name).await?;
        if version.tokenizer_digest.is_empty() {
            let text = format!("{name} does not say which tokenizer it has; register it with its tokenizer_digest");
            return Err(Fault::precondition("NO_TOKENIZER", &name, text));
        }
        Ok(Some(Version { name, digest: version.digest, tokenizer_digest: version.tokenizer_digest }))
    }

    /// The version that an alias points to; training starts from its weights.
    async fn champion_of(&self, alias: String) -> Result<String, Fault> {
        let request = GetAliasRequest { name: alias.clone() };
        match found(self.clients.registry().get_alias(request).await.map(tonic::Response::into_inner))? {
            Some(alias) => Ok(alias.model_version),
            None => {
                let text =
                    format!("{alias} points nowhere; the run starts from its weights, so promote a version first");
                Err(Fault::precondition("NO_CHAMPION", &alias, text))
            }
        }
    }

    /// Where the alias points now, if anywhere.
    async fn champion(&self) -> Result<Option<Alias>, Fault> {
        let request = GetAliasRequest { name: alias_name(self.serving()) };
        found(self.clients.registry().get_alias(request).await.map(tonic::Response::into_inner))
    }

    async fn version(&self, name: &str) -> Result<ModelVersion, Fault> {
        let request = GetModelVersionRequest { name: name.to_owned() };
        Ok(self.clients.registry().get_model_version(request).await?.into_inner())
    }

    fn serving(&self) -> &Serving {
        static NONE: Serving = Serving { model: String::new(), alias: String::new(), deployment: String::new() };
        self.spec.serving.as_ref().unwrap_or(&NONE)
    }

    /// The pipeline's id.
    fn pipeline(&self) -> &str {
        names::last_id(names::parent(&self.run.name))
    }

    fn labels(&self) -> std::collections::BTreeMap<String, String> {
        [(RUN_LABEL.to_owned(), self.run.name.clone())].into()
    }
}

/// `models/{model}/aliases/{alias}` of a pipeline.
pub(crate) fn alias_name(serving: &Serving) -> String {
    format!("models/{}/aliases/{}", serving.model, alias_id(serving))
}

fn alias_id(serving: &Serving) -> &str {
    if serving.alias.is_empty() { CHAMPION } else { &serving.alias }
}

/// Nothing, where there is none.
fn found<T>(result: Result<T, Status>) -> Result<Option<T>, Fault> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status.into()),
    }
}

/// That something is there already is as good as having created it: its id says what it holds.
fn ensured<T>(result: Result<T, Status>) -> Result<(), Fault> {
    match result {
        Ok(_) => Ok(()),
        Err(status) if status.code() == Code::AlreadyExists => Ok(()),
        Err(status) => Err(status.into()),
    }
}
