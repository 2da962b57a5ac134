//! Answers that the model drew, group by group: all to one prompt, each rewarded, and compared with the others of its group.

use std::collections::BTreeMap;

use serde::Serialize;
use tch::{Device, Tensor};
use tidemill_models::IGNORED;

use super::{Prompt, Result, loader::MicroBatch};

/// Says what an answer is worth.
pub trait Judge: Send {
    /// The verdict on an answer, given without the token that ended it.
    fn judge(&self, prompt: &Prompt, answer: &[u32]) -> Result<Verdict>;
}

/// What an answer is worth.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Its reward.
    pub reward: f64,
    /// What the reward is the weighted sum of, by names of figures.
    pub parts: Vec<(&'static str, f64)>,
}

/// What an answer's lead over the mean of its group is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ScaleRewards {
    /// The standard deviation of its group's rewards.
    Group,
    /// That of all rewards of the step.
    Batch,
    /// Nothing.
    None,
}

/// Added to a standard deviation before it divides, as TRL does.
const SMALL: f64 = 1e-4;

/// One answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    /// Its ids, with the one that ended it; at least one.
    pub(super) ids: Vec<u32>,
    /// Whether it came to an end, and was not cut off.
    pub(super) ended: bool,
    pub(super) verdict: Verdict,
}

/// All answers to one prompt.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) prompt: &'a Prompt,
    pub(super) answers: Vec<Answer>,
}

/// Figures of a batch: sums, and what they are sums of.
pub(super) type Figures = BTreeMap<&'static str, (f64, f64)>;

/// What is known of the answers in a batch besides their ids.
pub(super) struct Drawn {
    /// How far each is better than its group, [answers].
    pub(super) advantages: Tensor,
    /// Log-probabilities of each token under the model that drew it, [time]; absent where that is the model that learns.
    pub(super) before: Option<Tensor>,
    pub(super) figures: Figures,
}

impl Group<'_> {
    fn rewards(&self) -> impl Iterator<Item = f64> + '_ {
        self.answers.iter().map(|answer| answer.verdict.reward)
    }

    /// Sum of rewards, of their squared distances from `mean`, and their number.
    pub(super) fn moments(&self, mean: f64) -> [f64; 3] {
        let squares = self.rewards().map(|reward| (reward - mean).powi(2)).sum();
        [self.rewards().sum(), squares, self.answers.len() as f64]
    }

    fn deviation(&self) -> f64 {
        if self.is_level() {
            return 0.0;
        }
        let [sum, _, count] = self.moments(0.0);
        let [_, squares, _] = self.moments(sum / count);
        deviation(squares, count)
    }

    /// Whether no answer is better than another: then the group teaches nothing.
    fn is_level(&self) -> bool {
        let mut rewards = self.rewards();
        let first = rewards.next();
        rewards.all(|reward| Some(reward) == first)
    }

    /// How far each answer is better than the group. `of_step`: the deviation of all rewards of the step.
    pub(super) fn advantages(&self, scale: ScaleRewards, of_step: f64) -> Vec<f32> {
        // The mean of equal numbers may differ from them by a rounding: what teaches nothing should move nothing.
        if self.is_level() {
            return vec![0.0; self.answers.len()];
        }
        let mean = self.rewards().sum::<f64>() / self.answers.len() as f64;
        let divisor = match scale {
            ScaleRewards::Group => self.deviation() + SMALL,
            ScaleRewards::Batch => of_step + SMALL,
            ScaleRewards::None => 1.0,
        };
        self.rewards().map(|reward| ((reward - mean) / divisor) as f32).collect()
    }
}

/// Of a sum of squared distances, without bias.
pub(super) fn deviation(squares: f64, count: f64) -> f64 {
    (squares / (count - 1.0).max(1.0)).sqrt()
}

/// Groups as a batch to learn from: each answer after its prompt is a document.
pub(super) fn lay(groups: &[Group<'_>], scale: ScaleRewards, of_step: f64, device: Device) -> Result<MicroBatch> {
    let documents: Vec<(Vec<u32>, Vec<i32>)> =
        groups.iter().flat_map(|group| group.answers.iter().map(|answer| document(group.prompt, answer))).collect();
    let documents: Vec<(&[u32], &[i32])> =
        documents.iter().map(|(inputs, targets)| (&inputs[..], &targets[..])).collect();
    let mut batch = MicroBatch::documents(&documents, device)?;
    let advantages: Vec<f32> = groups.iter().flat_map(|group| group.advantages(scale, of_step)).collect();
    let advantages = Tensor::f_from_slice(&advantages)?.f_to_device(device)?;
    if let Some(laid) = &mut batch.documents {
        laid.drawn = Some(Drawn { advantages, before: None, figures: figures(groups) });
    }
    Ok(batch)
}

/// Inputs and targets of a prompt with an answer, which alone is learned.
fn document(prompt: &Prompt, answer: &Answer) -> (Vec<u32>, Vec<i32>) {
    let (prompt, answer) = (&prompt.ids, &answer.ids);
    let inputs = prompt.iter().chain(&answer[..answer.len() - 1]).copied().collect();
    let ignored = std::iter::repeat_n(IGNORED as i32, prompt.len() - 1);
    // Ids of a vocabulary of at most a million.
    (inputs, ignored.chain(answer.iter().map(|id| *id as i32)).collect())
}

/// What groups came to.
pub(super) fn figures(groups: &[Group<'_>]) -> Figures {
    let mut all = Figures::new();
    let mut add = |name, value| {
        let sum = all.entry(name).or_default();
        *sum = (sum.0 + value, sum.1 + 1.0);
    };
    for group in groups {
        add("reward_std", group.deviation());
        add("frac_reward_zero_std", f64::from(group.is_level()));
        for answer in &group.answers {
            add("reward", answer.verdict.reward);
            add("completion_length", answer.ids.len() as f64);
            add("completion_clipped_ratio", f64::from(!answer.ended));
            answer.verdict.parts.iter().for_each(|(name, value)| add(*name, *value));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt() -> Prompt {
        Prompt { ids: [5, 6].into(), answer: None }
    }

    fn group<'a>(prompt: &'a Prompt, rewards: &[f64]) -> Group<'a> {
        let answer = |reward: &f64| Answer {
            ids: vec![7, 1],
            ended: true,
            verdict: Verdict { reward: *reward, parts: Vec::new() },
        };
        Group { prompt, answers: rewards.iter().map(answer).collect() }
    }

    fn close(found: &[f32], expected: &[f32]) {
        let apart = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(found.len() == expected.len() && apart < 1e-6, "{found:?}, not {expected:?}");
    }

    #[test]
    fn advantages_are_distances_from_the_mean_in_deviations() {
        let prompt = prompt();
        let group = group(&prompt, &[1.0, 0.0, 0.0, 1.0]);
        // torch.std of the rewards: sqrt(1/3).
        let each = (0.5 / ((1.0f64 / 3.0).sqrt() + 1e-4)) as f32;
        close(&group.advantages(ScaleRewards::Group, 9.0), &[each, -each, -each, each]);
        let each = (0.5 / (0.4 + 1e-4)) as f32;
        close(&group.advantages(ScaleRewards::Batch, 0.4), &[each, -each, -each, each]);
        close(&group.advantages(ScaleRewards::None, 9.0), &[0.5, -0.5, -0.5, 0.5]);
    }

    #[test]
    fn equal_rewards_give_exactly_no_advantage() {
        let prompt = prompt();
        // The mean of ten times 0.1 is not 0.1.
        let group = group(&prompt, &[0.1; 10]);
        for scale in [ScaleRewards::Group, ScaleRewards::Batch, ScaleRewards::None] {
            assert_eq!(group.advantages(scale, 0.0), [0.0; 10]);
        }
    }

    #[test]
    fn only_answers_are_learned_and_figures_are_means_over_answers_and_groups() {
        let prompt = prompt();
        let groups = [group(&prompt, &[1.0, 0.0]), group(&prompt, &[1.0, 1.0])];
        let batch = lay(&groups, ScaleRewards::Group, 0.0, Device::Cpu).unwrap();
        let ids = |tensor: &Tensor| Vec::<i64>::try_from(&tensor.view([-1])).unwrap();
        assert_eq!(ids(&batch.inputs_bt), [5, 6, 7].repeat(4));
        assert_eq!(ids(&batch.targets_bt), [IGNORED, 7, 1].repeat(4));
        let drawn = batch.documents.unwrap().drawn.unwrap();
        assert_eq!(drawn.figures["reward"], (3.0, 4.0));
        assert_eq!(drawn.figures["completion_length"], (8.0, 4.0));
        assert_eq!(drawn.figures["frac_reward_zero_std"], (1.0, 2.0));
        assert!((drawn.figures["reward_std"].0 - 0.5f64.sqrt()).abs() < 1e-12);
    }
}
