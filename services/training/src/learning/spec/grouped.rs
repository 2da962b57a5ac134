//! Group-relative policy optimisation as a job asks for it.

use tidemill_proto::r#type::v1::GroupRelativePolicyOptimization;
use tidemill_proto::r#type::v1::group_relative_policy_optimization::{self as proto, reward};
use tidemill_proto::r#type::v1::training_spec;

use super::{Error, Result, Reward, Spec, or};
use crate::learning::{Grouped, GroupedLoss, Rule, ScaleRewards};

const FIELD: &str = "group_relative_policy_optimization";

/// The constants, defaults (those of TRL) filled in.
pub(super) fn of(spec: &GroupRelativePolicyOptimization) -> Grouped {
    let count = |value: i32, default: usize| if value > 0 { value as usize } else { default };
    Grouped {
        num_generations: count(spec.num_generations, 8),
        max_completion_length: count(spec.max_completion_length, 512),
        temperature: or(spec.temperature, 1.0),
        top_p: or(spec.top_p, 1.0),
        beta: spec.beta,
        epsilon: or(spec.epsilon, 0.2),
        num_iterations: count(spec.num_iterations, 1),
        loss: match spec.loss() {
            proto::Loss::Unspecified | proto::Loss::Dapo => GroupedLoss::Dapo,
            proto::Loss::Grpo => GroupedLoss::Grpo,
            proto::Loss::Bnpo => GroupedLoss::Bnpo,
            proto::Loss::DrGrpo => GroupedLoss::DrGrpo,
        },
        scale_rewards: match spec.scale_rewards() {
            proto::ScaleRewards::Unspecified | proto::ScaleRewards::Group => ScaleRewards::Group,
            proto::ScaleRewards::Batch => ScaleRewards::Batch,
            proto::ScaleRewards::None => ScaleRewards::None,
        },
    }
}

/// What a job's answers are rewarded for; nothing for methods that draw none. A reward without a rule is left out.
pub fn rewards_of(method: Option<&training_spec::Method>) -> Vec<Reward> {
    let Some(training_spec::Method::GroupRelativePolicyOptimization(spec)) = method else { return Vec::new() };
    let reward = |asked: &proto::Reward| {
        let rule = match asked.rule.as_ref()? {
            reward::Rule::ExactMatch(_) => Rule::ExactMatch,
            reward::Rule::NumericMatch(_) => Rule::NumericMatch,
            reward::Rule::RegularExpression(spec) => Rule::RegularExpression { pattern: spec.pattern.clone() },
            reward::Rule::Json(_) => Rule::Json,
        };
        Some(Reward { weight: or(asked.weight, 1.0), rule })
    };
    spec.rewards.iter().filter_map(reward).collect()
}

impl Grouped {
    /// Refuses what cannot be drawn or compared.
    pub(super) fn check(&self, spec: &Spec) -> Result<()> {
        let problem = |field, problem| Err(Error::Spec { field, problem });
        if !spec.config.is_decoder() {
            let family = spec.config.model_type();
            return problem(FIELD, format!("needs a model that continues texts, and {family} does not"));
        }
        if self.num_generations < 2 {
            return problem(
                FIELD,
                "num_generations: 1 answer has no other to be compared with; use 2 or more".to_owned(),
            );
        }
        let (longest, length) = (self.max_completion_length, spec.sequence_length);
        if longest >= length {
            let text =
                format!("max_completion_length: {longest} leaves no room for a prompt in a sequence of {length}");
            return problem(FIELD, text);
        }
        Ok(())
    }
}
