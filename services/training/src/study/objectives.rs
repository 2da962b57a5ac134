//! The figures by which trials can be compared.

use tidemill_proto::r#type::v1::training_spec::Method;

use crate::learning::rewards_of;

/// The figures that a method measures on the validation split.
pub(crate) fn objectives(method: Option<&Method>) -> Vec<String> {
    let more: &[&str] = match method {
        Some(Method::DirectPreferenceOptimization(_)) => {
            &["rewards_accuracy", "rewards_margin", "rewards_chosen", "rewards_rejected"]
        }
        Some(Method::KahnemanTverskyOptimization(_)) => &["rewards_chosen", "rewards_rejected"],
        Some(Method::GroupRelativePolicyOptimization(_)) => {
            &["reward", "completion_length", "completion_clipped_ratio"]
        }
        _ => &[],
    };
    // Where rewards are the sum of several rules, each has a figure of its own.
    let rewards = rewards_of(method);
    let rules = rewards.iter().map(|reward| reward.rule.figure()).filter(|_| rewards.len() > 1);
    let mut names: Vec<String> = vec!["validation_loss".to_owned()];
    for name in more.iter().copied().chain(rules).map(|name| format!("validation_{name}")) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use tidemill_proto::r#type::v1::group_relative_policy_optimization::{ExactMatch, Json, Reward, reward::Rule};
    use tidemill_proto::r#type::v1::{DirectPreferenceOptimization, GroupRelativePolicyOptimization};

    use super::*;

    #[test]
    fn each_method_has_its_figures() {
        assert_eq!(objectives(None), ["validation_loss"]);
        let pairs = Method::DirectPreferenceOptimization(DirectPreferenceOptimization::default());
        assert!(objectives(Some(&pairs)).contains(&"validation_rewards_accuracy".to_owned()));
        let rewarded = |rules: &[Rule]| {
            let rewards = rules.iter().map(|rule| Reward { weight: 1.0, rule: Some(rule.clone()) }).collect();
            let method = GroupRelativePolicyOptimization { rewards, ..GroupRelativePolicyOptimization::default() };
            objectives(Some(&Method::GroupRelativePolicyOptimization(method)))
        };
        let (exact, json) = (Rule::ExactMatch(ExactMatch {}), Rule::Json(Json {}));
        let common = ["loss", "reward", "completion_length", "completion_clipped_ratio"];
        let named = |names: &[&str]| names.iter().map(|name| format!("validation_{name}")).collect::<Vec<_>>();
        assert_eq!(rewarded(std::slice::from_ref(&json)), named(&common));
        let each = named(&[&common[..], &["reward_json", "reward_exact_match"]].concat());
        assert_eq!(rewarded(&[json.clone(), exact, json]), each);
    }
}
