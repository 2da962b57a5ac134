//! Rewards that can be verified: rules that an answer follows or not, without a model that judges.

use std::sync::LazyLock;

use regex::Regex;
use serde::Serialize;
use serde_json::Value;
use tidemill_text::Tokenizer;

use super::{Error, Judge, Prompt, Result, Verdict};

/// A rule, and what following it is worth.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reward {
    /// What following the rule is worth.
    pub weight: f64,
    /// The rule.
    pub rule: Rule,
}

/// What an answer is rewarded for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// It is the reference, but for white space around both.
    ExactMatch,
    /// Its last decimal number is that of the reference.
    NumericMatch,
    /// It has a match of a pattern.
    RegularExpression {
        /// In the syntax of the crate `regex`.
        pattern: String,
    },
    /// It is one JSON object or array.
    Json,
}

/// A number in decimal notation, perhaps with commas between thousands.
static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?:[0-9]{1,3}(?:,[0-9]{3})+\b|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+").expect("the pattern is valid")
});

impl Rule {
    /// Why answers to a prompt with this reference cannot be judged, if so.
    pub fn problem(&self, reference: Option<&str>) -> Option<String> {
        match (self, reference) {
            (Self::ExactMatch | Self::NumericMatch, None) => {
                let rule = if *self == Self::ExactMatch { "exact_match" } else { "numeric_match" };
                Some(format!("it has no answer, and {rule} compares with one: give its column `answer`"))
            }
            (Self::NumericMatch, Some(text)) if last_number(text).is_none() => {
                Some("its answer has no number, and numeric_match compares numbers".to_owned())
            }
            _ => None,
        }
    }

    /// What figures call its part of a reward.
    pub(crate) fn figure(&self) -> &'static str {
        match self {
            Self::ExactMatch => "reward_exact_match",
            Self::NumericMatch => "reward_numeric_match",
            Self::RegularExpression { .. } => "reward_regular_expression",
            Self::Json => "reward_json",
        }
    }
}

/// Judges the text of answers by rules.
#[derive(Debug)]
pub struct Rewards {
    tokenizer: Tokenizer,
    rules: Vec<(Reward, Option<Regex>)>,
}

impl Rewards {
    /// A judge of texts in the tokens of a model.
    ///
    /// # Errors
    /// A pattern is none.
    pub fn new(rewards: &[Reward], tokenizer: Tokenizer) -> Result<Self> {
        let compiled = |reward: &Reward| -> Result<_> {
            let Rule::RegularExpression { pattern } = &reward.rule else { return Ok((reward.clone(), None)) };
            let pattern = Regex::new(pattern).map_err(|error| Error::Spec {
                field: "group_relative_policy_optimization.rewards",
                problem: error.to_string(),
            })?;
            Ok((reward.clone(), Some(pattern)))
        };
        Ok(Self { tokenizer, rules: rewards.iter().map(compiled).collect::<Result<_>>()? })
    }
}

impl Judge for Rewards {
    fn judge(&self, prompt: &Prompt, answer: &[u32]) -> Result<Verdict> {
        // A model may have more ids than its tokenizer: those are no text.
        let known = self.tokenizer.vocabulary_size() as u32;
        let ids: Vec<u32> = answer.iter().copied().filter(|id| *id < known).collect();
        let text = self.tokenizer.decode(&ids)?;
        let mut verdict = Verdict::default();
        for (reward, pattern) in &self.rules {
            let follows = follows(&reward.rule, pattern.as_ref(), &text, prompt.answer.as_deref());
            verdict.reward += reward.weight * f64::from(follows);
            if self.rules.len() > 1 {
                verdict.parts.push((reward.rule.figure(), f64::from(follows)));
            }
        }
        Ok(verdict)
    }
}

fn follows(rule: &Rule, pattern: Option<&Regex>, text: &str, reference: Option<&str>) -> bool {
    match rule {
        Rule::ExactMatch => reference.is_some_and(|reference| text.trim() == reference.trim()),
        Rule::NumericMatch => {
            let wanted = reference.and_then(last_number);
            wanted.is_some() && last_number(text) == wanted
        }
        Rule::RegularExpression { .. } => pattern.is_some_and(|pattern| pattern.is_match(text)),
        Rule::Json => serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object() || value.is_array()),
    }
}

/// The last number of a text in one form, so that equal numbers are equal texts however large: `-1234.5`.
fn last_number(text: &str) -> Option<String> {
    let found = NUMBER.find_iter(text).last()?;
    let digits = found.as_str().replace(',', "");
    let (whole, rest) = digits.split_once('.').unwrap_or((&digits, ""));
    let (whole, rest) = (whole.trim_start_matches('0'), rest.trim_end_matches('0'));
    let mut before = text[..found.start()].chars().rev();
    // What stands between two operands is no sign.
    let signed = before.next().is_some_and(|c| matches!(c, '-' | '\u{2212}'))
        && !before.next().is_some_and(|c| c.is_alphanumeric() || c == ')');
    let sign = if signed && !(whole.is_empty() && rest.is_empty()) { "-" } else { "" };
    let whole = if whole.is_empty() { "0" } else { whole };
    Some(if rest.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{rest}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(rule: Rule, text: &str, reference: Option<&str>) -> bool {
        let pattern = match &rule {
            Rule::RegularExpression { pattern } => Some(Regex::new(pattern).unwrap()),
            _ => None,
        };
        follows(&rule, pattern.as_ref(), text, reference)
    }

    #[test]
    fn the_last_number_of_a_text_has_one_form() {
        let cases = [
            ("so 12 and then 34.", Some("34")),
            ("= 1,234.50", Some("1234.5")),
            ("#### 007", Some("7")),
            ("x = -3", Some("-3")),
            ("\u{2212}0.250 m", Some("-0.25")),
            ("5-3", Some("3")),
            ("(1)-3", Some("3")),
            ("-0.0", Some("0")),
            ("about .5", Some("0.5")),
            ("1,2,3", Some("3")),
            ("1,2345", Some("2345")),
            ("90071992547409931 is odd", Some("90071992547409931")),
            ("none", None),
        ];
        for (text, expected) in cases {
            assert_eq!(last_number(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn rules_hold_for_what_they_say_and_for_nothing_else() {
        let pattern = |pattern: &str| Rule::RegularExpression { pattern: pattern.to_owned() };
        let cases = [
            (Rule::ExactMatch, " Paris\n", Some("Paris "), true),
            (Rule::ExactMatch, "Paris.", Some("Paris"), false),
            (Rule::ExactMatch, "", None, false),
            (Rule::NumericMatch, "The sum is 1,000.0", Some("#### 1000"), true),
            (Rule::NumericMatch, "1000, or 1001", Some("1000"), false),
            (Rule::NumericMatch, "none", Some("none"), false),
            (pattern("(?s)^<think>.*</think>"), "<think>a\nb</think>4", None, true),
            (pattern("^4$"), "4\n5", None, false),
            (Rule::Json, " {\"a\": [1, 2]}\n", None, true),
            (Rule::Json, "[]", None, true),
            (Rule::Json, "1", None, false),
            (Rule::Json, "{\"a\": 1} and more", None, false),
        ];
        for (rule, text, reference, expected) in cases {
            assert_eq!(judged(rule.clone(), text, reference), expected, "{rule:?} of {text:?}");
        }
    }

    #[test]
    fn a_prompt_without_what_a_rule_compares_with_is_a_problem() {
        assert!(Rule::ExactMatch.problem(None).unwrap().contains("exact_match"));
        assert!(Rule::NumericMatch.problem(Some("many")).unwrap().contains("no number"));
        assert_eq!(Rule::NumericMatch.problem(Some("42")), None);
        assert_eq!(Rule::Json.problem(None), None);
    }

    #[test]
    fn a_reward_is_the_weighted_sum_of_its_rules_over_text_without_special_tokens() {
        let text = "{\"a\": 42} 42 the people\n";
        let tokenizer = Tokenizer::train_bpe([text], 300, &tidemill_text::SPECIAL_TOKENS).unwrap();
        let rule = |weight, rule| Reward { weight, rule };
        let rewards = [rule(2.0, Rule::NumericMatch), rule(-0.5, Rule::Json), rule(1.0, Rule::ExactMatch)];
        let judge = Rewards::new(&rewards, tokenizer.clone()).unwrap();
        let prompt = Prompt { ids: [0].into(), answer: Some("42".into()) };
        let mut ids = tokenizer.encode("{\"a\": 42}").unwrap();
        // A special token, and an id that the tokenizer does not have.
        ids.extend([tokenizer.end_of_text().unwrap(), 100_000]);
        let verdict = judge.judge(&prompt, &ids).unwrap();
        let parts = vec![("reward_numeric_match", 1.0), ("reward_json", 1.0), ("reward_exact_match", 0.0)];
        assert_eq!(verdict, Verdict { reward: 1.5, parts });
        let broken = [rule(1.0, Rule::RegularExpression { pattern: "(".to_owned() })];
        assert!(Rewards::new(&broken, tokenizer).unwrap_err().to_string().contains("rewards"));
    }
}
