//! What a finished run leaves: the model as a Hugging Face directory, its curve, and references to them, the result's last.

use std::collections::BTreeMap;
use std::path::Path;

use prost::Message;
use prost_reflect::DynamicMessage;
use serde_json::json;
use tidemill_artifacts::{Artifacts, Digest};
use tidemill_models::Config;
use tidemill_platform::models::BASE_MODEL_DIGEST;
use tidemill_platform::worker;
use tidemill_proto::r#type::v1::TrainingSpec;
use tidemill_text::{ChatTemplate, Tokenizer, tokenizer_config};

use super::inputs::Inputs;
use crate::error::{Error, Result};
use crate::history::{MetricPoint, thin};
use crate::learning::{Point, Trainer, loss_plot};

/// The reference of the loss plot.
pub(crate) fn plot_reference(uid: &str) -> String {
    format!("plots/{uid}")
}

/// The reference of the curve as JSON.
pub(crate) fn history_reference(uid: &str) -> String {
    format!("histories/{uid}")
}

/// Stores everything. Nothing in it depends on the job's name, on times, or on how often the run was interrupted.
pub(crate) async fn publish(
    artifacts: &Artifacts,
    uid: &str,
    spec: &TrainingSpec,
    inputs: &Inputs,
    trainer: Trainer,
    scratch: &Path,
) -> Result<Digest> {
    let points = trainer.history().points();
    let (plot, _) = artifacts.put(loss_plot(points).into_bytes()).await?;
    artifacts.claim(&plot_reference(uid), &plot).await?;
    let curve = thin(points.iter().map(metric_point).collect());
    let (history, _) = artifacts.put(serde_json::to_vec(&curve).expect("plain data is always JSON")).await?;
    artifacts.claim(&history_reference(uid), &history).await?;

    let folder = scratch.join("model");
    std::fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
    let merge = spec.lora.as_ref().is_some_and(|lora| lora.merge);
    let is_adapter = spec.lora.is_some() && !merge;
    let base = inputs.base.as_ref().map(|(digest, _)| digest.to_string()).unwrap_or_default();
    let mut annotations = BTreeMap::from([
        ("parameter_count".to_owned(), trainer.model().parameter_count().to_string()),
        ("spec".to_owned(), spec_json(spec)),
        ("step".to_owned(), trainer.steps_done().to_string()),
        ("tokenizer_digest".to_owned(), inputs.tokenizer_digest.clone()),
    ]);
    if is_adapter {
        annotations.insert(BASE_MODEL_DIGEST.to_owned(), base.clone());
    }
    let config = trainer.config().clone();
    trainer.export(&folder, &base, merge)?;
    write_text_files(&folder, inputs, &config)?;
    let digest = artifacts.take_directory(&folder, "model", inputs.parents(), annotations).await?;
    artifacts.claim(&worker::result_reference(uid), &digest).await?;
    Ok(digest)
}

fn metric_point(point: &Point) -> MetricPoint {
    let mut metrics = BTreeMap::from([
        ("loss".to_owned(), f64::from(point.loss)),
        ("learning_rate".to_owned(), f64::from(point.learning_rate)),
        ("gradient_norm".to_owned(), f64::from(point.gradient_norm)),
    ]);
    metrics.extend(point.figures.iter().map(|(name, value)| (name.clone(), f64::from(*value))));
    metrics.extend(point.validation_loss.map(|loss| ("validation_loss".to_owned(), f64::from(loss))));
    MetricPoint { step: point.step as i64, metrics }
}

/// The files beside config and weights. Those of the base model, where it has them; it may have been tuned to its own template. A model
/// that is no decoder has none.
fn write_text_files(folder: &Path, inputs: &Inputs, config: &Config) -> Result<()> {
    let template = config.is_decoder().then(ChatTemplate::plain);
    let context = config.context_length() as usize;
    let generation = match config.is_decoder() {
        true => Some(generation_config(&inputs.tokenizer)),
        false => crate::import::generation_config(config),
    };
    let files = [
        ("tokenizer_config.json", Some(tokenizer_config(&inputs.tokenizer, template.as_ref(), context))),
        ("chat_template.jinja", template.as_ref().map(|template| template.source().as_bytes().to_vec())),
        ("generation_config.json", generation),
    ];
    for (name, ours) in files {
        let bytes = match &inputs.base {
            Some((_, base)) if base.join(name).exists() => {
                Some(std::fs::read(base.join(name)).map_err(Error::file(&base.join(name)))?)
            }
            _ => ours,
        };
        let Some(bytes) = bytes else { continue };
        let path = folder.join(name);
        std::fs::write(&path, bytes).map_err(Error::file(&path))?;
    }
    let path = folder.join("tokenizer.json");
    std::fs::write(&path, inputs.tokenizer.json()).map_err(Error::file(&path))
}

fn generation_config(tokenizer: &Tokenizer) -> Vec<u8> {
    let end = tokenizer.end_of_text();
    let config = json!({"do_sample": true, "eos_token_id": end, "pad_token_id": end});
    format!("{config:#}\n").into_bytes()
}

/// The spec as canonical protobuf JSON, without what does not reach the weights: how often is saved and measured, and what memory is saved
/// without a number that changes.
fn spec_json(spec: &TrainingSpec) -> String {
    let bare = TrainingSpec {
        checkpoint_every_steps: 0,
        validate_every_steps: 0,
        keep_checkpoints: 0,
        activation_checkpointing: false,
        ..spec.clone()
    };
    let descriptor = tidemill_proto::pool().get_message_by_name("tidemill.type.v1.TrainingSpec");
    let message = descriptor.and_then(|descriptor| DynamicMessage::decode(descriptor, &bare.encode_to_vec()[..]).ok());
    let message = message.expect("the pool describes every message that was generated from it");
    serde_json::to_string(&message).expect("a message is always JSON")
}

#[cfg(test)]
mod tests {
    use tidemill_proto::r#type::v1::training_spec::Sharding;

    use super::*;

    #[test]
    fn a_spec_is_the_same_however_often_it_is_saved_and_measured() {
        let spec = TrainingSpec { steps: 7, seed: 3, ..TrainingSpec::default() };
        let more = TrainingSpec { activation_checkpointing: true, ..spec.clone() };
        let other = TrainingSpec { checkpoint_every_steps: 2, keep_checkpoints: 9, ..more };
        assert_eq!(spec_json(&spec), spec_json(&other));
        assert_eq!(spec_json(&spec), r#"{"steps":"7","seed":"3"}"#);
        // Sums over ranks are rounded otherwise: the weights are others, by little.
        let spread = TrainingSpec { sharding: Sharding::Full.into(), ..spec.clone() };
        assert_ne!(spec_json(&spec), spec_json(&spread));
    }
}
