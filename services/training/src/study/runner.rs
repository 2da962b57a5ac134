//! Drives a study: begins trials, looks at their jobs, and stops those that lost. What it needs to go on after a crash is on the study.

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll};
use tidemill_chassis::Fault;
use tidemill_platform::{Context, Jobs, Platform, Runner, fault_of_artifacts};
use tidemill_proto::names;
use tidemill_proto::training::v1::{Study, TrainingJob, Trial};
use tidemill_proto::r#type::v1::Progress;
use tonic::{Code, Status};

use super::plot::trials_plot;
use super::search::{Search, has_ended};
use crate::validate;
use crate::worker::plot_reference;

/// The changes of the jobs of all trials that run, by number.
type Changes = SelectAll<BoxStream<'static, (usize, Result<TrainingJob, Status>)>>;

pub(crate) struct StudyRunner {
    pub(crate) platform: Platform,
    pub(crate) jobs: Jobs<TrainingJob>,
}

#[async_trait]
impl Runner<Study> for StudyRunner {
    async fn run(&self, study: Study, context: &Context<Study>) -> Result<Study, Fault> {
        let search = Search::of(&study)?;
        let mut trials = study.trials.clone();
        if let Err(fault) = self.search(&study, &search, &mut trials, context).await {
            let was_cancelled = context.cancelled().is_cancelled() && !context.stopping().is_cancelled();
            if was_cancelled || !fault.is_transient() {
                stop_jobs(&self.jobs, &trials).await?;
            }
            return Err(fault);
        }
        let best = search.best(&trials).cloned();
        let mut done = Study { trials, progress: None, ..study };
        let Some(best) = best else { return Err(fruitless(&done)) };
        let (plot, _) = self.platform.artifacts.put(trials_plot(&done)).await.map_err(fault_of_artifacts)?;
        self.platform.artifacts.claim(&plot_reference(&done.uid), &plot).await.map_err(fault_of_artifacts)?;
        done.plot_digest = plot.to_string();
        done.model_digest = self.jobs.get(&best.training_job).await?.model_digest;
        done.best_trial = Some(best.number);
        done.model_version = best.model_version;
        Ok(done)
    }
}

impl StudyRunner {
    /// Runs trials until all have ended.
    async fn search(
        &self,
        study: &Study,
        search: &Search,
        trials: &mut Vec<Trial>,
        context: &Context<Study>,
    ) -> Result<(), Fault> {
        let mut changes = Changes::new();
        // Those that were begun before this process took the study over.
        for number in 0..trials.len() {
            if !has_ended(&trials[number]) {
                self.begin(study, search, trials, number, context, &mut changes).await?;
            }
        }
        loop {
            while !context.cancelled().is_cancelled()
                && let Some(mut trial) = search.next(trials)
            {
                // The study knows the job before there is one: whatever happens, no trial is made twice and no job is forgotten.
                trial.training_job = format!("trainingJobs/{}-{}", names::last_id(&study.name), trial.number);
                trials.push(trial);
                let number = trials.len() - 1;
                store(context, search, trials).await?;
                self.begin(study, search, trials, number, context, &mut changes).await?;
            }
            if search.is_over(trials) {
                return Ok(());
            }
            tell(search, study, trials, context);
            let change = tokio::select! {
                change = changes.next() => change,
                () = context.cancelled().cancelled() => None,
            };
            let Some((number, job)) = change else { return Err(Fault::unavailable("the work was stopped")) };
            let job = job?;
            if has_ended(&trials[number]) {
                continue;
            }
            let judged = search.judged(trials, number, &job);
            if judged == trials[number] {
                continue;
            }
            let lost = judged.stopped_early;
            trials[number] = judged;
            store(context, search, trials).await?;
            if lost {
                tracing::info!(
                    study = study.name,
                    trial = number,
                    step = trials[number].step,
                    "trial is stopped early"
                );
                stop_job(&self.jobs, &job.name).await?;
            }
        }
    }

    /// Creates the job of a trial, if it is not there yet, and follows it.
    async fn begin(
        &self,
        study: &Study,
        search: &Search,
        trials: &mut [Trial],
        number: usize,
        context: &Context<Study>,
        changes: &mut Changes,
    ) -> Result<(), Fault> {
        let mut job = search.job(&trials[number]);
        match validate::check(&self.platform, "", &job).await {
            Err(fault) if fault.code == Code::InvalidArgument => {
                search.fail(&mut trials[number], &fault);
                return store(context, search, trials).await;
            }
            checked => checked?,
        }
        job.labels.insert("study".to_owned(), names::last_id(&study.name).to_owned());
        job.labels.insert("trial".to_owned(), number.to_string());
        let key = format!("tidemill/study/{}/{number}", study.uid);
        let request_id = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, key.as_bytes()).to_string();
        let job = self.jobs.create(job, "", names::last_id(&trials[number].training_job), &request_id).await?;
        changes.push(self.jobs.watch(&job.name).await?.map(move |job| (number, job)).boxed());
        Ok(())
    }
}

async fn store(context: &Context<Study>, search: &Search, trials: &[Trial]) -> Result<(), Fault> {
    let best = search.best(trials).map(|trial| trial.number);
    context.update(|study| (study.trials, study.best_trial) = (trials.to_vec(), best)).await?;
    Ok(())
}

/// Says how far the study is, and what its best trial reached.
fn tell(search: &Search, study: &Study, trials: &[Trial], context: &Context<Study>) {
    let ended = trials.iter().filter(|trial| has_ended(trial)).count();
    let best = search.best(trials).and_then(|trial| trial.objective);
    context.progress(Progress {
        phase: "searching".to_owned(),
        done_count: ended as i64,
        total_count: study.max_trials.into(),
        unit: "trials".to_owned(),
        metrics: best.map(|best| ("best".to_owned(), best)).into_iter().collect(),
        ..Progress::default()
    });
}

/// Stops the jobs of all trials that have not ended.
pub(super) async fn stop_jobs(jobs: &Jobs<TrainingJob>, trials: &[Trial]) -> Result<(), Fault> {
    for trial in trials.iter().filter(|trial| !has_ended(trial)) {
        stop_job(jobs, &trial.training_job).await?;
    }
    Ok(())
}

async fn stop_job(jobs: &Jobs<TrainingJob>, name: &str) -> Result<(), Fault> {
    match jobs.cancel(name).await {
        // A trial whose job was not created yet.
        Err(fault) if fault.code == Code::NotFound => Ok(()),
        cancelled => cancelled.map(|_| ()),
    }
}

/// No trial has a result: what the first that failed says.
fn fruitless(study: &Study) -> Fault {
    let first = study.trials.iter().find_map(|trial| Some((trial.number, trial.error.as_ref()?)));
    let why = first.map_or_else(
        || "all were cancelled".to_owned(),
        |(number, error)| format!("trial {number}: {}", error.message),
    );
    Fault::precondition("NO_TRIAL_SUCCEEDED", &study.name, format!("no trial ran to its end; {why}"))
}
