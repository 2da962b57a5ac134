//! The batches of a step: read, or, where answers are rewarded, drawn by the model as it stands, and judged.
//!
//! A draw depends on the seed, the prompt's position in the run and the answer's number alone, however a step is cut.

use tch::no_grad;
use tidemill_models::{Error as ModelError, generate, sampling::Sampling};

use super::{Trainer, gradients::means, validation::Measured};
use crate::learning::{
    Error, Grouped, Judge, Method, Prompt, Result, Rows, ScaleRewards,
    drawn::{self, Answer, Group},
    loader::{MicroBatch, Placed},
};

/// Validation prompts that a measurement during training answers.
const PROMPTS: usize = 128;

/// What answers need besides a model.
pub(super) struct Rollouts {
    judge: Box<dyn Judge>,
    /// Tokens that end an answer.
    ends: Vec<u32>,
}

/// The groups of one micro-batch, by its number.
type Numbered<'a> = (u64, Vec<Group<'a>>);

impl Trainer {
    /// The run with what judges the answers that its method draws; each ends with a token of `ends`, or is cut off.
    pub fn with_judge(mut self, judge: impl Judge + 'static, ends: Vec<u32>) -> Self {
        self.rollouts = Some(Rollouts { judge: Box::new(judge), ends });
        self
    }

    /// This rank's micro-batches of the next step, with their numbers.
    pub(super) fn batches(&self) -> Result<Vec<(u64, MicroBatch)>> {
        let (rank, size) = (self.world.rank(), self.world.size());
        let Method::Grouped(constants) = self.spec.method else {
            return self.loader.step(self.step, rank, size);
        };
        self.model.set_dropout(false);
        let batches = self.drawn(constants, self.loader.prompts(self.step, rank, size)?);
        self.model.set_dropout(true);
        batches
    }

    fn drawn(&self, constants: Grouped, prompts: Vec<(u64, Placed<'_>)>) -> Result<Vec<(u64, MicroBatch)>> {
        let mut groups: Vec<Numbered<'_>> = Vec::new();
        for (index, prompts) in prompts {
            let drawn = prompts.into_iter().map(|(position, prompt)| self.group(constants, position, prompt));
            groups.push((index, drawn.collect::<Result<_>>()?));
        }
        let scale = constants.scale_rewards;
        let of_step = if scale == ScaleRewards::Batch { self.deviation(&groups)? } else { 0.0 };
        let lay = |(index, groups): &Numbered<'_>| {
            let mut batch = drawn::lay(groups, scale, of_step, self.loader.device)?;
            if constants.num_iterations > 1 {
                // The second update meets another model than the one that drew.
                let before = no_grad(|| self.learner().log_probabilities(&self.model, &batch))?;
                if let Some(drawn) = batch.documents.as_mut().and_then(|laid| laid.drawn.as_mut()) {
                    drawn.before = Some(before);
                }
            }
            Ok((*index, batch))
        };
        groups.iter().map(lay).collect()
    }

    fn group<'a>(&self, constants: Grouped, position: u64, prompt: &'a Prompt) -> Result<Group<'a>> {
        let seeds: Vec<u64> =
            (0..constants.num_generations as u64).map(|number| key([self.spec.seed, position, number])).collect();
        Ok(Group { prompt, answers: self.answers(prompt, constants, constants.sampling(), &seeds)? })
    }

    /// Answers to a prompt, one for each seed, judged.
    fn answers(&self, prompt: &Prompt, constants: Grouped, sampling: Sampling, seeds: &[u64]) -> Result<Vec<Answer>> {
        let Some(rollouts) = &self.rollouts else {
            let problem = "the run was begun without what judges answers".to_owned();
            return Err(Error::Spec { field: "group_relative_policy_optimization", problem });
        };
        let ids: Vec<i64> = prompt.ids.iter().map(|id| i64::from(*id)).collect();
        let ends: Vec<i64> = rollouts.ends.iter().map(|id| i64::from(*id)).collect();
        let most = constants.max_completion_length;
        let drawn = generate::sample(&self.model, &ids, most, &ends, sampling, seeds).map_err(|error| match error {
            ModelError::Logits(_) => Error::NotFinite { what: "a logit", step: self.step, value: f64::NAN },
            error => error.into(),
        })?;
        let answer = |ids: Vec<i64>| {
            // Ids of a vocabulary of at most a million.
            let ids: Vec<u32> = ids.into_iter().map(|id| id as u32).collect();
            let ended = ids.last().is_some_and(|last| rollouts.ends.contains(last));
            let verdict = rollouts.judge.judge(prompt, &ids[..ids.len() - usize::from(ended)])?;
            Ok(Answer { ids, ended, verdict })
        };
        drawn.into_iter().map(answer).collect()
    }

    /// The standard deviation of all rewards of the step, over all ranks.
    fn deviation(&self, groups: &[Numbered<'_>]) -> Result<f64> {
        let moments = |mean: f64| {
            let all = groups.iter().flat_map(|(_, groups)| groups).map(|group| group.moments(mean));
            let sums = all.fold([0.0; 3], |a, b| [a[0] + b[0], a[1] + b[1], a[2] + b[2]]);
            self.world.sum(&sums)
        };
        let first = moments(0.0)?;
        let second = moments(first[0] / first[2])?;
        Ok(drawn::deviation(second[1], second[2]))
    }

    /// What the likeliest answers to validation prompts are worth: the mean reward with its sign changed, so that less is better, and figures.
    pub(super) fn rewarded(&self, rows: &Rows, constants: Grouped) -> Result<Measured> {
        let likeliest = Sampling { temperature: 0.0, ..Sampling::default() };
        let mut groups = Vec::new();
        for row in rows.measured(1).flatten().take(PROMPTS) {
            let prompt = row.prompt()?;
            groups.push(Group { prompt, answers: self.answers(prompt, constants, likeliest, &[0])? });
        }
        let mut figures = drawn::figures(&groups);
        // One answer has nothing to differ from.
        figures.retain(|name, _| !name.contains("std"));
        let (sum, count) = figures.get("reward").copied().unwrap_or_default();
        Ok((-sum / count.max(1.0), means(figures, "validation_")))
    }
}

/// The seed of one answer.
fn key(parts: [u64; 3]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(&parts.map(u64::to_le_bytes).concat())
}
