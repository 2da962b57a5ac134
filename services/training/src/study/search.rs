//! The search itself, without jobs or clocks: which trial comes next, what a job's curve makes of its trial, and which is best.

use std::cmp::Ordering;

use tidemill_chassis::Fault;
use tidemill_proto::training::v1::study::{Algorithm, Direction};
use tidemill_proto::training::v1::trial::Rung;
use tidemill_proto::training::v1::{Study, TrainingJob, Trial};
use tidemill_proto::r#type::v1::{State, TrainingSpec};
use tonic::Code;

use super::halving::Halving;
use super::sampler;
use super::space::{Space, Values};

/// The figure that every run measures.
const VALIDATION_LOSS: &str = "validation_loss";

/// A study's question.
#[derive(Clone, Debug)]
pub(super) struct Search {
    space: Space,
    algorithm: Algorithm,
    halving: Option<Halving>,
    seed: u64,
    most: usize,
    parallel: usize,
    objective: String,
    maximize: bool,
}

impl Search {
    /// Reads a study that was checked when it was created.
    pub(super) fn of(study: &Study) -> Result<Self, Fault> {
        let mut wrong = Vec::new();
        let template = study.training_job.clone().unwrap_or_default();
        let space = Space::read(&template, &study.parameters, |field, text| wrong.push((field, text)));
        let Some(algorithm) = study.algorithm else {
            return Err(Fault::invalid("algorithm", "one of random_search, tree_parzen_estimator must be given"));
        };
        if !wrong.is_empty() {
            return Err(Fault::invalid_fields(wrong));
        }
        Ok(Self {
            space,
            algorithm,
            halving: study.successive_halving.as_ref().map(Halving::from),
            seed: study.seed,
            most: usize::try_from(study.max_trials).unwrap_or_default(),
            parallel: usize::try_from(study.parallel_trials).unwrap_or_default().max(1),
            objective: objective(study).to_owned(),
            maximize: study.direction() == Direction::Maximize,
        })
    }

    /// The next trial; none while it has to wait for others, or when all are there.
    pub(super) fn next(&self, trials: &[Trial]) -> Option<Trial> {
        let number = trials.len();
        let known = self.known_to(number, trials);
        if number >= self.most || !known.iter().all(has_ended) {
            return None;
        }
        let results = self.ranked(known);
        let parameters = sampler::propose(&self.algorithm, &self.space, self.seed, number, &results);
        Some(Trial { number: number as i32, parameters, state: State::Pending.into(), ..Trial::default() })
    }

    /// Whether all trials are there and have ended.
    pub(super) fn is_over(&self, trials: &[Trial]) -> bool {
        trials.len() >= self.most && trials.iter().all(has_ended)
    }

    /// The job of a trial, without its labels.
    pub(super) fn job(&self, trial: &Trial) -> TrainingJob {
        self.space.job(&trial.parameters)
    }

    /// A trial after a look at its job. A trial that lost at a rung has lost there however far its job came, so that the result is the
    /// same whether the job could be stopped in time or not.
    pub(super) fn judged(&self, trials: &[Trial], number: usize, job: &TrainingJob) -> Trial {
        let mut trial = trials[number].clone();
        let spec = self.job(&trial).spec.unwrap_or_default();
        for step in self.rungs(&spec).into_iter().skip(trial.rungs.len()) {
            let Some(objective) = self.measured(job, step) else { break };
            let (rung, others) = (trial.rungs.len(), self.known_to(number, trials));
            let others = others.iter().filter_map(|other| other.rungs.get(rung));
            let others: Vec<f64> = others.map(|rung| self.cost(rung.objective)).collect();
            trial.rungs.push(Rung { step, objective });
            if self.halving.is_some_and(|halving| !halving.goes_on(self.cost(objective), &others)) {
                trial.set_state(State::Cancelled);
                (trial.stopped_early, trial.objective, trial.step) = (true, Some(objective), step);
                return trial;
            }
        }
        trial.set_state(job.state());
        match job.state() {
            State::Succeeded => match self.measured(job, spec.steps) {
                Some(objective) => {
                    (trial.objective, trial.step) = (Some(objective), spec.steps);
                    trial.model_version.clone_from(&job.model_version);
                }
                None => self.fail(&mut trial, &unmeasured(&self.objective)),
            },
            State::Failed => trial.error.clone_from(&job.error),
            _ => {}
        }
        trial
    }

    /// Ends a trial that could not be run.
    pub(super) fn fail(&self, trial: &mut Trial, fault: &Fault) {
        trial.set_state(State::Failed);
        trial.error = Some(fault.to_rpc("training.tidemill"));
    }

    /// The best of the trials that ran to their end; of equals the first.
    pub(super) fn best<'a>(&self, trials: &'a [Trial]) -> Option<&'a Trial> {
        let done = trials.iter().filter(|trial| trial.state() == State::Succeeded);
        done.min_by(|a, b| self.compare(a, b))
    }

    /// The trials that trial `number` knows of: it is chosen and judged by what they showed, however many others run beside it.
    fn known_to<'a>(&self, number: usize, trials: &'a [Trial]) -> &'a [Trial] {
        &trials[..(number + 1).saturating_sub(self.parallel).min(trials.len())]
    }

    /// Values of ended trials, the best first: those that ran to their end, then those stopped early, the later the better, then those
    /// that failed. One that somebody cancelled says nothing.
    fn ranked<'a>(&self, trials: &'a [Trial]) -> Vec<&'a Values> {
        let told = |trial: &&Trial| trial.state() != State::Cancelled || trial.stopped_early;
        let mut trials: Vec<&Trial> = trials.iter().filter(told).collect();
        let group = |trial: &Trial| match trial.state() {
            State::Succeeded => (0, 0),
            State::Failed => (2, 0),
            _ => (1, -(trial.rungs.len() as i64)),
        };
        trials.sort_by(|a, b| group(a).cmp(&group(b)).then_with(|| self.compare(a, b)));
        trials.into_iter().map(|trial| &trial.parameters).collect()
    }

    fn rungs(&self, spec: &TrainingSpec) -> Vec<i64> {
        self.halving.map(|halving| halving.rungs(spec)).unwrap_or_default()
    }

    /// The objective of a job after a step, where its curve has it. In float32, as checkpoints and artifacts have it.
    fn measured(&self, job: &TrainingJob, step: i64) -> Option<f64> {
        let point = job.history.iter().find(|point| point.step == step)?;
        Some(f64::from(*point.metrics.get(&self.objective)? as f32))
    }

    /// Less is better.
    fn cost(&self, objective: f64) -> f64 {
        if self.maximize { -objective } else { objective }
    }

    fn compare(&self, a: &Trial, b: &Trial) -> Ordering {
        let cost = |trial: &Trial| trial.objective.map_or(f64::INFINITY, |objective| self.cost(objective));
        cost(a).total_cmp(&cost(b))
    }
}

/// The figure that a study compares.
pub(super) fn objective(study: &Study) -> &str {
    if study.objective.is_empty() { VALIDATION_LOSS } else { &study.objective }
}

/// Whether a trial has ended, for the study.
pub(super) fn has_ended(trial: &Trial) -> bool {
    matches!(trial.state(), State::Succeeded | State::Failed | State::Cancelled)
}

fn unmeasured(objective: &str) -> Fault {
    let text = format!("its curve ends without {objective}; the dataset needs a validation split");
    Fault::new(Code::FailedPrecondition, "OBJECTIVE_NOT_MEASURED", text)
}
