//! One line for each step of a run, or for one job: state, figures, time left, the loss as a curve.

use tidemill_proto::Job as _;
use tidemill_proto::pipeline::v1::PipelineRun;
use tidemill_proto::r#type::v1::{Progress, State};

use crate::jobs::{AnyJob, each, is_job};
use crate::words;

/// A step, or a job alone.
#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    /// What it is called on the screen.
    pub(super) id: String,
    /// The job behind it; empty for steps without one.
    pub(super) resource: String,
    /// Where it stands.
    pub(super) state: State,
    progress: Option<Progress>,
    losses: Vec<f64>,
    seconds: Option<f64>,
    result: String,
    /// Whether the job behind it has said its last word.
    settled: bool,
}

/// All lines, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines(pub(super) Vec<Line>);

impl Lines {
    /// Takes over a run's steps.
    pub(super) fn run(&mut self, run: &PipelineRun) {
        for (at, step) in run.steps.iter().enumerate() {
            if self.0.len() <= at {
                self.0.push(Line { id: step.id.clone(), ..Line::default() });
            }
            let line = &mut self.0[at];
            line.id.clone_from(&step.id);
            line.resource.clone_from(&step.resource);
            // A step's last line is its job's: what came of it is in there, and arrives a moment later.
            let awaited = step.state() == State::Succeeded && is_job(&step.resource) && !line.settled;
            if !awaited {
                line.state = step.state();
            } else if line.state == State::Unspecified {
                line.state = State::Pending;
            }
            line.seconds = words::between(step.start_time.as_ref(), step.end_time.as_ref());
            if line.result.is_empty() && !step.digest.is_empty() {
                line.result = words::digest(&step.digest);
            }
        }
    }

    /// Takes over what a job says; it fills the line whose resource it is.
    pub(super) fn job(&mut self, job: &AnyJob) {
        let name = each!(job, job => job.name.clone());
        for line in self.0.iter_mut().filter(|line| line.resource == name) {
            line.take(job);
        }
    }
}

impl Line {
    /// A line for a job alone.
    pub(super) fn alone(job: &AnyJob) -> Self {
        let resource = each!(job, job => job.name.clone());
        let mut line = Self { id: job.kind().to_owned(), resource, ..Self::default() };
        line.take(job);
        line
    }

    fn take(&mut self, job: &AnyJob) {
        each!(job, job => {
            self.state = job.job_state();
            self.progress = job.progress().cloned();
            self.seconds = words::between(job.start_time.as_ref(), job.end_time.as_ref());
        });
        self.settled = job.ended();
        if let AnyJob::Training(training) = job {
            self.losses = training.history.iter().filter_map(|point| point.metrics.get("loss").copied()).collect();
            self.losses.extend(self.metric("loss"));
        }
        if let Some(result) = result(job) {
            self.result = result;
        }
    }

    fn metric(&self, name: &str) -> Option<f64> {
        self.progress.as_ref()?.metrics.get(name).copied()
    }

    /// Done share in percent, where it is known.
    fn percent(&self) -> Option<i64> {
        let progress = self.progress.as_ref().filter(|progress| progress.total_count > 0)?;
        Some((progress.done_count * 100 / progress.total_count).clamp(0, 100))
    }

    /// Changes when a reader of a log should see a new line: the state, the phase, every quarter of the work.
    pub(super) fn landmark(&self) -> (i32, String, i64) {
        let phase = self.progress.as_ref().map(|progress| progress.phase.clone()).unwrap_or_default();
        match self.state {
            State::Running => (self.state as i32, phase, self.percent().unwrap_or(0) / 25),
            _ => (self.state as i32, String::new(), 0),
        }
    }

    /// The line as text.
    pub(super) fn text(&self, curve_width: usize) -> String {
        let mark = match self.state {
            State::Succeeded => "✔",
            State::Failed => "✘",
            State::Cancelled => "–",
            State::Running => "▶",
            State::Pending | State::Unspecified => "·",
        };
        let mut parts = vec![format!("{mark} {:<15}", self.id)];
        match self.state {
            State::Running => parts.extend(self.figures(curve_width)),
            State::Pending | State::Unspecified => parts.push("waiting".to_owned()),
            _ => {
                parts.extend(self.seconds.map(|seconds| format!("{seconds:.1} s")));
                parts.push(if self.state == State::Succeeded {
                    self.result.clone()
                } else {
                    words::state(self.state).to_owned()
                });
                let curve = words::sparkline(&self.losses, curve_width);
                parts.extend((!curve.is_empty()).then_some(curve));
            }
        }
        parts.join("  ").trim_end().to_owned()
    }

    fn figures(&self, curve_width: usize) -> Vec<String> {
        let Some(progress) = &self.progress else { return vec!["running".to_owned()] };
        let mut parts = vec![progress.phase.clone()];
        if let Some(percent) = self.percent() {
            let filled = usize::try_from(percent / 5).unwrap_or(0);
            parts.push(format!("{}{} {percent:>3}%", "█".repeat(filled), "░".repeat(20 - filled.min(20))));
            parts.push(format!(
                "{}/{} {}",
                words::count(progress.done_count),
                words::count(progress.total_count),
                progress.unit
            ));
        } else if progress.done_count > 0 {
            parts.push(format!("{} {}", words::count(progress.done_count), progress.unit));
        }
        parts.extend(self.metric("loss").map(|loss| format!("loss {loss:.3}")));
        parts.extend(self.metric("best").map(|best| format!("best {best:.4}")));
        parts.extend(self.metric("tokens_per_second").map(|rate| format!("{} tokens/s", words::count(rate as i64))));
        parts.extend(progress.remaining.as_ref().map(|left| format!("{} left", words::span(left.seconds.max(0)))));
        let curve = words::sparkline(&self.losses, curve_width);
        parts.extend((!curve.is_empty()).then_some(curve));
        parts.retain(|part| !part.is_empty());
        parts
    }
}

/// What came of a job, in figures.
fn result(job: &AnyJob) -> Option<String> {
    match job {
        AnyJob::Ingestion(version) if version.job_state() == State::Succeeded => Some(format!(
            "{} records, {} bytes, {} quarantined  {}",
            version.record_count,
            words::count(version.text_bytes),
            version.quarantined_count,
            words::digest(&version.digest)
        )),
        AnyJob::Preprocessing(job) if job.job_state() == State::Succeeded => {
            let train = job.splits.get("train").copied().unwrap_or_default();
            let dropped: i64 = job.dropped_counts.values().sum();
            Some(format!(
                "{} training documents, {} tokens, {dropped} dropped  {}",
                train.document_count,
                words::count(train.token_count),
                words::digest(&job.digest)
            ))
        }
        AnyJob::Training(job) if job.job_state() == State::Succeeded => {
            Some(format!("{} steps  {}  {}", job.step, job.model_version, words::digest(&job.model_digest)))
        }
        AnyJob::Study(study) if study.job_state() == State::Succeeded => Some(format!(
            "{} trials, the best is {}  {}  {}",
            study.trials.len(),
            study.best_trial(),
            study.model_version,
            words::digest(&study.model_digest)
        )),
        AnyJob::Evaluation(job) if job.job_state() == State::Succeeded => {
            let figure =
                |name: &str| job.metrics.get(name).map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
            let (model, xz, unigram) =
                (figure("bits_per_byte"), figure("xz_bits_per_byte"), figure("unigram_bits_per_byte"));
            if job.metrics.contains_key("bits_per_byte") {
                return Some(format!("bits per byte {model} (xz {xz}, unigram {unigram})"));
            }
            // Of rows: figures by their names.
            let figures = job.metrics.iter().map(|(name, value)| format!("{name} {value:.3}"));
            Some(figures.collect::<Vec<_>>().join("  "))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tidemill_proto::training::v1::TrainingJob;
    use tidemill_proto::training::v1::training_job::MetricPoint;

    use super::*;

    fn training() -> TrainingJob {
        let metrics = [("loss".to_owned(), 4.25), ("tokens_per_second".to_owned(), 21_500.0)];
        let progress = Progress {
            phase: "training".to_owned(),
            done_count: 250,
            total_count: 500,
            unit: "steps".to_owned(),
            remaining: Some(prost_types::Duration { seconds: 75, nanos: 0 }),
            metrics: metrics.into(),
        };
        let point = |step: i64, loss| MetricPoint { step, metrics: [("loss".to_owned(), loss)].into() };
        let history = vec![point(0, 8.0), point(100, 6.0)];
        let mut job =
            TrainingJob { name: "trainingJobs/a".to_owned(), progress: Some(progress), history, ..Default::default() };
        job.set_state(State::Running);
        job
    }

    #[test]
    fn a_training_line_shows_loss_rate_time_left_and_the_curve() {
        let text = Line::alone(&AnyJob::Training(training())).text(10);
        for part in ["training", "50%", "250/500 steps", "loss 4.250", "21.5k tokens/s", "1m15s left", "█▄▁"] {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
    }

    #[test]
    fn a_log_gets_a_line_for_each_state_phase_and_quarter() {
        let mut job = training();
        let mark = |job: &TrainingJob| Line::alone(&AnyJob::Training(job.clone())).landmark();
        let before = mark(&job);
        job.progress.as_mut().unwrap().done_count += 1;
        assert_eq!(mark(&job), before);
        job.progress.as_mut().unwrap().done_count += 125;
        assert_ne!(mark(&job), before);
    }

    #[test]
    fn a_step_ends_on_the_screen_when_its_job_has_told_what_came_of_it() {
        let mut job = training();
        let mut step = tidemill_proto::pipeline::v1::pipeline_run::Step::default();
        (step.id, step.resource) = ("train".to_owned(), job.name.clone());
        step.set_state(State::Succeeded);
        let run = PipelineRun { steps: vec![step], ..Default::default() };
        let mut lines = Lines::default();
        lines.run(&run);
        assert!(!lines.0[0].text(10).contains('✔'));
        (job.step, job.model_version) = (500, "models/m/versions/1".to_owned());
        job.set_state(State::Succeeded);
        lines.job(&AnyJob::Training(job));
        lines.run(&run);
        let text = lines.0[0].text(10);
        assert!(text.contains('✔') && text.contains("500 steps  models/m/versions/1"), "{text}");
    }

    #[test]
    fn a_jobs_figures_land_on_its_step() {
        let mut run = PipelineRun::default();
        for (id, resource) in [("ingest", "datasets/a/versions/1"), ("train", "trainingJobs/a")] {
            let step = tidemill_proto::pipeline::v1::pipeline_run::Step {
                id: id.to_owned(),
                resource: resource.to_owned(),
                ..Default::default()
            };
            run.steps.push(step);
        }
        let mut lines = Lines::default();
        lines.run(&run);
        lines.job(&AnyJob::Training(training()));
        assert!(lines.0[0].text(10).contains("waiting"));
        assert!(lines.0[1].text(10).contains("loss 4.250"));
    }
}
