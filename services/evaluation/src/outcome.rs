//! The result of an evaluation as it is stored: canonical JSON, so that the same figures have the same digest.

use std::collections::BTreeMap;

use prost::Message;
use serde::{Deserialize, Serialize};
use tidemill_artifacts::Digest;
use tidemill_proto::r#type::v1::SuiteSpec;

/// What one evaluation found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// The prepared dataset measured on.
    pub(crate) dataset_digest: String,
    /// Bytes of text measured.
    pub(crate) measured_bytes: u64,
    /// Figures by name.
    pub(crate) metrics: BTreeMap<String, f64>,
    /// The model measured.
    pub(crate) model_digest: String,
    /// Continued prompts.
    pub(crate) samples: Vec<Sample>,
    /// The suite measured by.
    pub(crate) suite_digest: String,
}

/// A prompt and what the model made of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) prompt: String,
    pub(crate) completion: String,
}

/// A figure to ten digits: no more are meant, and JSON gives exactly these back.
pub(crate) fn rounded(figure: f64) -> f64 {
    format!("{figure:.9e}").parse().unwrap_or(figure)
}

/// A suite with its defaults filled in: what means the same has the same digest.
pub(crate) fn normal(suite: &SuiteSpec) -> SuiteSpec {
    let mut suite = suite.clone();
    if suite.split.is_empty() {
        "test".clone_into(&mut suite.split);
    }
    suite.baselines.sort_unstable();
    suite.baselines.dedup();
    suite
}

/// The digest of a suite.
pub(crate) fn suite_digest(suite: &SuiteSpec) -> Digest {
    Digest::of(normal(suite).encode_to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rounded_figure_survives_json() {
        for figure in [1.0 / 3.0, 0.0, 1_234.567_890_123_456, 7e-9 / 3.0, 2f64.sqrt() * 1e20] {
            let figure = rounded(figure);
            let text = serde_json::to_string(&figure).unwrap();
            assert_eq!(serde_json::from_str::<f64>(&text).unwrap().to_bits(), figure.to_bits());
        }
    }

    #[test]
    fn suites_that_mean_the_same_have_the_same_digest() {
        let given = SuiteSpec { split: "test".to_owned(), baselines: vec![1, 2], ..SuiteSpec::default() };
        let same = SuiteSpec { baselines: vec![2, 1, 2], ..SuiteSpec::default() };
        assert_eq!(suite_digest(&given), suite_digest(&same));
        let other = SuiteSpec { max_documents: 3, ..same };
        assert_ne!(suite_digest(&given), suite_digest(&other));
    }
}
