//! The rules of group-relative policy optimisation.

use regex::Regex;
use tidemill_proto::r#type::v1::GroupRelativePolicyOptimization;
use tidemill_proto::r#type::v1::group_relative_policy_optimization::{Loss, Reward, ScaleRewards, reward::Rule};

use super::Violations;

const AT: &str = "group_relative_policy_optimization";
/// Tokens of an answer where the spec does not say.
const USUAL_LENGTH: i32 = 512;
/// Most answers to a prompt, and most updates with them.
const MOST: i32 = 1024;

pub(super) fn check(spec: &GroupRelativePolicyOptimization, sequence_length: i32, wrong: &mut Violations) {
    let at = |field: &str| format!("{AT}.{field}");
    let answers = spec.num_generations;
    wrong.unless(answers == 0 || (2..=MOST).contains(&answers), &at("num_generations"), || {
        format!("{answers} is not a number of answers that can be compared; use 2 to {MOST}, or 0 for 8")
    });
    let longest = if spec.max_completion_length == 0 { USUAL_LENGTH } else { spec.max_completion_length };
    wrong.unless(longest >= 1, &at("max_completion_length"), || {
        format!("{longest} is not a length; use at least 1, or 0 for {USUAL_LENGTH}")
    });
    wrong.unless(longest < sequence_length || sequence_length < 1, &at("max_completion_length"), || {
        format!("{longest} leaves no room for a prompt in sequence_length = {sequence_length}")
    });
    wrong.range(&at("temperature"), spec.temperature, 0.0, 1e3);
    wrong.unless((0.0..=1.0).contains(&spec.top_p), &at("top_p"), || format!("{} is not in [0, 1]", spec.top_p));
    wrong.range(&at("beta"), spec.beta, 0.0, 1e6);
    wrong.range(&at("epsilon"), spec.epsilon, 0.0, 1.0);
    let updates = spec.num_iterations;
    wrong.unless((0..=MOST).contains(&updates), &at("num_iterations"), || {
        format!("{updates} is not a number of updates; use 1 to {MOST}, or 0 for 1")
    });
    let known = Loss::try_from(spec.loss).is_ok();
    wrong.unless(known, &at("loss"), || format!("{} is not a loss", spec.loss));
    let known = ScaleRewards::try_from(spec.scale_rewards).is_ok();
    wrong.unless(known, &at("scale_rewards"), || format!("{} is not a scale", spec.scale_rewards));
    wrong.unless(!spec.rewards.is_empty(), &at("rewards"), || "is required: what answers are rewarded for".to_owned());
    for (index, reward) in spec.rewards.iter().enumerate() {
        check_reward(reward, &at(&format!("rewards[{index}]")), wrong);
    }
}

fn check_reward(reward: &Reward, at: &str, wrong: &mut Violations) {
    let weight = reward.weight;
    wrong.unless(weight.is_finite(), &format!("{at}.weight"), || format!("{weight} is not a number; use 0 for 1"));
    match &reward.rule {
        None => {
            wrong.add(format!("spec.{at}.rule"), "is required: exact_match, numeric_match, regular_expression or json")
        }
        Some(Rule::RegularExpression(spec)) => {
            let field = format!("{at}.regular_expression.pattern");
            wrong.unless(!spec.pattern.is_empty(), &field, || "is required: the empty pattern matches all".to_owned());
            if let Err(error) = Regex::new(&spec.pattern) {
                wrong.add(format!("spec.{field}"), error.to_string());
            }
        }
        Some(Rule::ExactMatch(_) | Rule::NumericMatch(_) | Rule::Json(_)) => {}
    }
}

#[cfg(test)]
mod tests {
    use tidemill_proto::r#type::v1::group_relative_policy_optimization::{Json, RegularExpression};

    use super::*;

    fn fields(spec: &GroupRelativePolicyOptimization, sequence_length: i32) -> Vec<String> {
        let mut wrong = Violations::default();
        check(spec, sequence_length, &mut wrong);
        let path = |(field, _): (String, String)| field.strip_prefix(&format!("spec.{AT}.")).unwrap().to_owned();
        wrong.0.into_iter().map(path).collect()
    }

    fn reward(rule: Rule) -> Reward {
        Reward { weight: 0.0, rule: Some(rule) }
    }

    fn pattern(pattern: &str) -> Reward {
        reward(Rule::RegularExpression(RegularExpression { pattern: pattern.to_owned() }))
    }

    #[test]
    fn a_reward_is_all_that_must_be_given() {
        let rewards = vec![reward(Rule::Json(Json {})), pattern("^<think>.*</think>")];
        let spec = GroupRelativePolicyOptimization { rewards, ..GroupRelativePolicyOptimization::default() };
        assert_eq!(fields(&spec, 513), [""; 0]);
        assert_eq!(fields(&spec, 512), ["max_completion_length"]);
        assert_eq!(fields(&GroupRelativePolicyOptimization::default(), 1024), ["rewards"]);
    }

    #[test]
    fn every_wrong_number_and_every_pattern_that_is_none_is_told_by_its_path() {
        let spec = GroupRelativePolicyOptimization {
            num_generations: 1,
            max_completion_length: -1,
            temperature: -1.0,
            top_p: 1.5,
            beta: f64::NAN,
            epsilon: 1.0,
            num_iterations: -2,
            loss: 9,
            scale_rewards: 9,
            rewards: vec![
                Reward { weight: f64::INFINITY, rule: None },
                pattern("(a|b"),
                pattern(""),
                pattern("a(?=b)"),
            ],
        };
        let expected = [
            "num_generations",
            "max_completion_length",
            "temperature",
            "top_p",
            "beta",
            "epsilon",
            "num_iterations",
            "loss",
            "scale_rewards",
            "rewards[0].weight",
            "rewards[0].rule",
            "rewards[1].regular_expression.pattern",
            "rewards[2].regular_expression.pattern",
            "rewards[3].regular_expression.pattern",
        ];
        assert_eq!(fields(&spec, 64), expected);
    }
}
