//! The other services, as far as a turn needs them: jobs that end at once unless held back, and a registry with one alias.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::{StreamExt, stream};
use tidemill_chassis::transport::Channel;
use tidemill_proto::evaluation::v1::*;
use tidemill_proto::inference::v1::{CreateDeploymentRequest, Deployment, GetDeploymentRequest, deployment};
use tidemill_proto::ingestion::v1::*;
use tidemill_proto::preprocessing::v1::*;
use tidemill_proto::registry::v1::*;
use tidemill_proto::training::v1::*;
use tidemill_proto::r#type::v1::{Progress, State as JobState};
use tidemill_proto::{Job, names};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::peer::Peer;

/// What the services know.
#[derive(Default)]
pub(super) struct State {
    /// Names created, in order, each once.
    pub(super) created: Vec<String>,
    /// Request ids by name.
    requests: BTreeMap<String, String>,
    pub(super) dataset_versions: BTreeMap<String, DatasetVersion>,
    pub(super) preprocessing_jobs: BTreeMap<String, PreprocessingJob>,
    pub(super) training_jobs: BTreeMap<String, TrainingJob>,
    pub(super) evaluations: BTreeMap<String, Evaluation>,
    pub(super) versions: BTreeMap<String, ModelVersion>,
    pub(super) alias: Option<Alias>,
    pub(super) promotions: Vec<PromoteModelVersionRequest>,
    pub(super) deployment: Option<Deployment>,
    /// Jobs whose names begin so stay running until released.
    pub(super) held: Option<&'static str>,
    /// Jobs whose names begin so fail.
    pub(super) failing: Option<&'static str>,
    /// Watch streams still to break off.
    pub(super) breaking: u32,
    /// Whether the gate refuses.
    pub(super) refusing: bool,
}

pub(super) struct World {
    state: Mutex<State>,
    bell: tokio::sync::watch::Sender<u64>,
}

impl World {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), bell: tokio::sync::watch::Sender::new(0) })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Lets held jobs end.
    pub(super) fn release(&self) {
        let mut state = self.state();
        state.held = None;
        settle::<DatasetVersion>(&mut state);
        settle::<PreprocessingJob>(&mut state);
        settle::<TrainingJob>(&mut state);
        settle::<Evaluation>(&mut state);
        drop(state);
        self.bell.send_modify(|count| *count += 1);
    }

    pub(super) fn channel(self: &Arc<Self>) -> Channel {
        let mut peer = Peer::default();
        self.ingestion(&mut peer);
        self.jobs::<DatasetVersion>(&mut peer, "tidemill.ingestion.v1.IngestionService", "DatasetVersion");
        self.jobs::<PreprocessingJob>(&mut peer, "tidemill.preprocessing.v1.PreprocessingService", "PreprocessingJob");
        self.jobs::<TrainingJob>(&mut peer, "tidemill.training.v1.TrainingService", "TrainingJob");
        self.jobs::<Evaluation>(&mut peer, "tidemill.evaluation.v1.EvaluationService", "Evaluation");
        self.creates(&mut peer);
        self.registry(&mut peer);
        self.inference(&mut peer);
        peer.channel()
    }

    fn method<Q, A>(
        self: &Arc<Self>,
        peer: &mut Peer,
        path: &str,
        answer: impl Fn(&mut State, Q) -> Result<A, Status> + Clone + Send + Sync + 'static,
    ) where
        Q: prost::Message + Default + 'static,
        A: prost::Message + Default + 'static,
    {
        let world = self.clone();
        peer.unary(path, move |request: Q| {
            let answered = answer(&mut world.state(), request);
            world.bell.send_modify(|count| *count += 1);
            answered
        });
    }

    /// Get, Watch and Cancel: their requests hold nothing but a name, so one message reads them all.
    fn jobs<J: Kept>(self: &Arc<Self>, peer: &mut Peer, service: &str, noun: &str) {
        let find =
            |state: &mut State, name: &str| J::all(state).get(name).cloned().ok_or_else(|| Status::not_found(name));
        self.method(peer, &format!("{service}/Get{noun}"), move |state, request: GetModelRequest| {
            find(state, &request.name)
        });
        self.method(peer, &format!("{service}/Cancel{noun}"), move |state, request: GetModelRequest| {
            let mut job: J = find(state, &request.name)?;
            if !job.ended() {
                job.set_job_state(JobState::Cancelled);
                J::all(state).insert(request.name, job.clone());
            }
            Ok(job)
        });
        let world = self.clone();
        peer.stream(&format!("{service}/Watch{noun}"), move |request: GetModelRequest| {
            let (world, bell) = (world.clone(), world.bell.subscribe());
            stream::unfold(Some((world, bell, request.name, false)), move |watching| async move {
                let (world, mut bell, name, told) = watching?;
                if told {
                    bell.changed().await.ok()?;
                }
                if world.state().breaking > 0 {
                    world.state().breaking -= 1;
                    return Some((Err(Status::unavailable("the server goes away")), None));
                }
                let job = find(&mut world.state(), &name);
                let goes_on = job.as_ref().is_ok_and(|job| !job.ended());
                Some((job, goes_on.then_some((world, bell, name, true))))
            })
            .boxed()
        });
    }

    fn ingestion(self: &Arc<Self>, peer: &mut Peer) {
        const SERVICE: &str = "tidemill.ingestion.v1.IngestionService";
        self.method(peer, &format!("{SERVICE}/CreateDataSource"), |state, request: CreateDataSourceRequest| {
            let name = format!("dataSources/{}", request.data_source_id);
            state.note(&name, &request.request_id)?;
            Ok(DataSource { name, ..request.data_source.unwrap() })
        });
        self.method(peer, &format!("{SERVICE}/CreateDataset"), |state, request: CreateDatasetRequest| {
            let name = format!("datasets/{}", request.dataset_id);
            state.note(&name, &request.request_id)?;
            Ok(Dataset { name, ..request.dataset.unwrap() })
        });
        self.method(peer, &format!("{SERVICE}/CreateDatasetVersion"), |state, request: CreateDatasetVersionRequest| {
            let name = format!("{}/versions/{}", request.parent, request.dataset_version_id);
            state.create(DatasetVersion { name, ..request.dataset_version.unwrap() }, &request.request_id)
        });
    }

    fn creates(self: &Arc<Self>, peer: &mut Peer) {
        let path = "tidemill.preprocessing.v1.PreprocessingService/CreatePreprocessingJob";
        self.method(peer, path, |state, request: CreatePreprocessingJobRequest| {
            let name = format!("preprocessingJobs/{}", request.preprocessing_job_id);
            state.create(PreprocessingJob { name, ..request.preprocessing_job.unwrap() }, &request.request_id)
        });
        let path = "tidemill.training.v1.TrainingService/CreateTrainingJob";
        self.method(peer, path, |state, request: CreateTrainingJobRequest| {
            let name = format!("trainingJobs/{}", request.training_job_id);
            state.create(TrainingJob { name, ..request.training_job.unwrap() }, &request.request_id)
        });
        let path = "tidemill.evaluation.v1.EvaluationService/CreateEvaluation";
        self.method(peer, path, |state, request: CreateEvaluationRequest| {
            let name = format!("evaluations/{}", request.evaluation_id);
            state.create(Evaluation { name, ..request.evaluation.unwrap() }, &request.request_id)
        });
    }

    fn registry(self: &Arc<Self>, peer: &mut Peer) {
        const SERVICE: &str = "tidemill.registry.v1.RegistryService";
        self.method(peer, &format!("{SERVICE}/CreateModel"), |state, request: CreateModelRequest| {
            let name = format!("models/{}", request.model_id);
            state.note(&name, &request.request_id)?;
            Ok(Model { name, ..request.model.unwrap() })
        });
        self.method(peer, &format!("{SERVICE}/CreateObjective"), |state, request: CreateObjectiveRequest| {
            let name = format!("objectives/{}", request.objective_id);
            state.note(&name, &request.request_id)?;
            Ok(Objective { name, ..request.objective.unwrap() })
        });
        self.method(peer, &format!("{SERVICE}/GetModelVersion"), |state, request: GetModelVersionRequest| {
            state.versions.get(&request.name).cloned().ok_or_else(|| Status::not_found(request.name))
        });
        self.method(peer, &format!("{SERVICE}/GetAlias"), |state, request: GetAliasRequest| {
            let alias = state.alias.clone().filter(|alias| alias.name == request.name);
            alias.ok_or_else(|| Status::not_found(request.name))
        });
        self.method(peer, &format!("{SERVICE}/PromoteModelVersion"), |state, request: PromoteModelVersionRequest| {
            if !state.promotions.contains(&request) {
                state.promotions.push(request.clone());
            }
            state.promote(&request)
        });
    }

    fn inference(self: &Arc<Self>, peer: &mut Peer) {
        const SERVICE: &str = "tidemill.inference.v1.InferenceService";
        self.method(peer, &format!("{SERVICE}/CreateDeployment"), |state, request: CreateDeploymentRequest| {
            let name = format!("deployments/{}", request.deployment_id);
            state.note(&name, &request.request_id)?;
            let created = Deployment { name, ..request.deployment.unwrap() };
            Ok(state.deployment.get_or_insert(created).clone())
        });
        self.method(peer, &format!("{SERVICE}/GetDeployment"), |state, request: GetDeploymentRequest| {
            let alias = state.alias.clone();
            let deployment = state.deployment.as_mut().filter(|deployment| deployment.name == request.name);
            let Some(deployment) = deployment else { return Err(Status::not_found(request.name)) };
            let answer = deployment.clone();
            // It loads what the alias names, and is ready at the next look.
            if let Some(alias) = alias {
                deployment.model_digest = alias.digest;
                deployment.set_status(deployment::Status::Ready);
            }
            Ok(answer)
        });
    }
}

impl State {
    /// Creates once; the same request id again is no second time.
    fn note(&mut self, name: &str, request_id: &str) -> Result<bool, Status> {
        assert!(!request_id.is_empty(), "{name} is created without a request id");
        match self.requests.get(name) {
            Some(known) if known == request_id => Ok(false),
            Some(_) => Err(Status::already_exists(name)),
            None => {
                self.requests.insert(name.to_owned(), request_id.to_owned());
                self.created.push(name.to_owned());
                Ok(true)
            }
        }
    }

    fn create<J: Kept>(&mut self, mut job: J, request_id: &str) -> Result<J, Status> {
        let name = job.name().to_owned();
        if self.note(&name, request_id)? {
            job.set_job_state(JobState::Running);
            let metrics = [("loss".to_owned(), 2.5)].into();
            job.set_progress(Some(Progress { phase: "working".to_owned(), metrics, ..Progress::default() }));
            J::all(self).insert(name.clone(), job);
            settle::<J>(self);
        }
        Ok(J::all(self)[&name].clone())
    }

    fn promote(&mut self, request: &PromoteModelVersionRequest) -> Result<PromoteModelVersionResponse, Status> {
        let version = self.versions.get_mut(&request.name).ok_or_else(|| Status::not_found(&request.name))?;
        let name = format!("{}/aliases/{}", names::parent(&request.name), request.alias);
        let decision = GateDecision {
            alias: name.clone(),
            passed: !self.refusing,
            findings: vec!["a holds".to_owned(), "b was looked at too".to_owned()],
            ..GateDecision::default()
        };
        version.decisions.push(decision.clone());
        if self.refusing {
            let details = ErrorDetails::with_error_info("GATE_REFUSED", "registry.tidemill", HashMap::new());
            return Err(Status::with_error_details(Code::FailedPrecondition, "b does not hold", details));
        }
        let (model_version, digest) = (version.name.clone(), version.digest.clone());
        let alias = Alias { name, model_version, digest, ..Alias::default() };
        self.alias = Some(alias.clone());
        Ok(PromoteModelVersionResponse { alias: Some(alias), decision: Some(decision) })
    }
}

/// A kind of job and how it ends well.
pub(super) trait Kept: Job {
    fn all(state: &mut State) -> &mut BTreeMap<String, Self>;
    fn succeed(&mut self, state: &mut State);
}

/// Ends jobs that nobody holds back.
fn settle<J: Kept>(state: &mut State) {
    let begins = |prefix: Option<&str>, name: &str| prefix.is_some_and(|prefix| name.starts_with(prefix));
    let running: Vec<J> = J::all(state).values().filter(|job| !job.ended()).cloned().collect();
    for mut job in running {
        let name = job.name().to_owned();
        if begins(state.failing, &name) {
            job.set_job_state(JobState::Failed);
            let message = "the disk is full".to_owned();
            let code = Code::ResourceExhausted as i32;
            job.set_error(Some(tonic_types::Status { code, message, details: Vec::new() }));
        } else if !begins(state.held, &name) {
            job.set_job_state(JobState::Succeeded);
            job.succeed(state);
        }
        J::all(state).insert(name, job);
    }
}

/// A digest made from a text.
pub(super) fn digest(text: &str) -> String {
    tidemill_artifacts::Digest::of(text).to_string()
}

impl Kept for DatasetVersion {
    fn all(state: &mut State) -> &mut BTreeMap<String, Self> {
        &mut state.dataset_versions
    }
    fn succeed(&mut self, _state: &mut State) {
        self.digest = digest(&format!("{:?}", self.origin));
    }
}

impl Kept for PreprocessingJob {
    fn all(state: &mut State) -> &mut BTreeMap<String, Self> {
        &mut state.preprocessing_jobs
    }
    fn succeed(&mut self, _state: &mut State) {
        self.digest = digest(&format!("{:?} {:?}", self.inputs, self.recipe));
    }
}

impl Kept for TrainingJob {
    fn all(state: &mut State) -> &mut BTreeMap<String, Self> {
        &mut state.training_jobs
    }
    fn succeed(&mut self, state: &mut State) {
        self.model_digest = digest(&format!("{:?} {} {}", self.spec, self.dataset_digest, self.base_model_digest));
        let known = state.versions.values().find(|version| version.digest == self.model_digest);
        self.model_version = known.map_or_else(
            || format!("{}/versions/{}", self.model, state.versions.len() + 1),
            |known| known.name.clone(),
        );
        let version = ModelVersion {
            name: self.model_version.clone(),
            digest: self.model_digest.clone(),
            tokenizer_digest: digest("tokenizer"),
            ..ModelVersion::default()
        };
        state.versions.entry(version.name.clone()).or_insert(version);
    }
}

impl Kept for Evaluation {
    fn all(state: &mut State) -> &mut BTreeMap<String, Self> {
        &mut state.evaluations
    }
    fn succeed(&mut self, state: &mut State) {
        self.suite_digest = digest(&format!("{:?}", self.suite));
        self.digest = digest(&format!("{} {} {}", self.model_digest, self.dataset_digest, self.suite_digest));
        let result = EvaluationResult {
            evaluation: self.name.clone(),
            model_digest: self.model_digest.clone(),
            dataset_digest: self.dataset_digest.clone(),
            suite_digest: self.suite_digest.clone(),
            ..EvaluationResult::default()
        };
        state.versions.get_mut(&self.model_version).unwrap().evaluations.push(result);
    }
}
