//! The training loop, one step at a time: the caller decides when to save, report and stop.

use std::{path::Path, time::Instant};

use tch::{Device, Kind, no_grad};
use tidemill_dataset::Tokens;
use tidemill_models::{Config, Model};
use tidemill_torch::{autocast, process};

use super::{
    Error, History, Packed, Point, Precision, Result, Samples, Spec,
    loader::{Loader, MicroBatch},
    optimizer::Optimizer,
};

/// Tokens that a measurement during training looks at: enough to steer by, little enough not to be felt.
const VALIDATION_TOKENS: usize = 1 << 15;
/// Tokens of one validation batch.
const VALIDATION_BATCH_TOKENS: usize = 1 << 12;

/// What is learned from.
pub struct Data {
    /// Samples in training order.
    pub train: Box<dyn Samples>,
    /// Held out; absent where the split is empty.
    pub validation: Option<Tokens>,
}

impl Data {
    /// A packed stream for training and one for validation, in the order that the spec's seed gives.
    pub fn packed(train: Tokens, validation: Option<Tokens>, spec: &Spec) -> Result<Self> {
        let train = Packed::new(train, spec.sequence_length, spec.seed)?;
        Ok(Self { train: Box::new(train), validation: validation.filter(|tokens| tokens.len() > 1) })
    }
}

/// Where the weights come from.
#[derive(Debug)]
pub enum Start<'a> {
    /// Drawn, keyed by the spec's seed.
    Random,
    /// Those of a Hugging Face directory; its `config.json` must be the spec's.
    From(&'a Path),
}

/// What one step did.
#[derive(Clone, Copy, Debug)]
pub struct StepReport {
    /// Steps done, this one included.
    pub step: u64,
    /// Mean loss over its supervised tokens, nats.
    pub loss: f64,
    /// Mean loss on the validation split, where it was due.
    pub validation_loss: Option<f64>,
    /// Norm of the gradients before clipping.
    pub gradient_norm: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Supervised tokens.
    pub tokens: usize,
    /// Wall time, without validation.
    pub seconds: f64,
}

/// A run between two steps.
pub struct Trainer {
    pub(super) spec: Spec,
    pub(super) run_digest: String,
    pub(super) model: Model,
    pub(super) optimizer: Optimizer,
    pub(super) step: u64,
    pub(super) history: History,
    loader: Loader,
    validation: Option<Tokens>,
}

impl Trainer {
    /// A run before its first step. `run_digest` (see [`Spec::digest`]) ties checkpoints to it.
    pub fn new(spec: Spec, run_digest: String, data: Data, start: Start<'_>, device: Device) -> Result<Self> {
        spec.check()?;
        process::set_deterministic(true)?;
        let model = match start {
            Start::Random => Model::new(spec.config.clone(), spec.seed, device)?,
            Start::From(directory) => tidemill_models::load(directory, device)?,
        };
        if *model.config() != spec.config {
            let problem = "the base model has another shape than the spec".to_owned();
            return Err(Error::Spec { field: "architecture", problem });
        }
        let optimizer = Optimizer::new(&model, spec.optimizer)?;
        let loader = Loader {
            samples: data.train,
            batch_size: spec.batch_size,
            accumulation: spec.accumulation,
            window: spec.sequence_length,
            device,
        };
        model.set_trainable(true)?;
        let (step, history) = (0, History::default());
        Ok(Self { spec, run_digest, model, optimizer, step, history, loader, validation: data.validation })
    }

    /// Steps done.
    pub fn steps_done(&self) -> u64 {
        self.step
    }

    /// Whether all steps are done.
    pub fn is_finished(&self) -> bool {
        self.step >= self.spec.steps
    }

    /// The curve so far.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The model as it stands.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The shape of the model.
    pub fn config(&self) -> &Config {
        self.model.config()
    }

    /// One optimiser step, and a validation where one is due.
    pub fn step(&mut self) -> Result<StepReport> {
        let began = Instant::now();
        let (batches, tokens) = self.loader.step(self.step)?;
        if tokens == 0 {
            return Err(Error::NothingSupervised { step: self.step });
        }
        let mut loss = 0.0;
        for batch in &batches {
            // Normalised by the tokens of all micro-batches: how a step is cut does not change what it learns.
            let part = self.loss_sum(batch)?.f_div_scalar(tokens as f64)?;
            part.f_backward()?;
            loss += part.f_double_value(&[])?;
        }
        if !loss.is_finite() {
            return Err(Error::NotFinite { what: "the loss", step: self.step, value: loss });
        }
        let learning_rate = self.spec.schedule.rate(self.step);
        let gradient_norm = self.optimizer.update(self.step, learning_rate, self.spec.clip_norm)?;
        self.step += 1;
        let seconds = began.elapsed().as_secs_f64();
        let due = self.step.is_multiple_of(self.spec.validate_every_steps) || self.is_finished();
        let validation_loss = if due { self.validate(VALIDATION_TOKENS)? } else { None };
        let point = Point {
            step: self.step,
            loss: loss as f32,
            validation_loss: validation_loss.map(|loss| loss as f32),
            learning_rate: learning_rate as f32,
            gradient_norm: gradient_norm as f32,
        };
        self.history.add(point, self.spec.steps);
        Ok(StepReport { step: self.step, loss, validation_loss, gradient_norm, learning_rate, tokens, seconds })
    }

    /// Mean loss (nats a token) over the first `most_tokens` of the validation split, in whole windows; none without a split.
    pub fn validate(&self, most_tokens: usize) -> Result<Option<f64>> {
        let Some(tokens) = &self.validation else { return Ok(None) };
        let end = tokens.len().min(most_tokens.max(self.loader.window).saturating_add(1));
        let rows = (VALIDATION_BATCH_TOKENS / self.loader.window).max(1);
        let (mut sum, mut count, mut start) = (0.0, 0, 0);
        while start + 1 < end {
            let rows = rows.min((end - 1 - start).div_ceil(self.loader.window));
            let batch = self.loader.windows(tokens, start, rows)?;
            sum += no_grad(|| self.loss_sum(&batch))?.f_double_value(&[])?;
            count += (tokens.len() - 1 - start).min(rows * self.loader.window);
            start += rows * self.loader.window;
        }
        Ok(Some(sum / count as f64))
    }

    /// Writes the model as a Hugging Face directory (`config.json`, `model.safetensors`) into an existing directory.
    pub fn export(&self, directory: &Path) -> Result<()> {
        Ok(tidemill_models::save(&self.model, directory)?)
    }

    /// Replaces the model and starts the optimiser's moments anew.
    pub(super) fn install(&mut self, model: Model) -> Result<()> {
        model.set_trainable(true)?;
        self.optimizer = Optimizer::new(&model, self.spec.optimizer)?;
        self.model = model;
        Ok(())
    }

    fn loss_sum(&self, batch: &MicroBatch) -> Result<tch::Tensor> {
        let loss = || self.model.loss_sum(&batch.inputs_bt, &batch.targets_bt);
        let sum = match self.spec.precision {
            Precision::Float32 => loss()?,
            Precision::Bfloat16 => autocast::bfloat16(self.model.device(), loss)??,
        };
        Ok(sum.f_to_kind(Kind::Float)?)
    }
}
