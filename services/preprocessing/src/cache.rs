//! The identity of a piece of work, by which an equal job finds the earlier result.

use prost::Message;
use sha2::{Digest as _, Sha256};
use tidemill_proto::preprocessing::v1::{PreprocessingJob, preprocessing_job::Input};
use tidemill_proto::r#type::v1::Recipe;

/// Changes whenever equal inputs and recipe would give other bytes than before.
const REVISION: &[u8] = b"tidemill-preprocessing-1";

/// The reference under which a job's result stands.
pub(crate) fn reference(job: &PreprocessingJob) -> String {
    let inputs = job.inputs.iter().map(|input| Input { digest: input.digest.clone(), repeat: input.repeat.max(1) });
    // Neither message holds a map, so the encoding is the same every time.
    let work = PreprocessingJob { inputs: inputs.collect(), recipe: job.recipe.clone(), ..Default::default() };
    let mut hasher = Sha256::new();
    hasher.update(REVISION);
    hasher.update(work.encode_to_vec());
    format!("prepared/{}", hex::encode(hasher.finalize()))
}

/// A recipe as JSON, for people who read the manifest.
pub(crate) fn json(recipe: &Recipe) -> String {
    let message = tidemill_proto::pool().get_message_by_name("tidemill.type.v1.Recipe");
    let decoded = message
        .and_then(|message| prost_reflect::DynamicMessage::decode(message, recipe.encode_to_vec().as_slice()).ok());
    let decoded = decoded.expect("the recipe's own descriptor decodes it");
    serde_json::to_string(&decoded).expect("a decoded message has a JSON form")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_proto::r#type::v1::Split;

    #[test]
    fn only_inputs_and_recipe_make_the_identity() {
        let input = |repeat| Input { digest: "sha256:00".into(), repeat };
        let job = |name: &str, inputs: Vec<Input>, ratio| PreprocessingJob {
            name: name.into(),
            labels: [("a".to_owned(), name.to_owned())].into(),
            inputs,
            recipe: Some(Recipe {
                split: Some(Split { test_ratio: ratio, ..Default::default() }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let one = reference(&job("a", vec![input(0)], 0.1));
        assert_eq!(one, reference(&job("b", vec![input(1)], 0.1)), "no repeat is one");
        assert_ne!(one, reference(&job("a", vec![input(2)], 0.1)));
        assert_ne!(one, reference(&job("a", vec![input(1)], 0.2)));
        assert_ne!(one, reference(&job("a", vec![input(1), input(1)], 0.1)));
        assert_eq!(json(&job("a", vec![], 0.1).recipe.unwrap()), r#"{"split":{"testRatio":0.1}}"#);
    }
}
