//! The training loop, one step at a time: the caller decides when to save, report and stop.

mod ending;
mod gradients;
mod rollout;
mod validation;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use tch::Device;
use tidemill_dataset::{Mixture, Tokens};
use tidemill_models::{Config, Model};
use tidemill_text::Masking;
use tidemill_torch::{process, ranks::Buckets};

use super::{
    Error, History, Packed, Point, Result, Rows, Spec, Train, World,
    average::Average,
    drawn::Figures,
    loader::{Loader, Mixed},
    objective::Learner,
    optimizer::Optimizer,
    shards::Shards,
};
use ending::whole;
use gradients::means;
use rollout::Rollouts;

/// What is learned from.
pub struct Data {
    /// Samples in training order.
    pub train: Train,
    /// Held out.
    pub validation: Validation,
}

/// What is measured on meanwhile.
pub enum Validation {
    /// Nothing: the split is empty.
    None,
    /// A stream of tokens.
    Tokens(Tokens),
    /// A stream of which tokens are hidden, always the same.
    Masked(Tokens, Masking),
    /// Rows.
    Rows(Rows),
}

impl Data {
    /// A packed stream for training and one for validation, in the order that the spec's seed gives.
    pub fn packed(train: Tokens, validation: Option<Tokens>, spec: &Spec) -> Result<Self> {
        Self::mixed(vec![(train, 1.0)], validation, spec)
    }

    /// As [`Self::packed`], with several streams for training, each with its weight.
    pub fn mixed(train: Vec<(Tokens, f64)>, validation: Option<Tokens>, spec: &Spec) -> Result<Self> {
        let mixture = Mixture::new(&train.iter().map(|(_, weight)| *weight).collect::<Vec<_>>())?;
        let packed = |(tokens, _)| Packed::new(tokens, spec.sequence_length, spec.seed);
        let train = Mixed { parts: train.into_iter().map(packed).collect::<Result<_>>()?, mixture };
        let validation = validation.filter(|tokens| tokens.len() > 1).map_or(Validation::None, Validation::Tokens);
        Ok(Self { train: Train::Windows(Box::new(train)), validation })
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
#[derive(Clone, Debug)]
pub struct StepReport {
    /// Steps done, this one included.
    pub step: u64,
    /// Mean loss over its supervised tokens (nats), pairs or answers.
    pub loss: f64,
    /// Figures of the method: rewards of preferences, or of answers that were drawn.
    pub figures: BTreeMap<String, f64>,
    /// Mean loss on the validation split, where it was due; where answers are rewarded, their mean reward with the sign changed.
    pub validation_loss: Option<f64>,
    /// Norm of the gradients before clipping.
    pub gradient_norm: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Supervised tokens.
    pub tokens: usize,
    /// Wall time, without validation.
    pub seconds: f64,
    /// Of it, the time to make batches: to draw and judge answers too.
    pub load_seconds: f64,
    /// Of it, the time to clip and update, and to share what was updated.
    pub update_seconds: f64,
    /// Floating-point operations of the model, over all ranks ([`Model::flops_per_token`]).
    pub flops: f64,
}

/// A run between two steps.
pub struct Trainer {
    pub(super) spec: Spec,
    pub(super) run_digest: String,
    pub(super) model: Model,
    /// Where a model lies that was trained elsewhere.
    base: Option<PathBuf>,
    /// The model as it was, for methods that compare with it; absent where the model without its adapter is that.
    reference: Option<Model>,
    teacher: Option<Model>,
    rollouts: Option<Rollouts>,
    pub(super) optimizer: Optimizer,
    pub(super) average: Option<Average>,
    pub(super) step: u64,
    pub(super) history: History,
    loader: Loader,
    validation: Validation,
    buckets: Option<Buckets>,
    /// What is trained, where it is spread over ranks.
    pub(super) shards: Option<Arc<Shards>>,
    /// All models that are spread over ranks.
    spread: Vec<Arc<Shards>>,
    pub(super) world: World,
}

impl Trainer {
    /// A run before its first step. `run_digest` (see [`Spec::digest`]) ties checkpoints to it. What one rank of `world` calls, all call.
    pub fn new(
        spec: Spec,
        run_digest: String,
        data: Data,
        start: Start<'_>,
        device: Device,
        world: World,
    ) -> Result<Self> {
        spec.check()?;
        spec.method.check_data(&data.train)?;
        if world.size() > spec.micro_batches() {
            let problem =
                format!("a step has {} micro-batches: too few for {} ranks", spec.micro_batches(), world.size());
            return Err(Error::Spec { field: "ranks", problem });
        }
        spec.precision.check(device)?;
        // The same bytes again are promised on the CPU. Many operations of GPUs have no such form, or one that is much slower.
        process::set_deterministic(device == Device::Cpu)?;
        let begin = || -> Result<Model> {
            Ok(match start {
                Start::Random => Model::new(spec.config.clone(), spec.seed, device)?,
                Start::From(directory) if spec.quantized_base => tidemill_models::load_quantized(directory, device)?,
                Start::From(directory) => whole(directory, device)?,
            })
        };
        let mut model = begin()?;
        if *model.config() != spec.config {
            let problem = "the base model has another shape than the spec".to_owned();
            return Err(Error::Spec { field: "architecture", problem });
        }
        if let Some(lora) = &spec.lora {
            model.attach_adapter(lora, spec.seed)?;
        }
        model.set_recomputing(spec.activation_checkpointing);
        let optimizer = Optimizer::new(&model, spec.optimizer, spec.muon, world.clone())?;
        let average = match spec.ema_decay > 0.0 {
            true => Some(Average::new(&model, spec.ema_decay, optimizer.owners().to_vec(), world.clone())?),
            false => None,
        };
        let (mut shards, mut spread) = (None, Vec::new());
        let spreads = spec.full_sharding && world.size() > 1;
        if spreads && spec.lora.is_none() {
            shards = Some(Shards::spread(&mut model, optimizer.owners().to_vec(), true, world.clone())?);
            spread.extend(shards.clone());
        } else if spreads {
            spread.push(Shards::spread_constant(&mut model, world.clone())?);
        }
        let needs_copy = spec.method.needs_reference() && spec.lora.is_none();
        let mut reference = if needs_copy { Some(begin()?) } else { None };
        if let Some(reference) = reference.as_mut().filter(|_| spreads) {
            spread.push(Shards::spread_constant(reference, world.clone())?);
        }
        let loader = Loader {
            train: data.train,
            batch_size: spec.batch_size,
            micro_batches: spec.micro_batches(),
            window: spec.sequence_length,
            device,
        };
        model.set_trainable(true)?;
        let buckets = if shards.is_none() { world.buckets(optimizer.parameters())? } else { None };
        Ok(Self {
            spec,
            run_digest,
            model,
            base: match start {
                Start::Random => None,
                Start::From(directory) => Some(directory.to_owned()),
            },
            reference,
            teacher: None,
            rollouts: None,
            optimizer,
            average,
            step: 0,
            history: History::default(),
            loader,
            validation: data.validation,
            buckets,
            shards,
            spread,
            world,
        })
    }

    /// The run with the teacher that its spec asks for.
    ///
    /// # Errors
    /// The teacher has another vocabulary, or the method is not for it.
    pub fn with_teacher(mut self, mut teacher: Model) -> Result<Self> {
        let (own, other) = (self.config().vocabulary_size(), teacher.config().vocabulary_size());
        if own != other {
            let problem =
                format!("the teacher knows {other} tokens, and the model {own}: they must be the same tokens");
            return Err(Error::Spec { field: "distillation.teacher_model_digest", problem });
        }
        let unfit = |problem| Error::Spec { field: "distillation.teacher_model_digest", problem };
        self.spec.method.check_model(teacher.config()).map_err(unfit)?;
        if !self.spread.is_empty() {
            self.spread.push(Shards::spread_constant(&mut teacher, self.world.clone())?);
        }
        self.teacher = Some(teacher);
        Ok(self)
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

    /// Weights inside the model that are not multiplied in the format that was asked for, because of their sizes.
    pub fn left_out_of_precision(&self) -> Vec<&str> {
        self.spec.precision.left_out(&self.model)
    }

    /// The shape of the model.
    pub fn config(&self) -> &Config {
        self.model.config()
    }

    /// One optimiser step, and a validation where one is due.
    pub fn step(&mut self) -> Result<StepReport> {
        held(&self.spread.clone(), || self.stepped())
    }

    fn stepped(&mut self) -> Result<StepReport> {
        let began = Instant::now();
        if self.spec.distillation.is_some() && self.teacher.is_none() {
            let problem = "the run was begun without its teacher".to_owned();
            return Err(Error::Spec { field: "distillation", problem });
        }
        let batches = self.batches()?;
        let load_seconds = began.elapsed().as_secs_f64();
        let read: usize = batches.iter().map(|(_, batch)| batch.read()).sum();
        let own: usize = batches.iter().map(|(_, batch)| self.spec.method.weight(batch)).sum();
        let learned: usize = batches.iter().map(|(_, batch)| batch.supervised).sum();
        let counts = self.world.sum(&[own as f64, learned as f64, read as f64])?;
        let (weight, tokens) = (counts[0], counts[1] as usize);
        if weight == 0.0 || tokens == 0 {
            return Err(Error::NothingSupervised { step: self.step });
        }
        let learning_rate = self.spec.schedule.rate(self.step);
        let iterations = self.spec.method.iterations();
        let (mut loss, mut gradient_norm, mut update_seconds) = (0.0, 0.0, 0.0);
        let mut sums = Figures::new();
        for iteration in 0..iterations {
            loss += self.gradients(&batches, weight, &mut sums)? / iterations as f64;
            let updating = Instant::now();
            let done = self.step * iterations + iteration;
            gradient_norm = self.optimizer.update(done, learning_rate, self.spec.clip_norm, self.shards.as_deref())?;
            if let Some(average) = &mut self.average {
                average.update(&self.model)?;
            }
            update_seconds += updating.elapsed().as_secs_f64();
        }
        self.step += 1;
        let seconds = began.elapsed().as_secs_f64();
        let flops = counts[2] * iterations as f64 * self.model.flops_per_token(self.spec.sequence_length as i64);
        let mut figures = means(sums, "");
        let due = self.step.is_multiple_of(self.spec.validate_every_steps) || self.is_finished();
        // Models that are spread run on all ranks or on none.
        let measures = self.world.rank() == 0 || !self.spread.is_empty();
        let mut validated = None;
        if due && measures {
            if let Some(shards) = &self.shards {
                shards.renew()?;
            }
            validated = self.measure()?;
        }
        let validation_loss = validated.map(|(loss, more)| {
            figures.extend(more);
            loss
        });
        let point = Point {
            step: self.step,
            loss: loss as f32,
            validation_loss: validation_loss.map(|loss| loss as f32),
            learning_rate: learning_rate as f32,
            gradient_norm: gradient_norm as f32,
            figures: figures.iter().map(|(name, value)| (name.clone(), *value as f32)).collect(),
        };
        self.history.add(point, self.spec.steps);
        let step = self.step;
        Ok(StepReport {
            step,
            loss,
            figures,
            validation_loss,
            gradient_norm,
            learning_rate,
            tokens,
            seconds,
            load_seconds,
            update_seconds,
            flops,
        })
    }

    fn learner(&self) -> Learner<'_> {
        Learner {
            model: &self.model,
            reference: self.reference.as_ref(),
            method: self.spec.method,
            teacher: self.teacher.as_ref().zip(self.spec.distillation),
            precision: self.spec.precision,
            z_loss: self.spec.z_loss,
        }
    }
}

/// Runs `body` with all these models ready to run.
fn held<T>(spread: &[Arc<Shards>], body: impl FnOnce() -> Result<T>) -> Result<T> {
    match spread.split_first() {
        Some((shards, others)) => shards.held(|| held(others, body)),
        None => body(),
    }
}
