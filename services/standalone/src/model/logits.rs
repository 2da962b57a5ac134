//! `tidemill model logits`.

use std::path::PathBuf;

use clap::Args;
use tch::{Reduction, Tensor};
use tidemill_models::{Config, IGNORED, Model, write_tensors};

use super::{Failure, ids::Ids, rows::Rows, source::Source};

pub(super) const HELP: &str = "\
ids.json is a list of rows of token ids, or an object:
  input_ids          [[1, 2, 3], ...]
  attention_mask     1 for tokens, then 0 for padding at a row's end
  labels             what each place should say, for the loss; -100 does not count. Those of a decoder
                     are its input_ids: they are moved by one inside
  decoder_input_ids  what an encoder-decoder writes; by default its labels moved by one

The output holds as safetensors:
  logits             [rows, tokens, vocabulary]
  hidden, embedding  of an encoder: its states, and for each row their mean, of length 1
  loss               with labels: the mean over those that count
  grad.<tensor>      with --gradients: for every tensor of the model, as it is on disk

Example:
  echo '[[1, 2, 3]]' > ids.json
  tidemill model logits ./my-model --ids ids.json --output logits.safetensors";

/// `logits`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A Hugging Face directory or a GGUF file.
    model: PathBuf,
    /// What goes in.
    #[arg(long, value_name = "FILE")]
    ids: PathBuf,
    /// Where the results go.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Also the gradients of the loss; needs labels.
    #[arg(long)]
    gradients: bool,
}

pub(super) fn execute(arguments: &Arguments) -> Result<(), Failure> {
    let model = Source::open(&arguments.model)?.model()?;
    let ids = Ids::read(&arguments.ids, model.config().vocabulary_size())?;
    if arguments.gradients && ids.labels.is_none() {
        return Err(Failure::content(&arguments.ids, "--gradients needs labels"));
    }
    let tensors = compute(&model, &ids, arguments.gradients).map_err(|failure| match failure {
        Failure::Input(text) => Failure::content(&arguments.ids, text),
        failed => failed,
    })?;
    Ok(write_tensors(&arguments.output, &tensors)?)
}

/// Everything that FILE gets.
fn compute(model: &Model, ids: &Ids, gradients: bool) -> Result<Vec<(String, Tensor)>, Failure> {
    let width = ids.input_ids[0].len();
    if ids.input_ids.iter().any(|row| row.len() != width) {
        return Err(Failure::Input(
            "input_ids: rows differ in length: fill them up and give attention_mask".to_owned(),
        ));
    }
    model.set_trainable(gradients)?;
    let _guard = (!gradients).then(tch::no_grad_guard);
    let rows = Rows::new(ids.lengths(), width, false)?;
    let (mut tensors, loss) = match model.config() {
        Config::T5(config) => pair(model, ids, &rows, config.decoder_start_token_id)?,
        _ => single(model, ids, &rows)?,
    };
    if let Some(loss) = loss {
        tensors.push(("loss".to_owned(), loss.shallow_clone()));
        if gradients {
            loss.f_backward()?;
            let gradients = model.disk_gradients()?.into_iter();
            tensors.extend(gradients.map(|(name, gradient)| (format!("grad.{name}"), gradient)));
        }
    }
    Ok(tensors)
}

type Results = (Vec<(String, Tensor)>, Option<Tensor>);

/// A decoder or an encoder.
fn single(model: &Model, ids: &Ids, rows: &Rows) -> Result<Results, Failure> {
    let config = model.config();
    if ids.decoder_input_ids.is_some() {
        return Err(Failure::Input(format!("decoder_input_ids: {} has no encoder and decoder", config.model_type())));
    }
    let laid = rows.laid(&ids.input_ids)?;
    let mut tensors = Vec::new();
    if !config.is_decoder() {
        let hidden = rows.padded(&model.states(&laid, rows.attention())?)?;
        tensors.push(("embedding".to_owned(), rows.embeddings(&hidden)?));
        tensors.push(("hidden".to_owned(), hidden));
    }
    let has_head = !matches!(config, Config::Bert(bert) if !bert.masked_lm);
    if has_head {
        tensors.push(("logits".to_owned(), rows.padded(&model.forward(&laid, rows.attention())?)?));
    }
    let Some(labels) = &ids.labels else { return Ok((tensors, None)) };
    let mut targets = labels.clone();
    for (row, target) in targets.iter_mut().enumerate() {
        if target.len() != ids.input_ids[row].len() {
            return Err(Failure::Input(format!("labels: row {row} is not as long as input_ids")));
        }
        if config.is_decoder() {
            target.rotate_left(1);
            target.pop();
            target.push(IGNORED);
        }
        let length = ids.lengths()[row];
        if target[length..].iter().any(|label| *label != IGNORED) {
            return Err(Failure::Input(format!(
                "labels: row {row} has labels in its padding, where only {IGNORED} may stand"
            )));
        }
    }
    let count = counted(&targets)?;
    let sum = model.loss_sum(&laid, &rows.laid(&targets)?, rows.attention(), 0.0)?;
    Ok((tensors, Some(sum.f_div_scalar(count)?)))
}

/// An encoder-decoder, whose text begins with `start`.
fn pair(model: &Model, ids: &Ids, source: &Rows, start: i64) -> Result<Results, Failure> {
    let text = match (&ids.decoder_input_ids, &ids.labels) {
        (Some(text), _) => text.clone(),
        (None, Some(labels)) => labels.iter().map(|row| moved(row, start)).collect(),
        (None, None) => {
            return Err(Failure::Input(
                "decoder_input_ids: missing; an encoder-decoder needs these or labels".to_owned(),
            ));
        }
    };
    if text.len() != ids.input_ids.len() || text.iter().any(|row| row.len() != text[0].len()) {
        return Err(Failure::Input(
            "labels, decoder_input_ids: a row for each of input_ids, all of one length".to_owned(),
        ));
    }
    // The text is laid as its source is.
    let written = Rows::new(vec![text[0].len(); text.len()], text[0].len(), source.packed())?;
    let states = model.encode(&source.laid(&ids.input_ids)?, source.attention())?;
    let logits = model.decode(&written.laid(&text)?, written.attention(), &states, source.attention())?;
    let loss = match &ids.labels {
        Some(labels) => {
            let targets = Tensor::f_from_slice(&labels.concat())?;
            let flat = logits.f_reshape([targets.size()[0], -1])?;
            let sum = flat.f_cross_entropy_loss::<Tensor>(&targets, None, Reduction::Sum, IGNORED, 0.0)?;
            Some(sum.f_div_scalar(counted(labels)?)?)
        }
        None => None,
    };
    Ok((vec![("logits".to_owned(), written.padded(&logits)?)], loss))
}

/// Labels as a decoder reads them while it learns to write them. `start` also stands for what does not count, as padding does.
fn moved(labels: &[i64], start: i64) -> Vec<i64> {
    let before = labels[..labels.len() - 1].iter();
    let before = before.map(|label| if *label == IGNORED { start } else { *label });
    std::iter::once(start).chain(before).collect()
}

fn counted(targets: &[Vec<i64>]) -> Result<f64, Failure> {
    match targets.iter().flatten().filter(|target| **target != IGNORED).count() {
        0 => Err(Failure::Input("labels: none of them counts".to_owned())),
        count => Ok(count as f64),
    }
}
