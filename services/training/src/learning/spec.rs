//! What to learn and how, with every default filled in.

mod grouped;

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tidemill_models::{Config, LoraConfig};
use tidemill_proto::r#type::v1::direct_preference_optimization::Loss;
use tidemill_proto::r#type::v1::schedule::Decay as DecaySpec;
use tidemill_proto::r#type::v1::{Lora, Schedule as ScheduleSpec, TrainingSpec, adam_w, lora, training_spec};
use tidemill_text::Masking;

use super::{Decay, Distillation, Error, Method, Order, Precision, PreferenceLoss, Result, Reward, Schedule};

pub use grouped::rewards_of;

/// A training run. Together with its data and base model it determines the weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The model's shape.
    pub config: Config,
    /// Optimiser steps in all.
    pub steps: u64,
    /// Sequences or rows in a micro-batch.
    pub batch_size: usize,
    /// Micro-batches of one rank to a step.
    pub accumulation: usize,
    /// Processes that share a step's micro-batches.
    pub ranks: usize,
    /// Tokens in a sequence, at most in a row.
    pub sequence_length: usize,
    /// How rows or tokens teach.
    pub method: Method,
    /// What answers are rewarded for, for methods that draw them.
    pub rewards: Vec<Reward>,
    /// The teacher that is followed, for methods that learn tokens.
    pub distillation: Option<Distillation>,
    /// The order of rows.
    pub order: Order,
    /// The adapter that is trained; absent trains all weights.
    pub lora: Option<LoraConfig>,
    /// Whether the base model's matrices are kept in NF4 beside the adapter.
    pub quantized_base: bool,
    /// AdamW without its learning rate.
    pub optimizer: Optimizer,
    /// Momentum of Muon for matrices inside layers; absent leaves them to AdamW.
    pub muon: Option<f64>,
    /// The learning rate.
    pub schedule: Schedule,
    /// Largest global gradient norm.
    pub clip_norm: f64,
    /// Weight of the squared log-sum-exps in the loss.
    pub z_loss: f64,
    /// Decay of the average of the weights that becomes the model; 0 keeps none.
    pub ema_decay: f64,
    /// Key of every random draw.
    pub seed: u64,
    /// Number format of matrix products.
    pub precision: Precision,
    /// Whether blocks keep their inputs alone and run again for their gradients; no number depends on it.
    pub activation_checkpointing: bool,
    /// Whether weights and gradients are spread over ranks too; numbers differ by rounding alone.
    pub full_sharding: bool,
    /// Steps between measurements on the validation split.
    pub validate_every_steps: u64,
}

/// Constants of AdamW; decay reaches matrices only.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Optimizer {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay of matrices.
    pub weight_decay: f64,
    /// Whether large moments are kept in 8 bits.
    pub int8: bool,
}

impl Spec {
    /// The spec of a job for a model of the given shape, defaults filled in.
    pub fn new(spec: &TrainingSpec, config: Config) -> Result<Self> {
        let optimizer = spec.optimizer.unwrap_or_default();
        let steps = positive("steps", spec.steps)?;
        let result = Self {
            steps,
            batch_size: positive("batch_size", i64::from(spec.batch_size))? as usize,
            accumulation: spec.accumulation.max(1) as usize,
            ranks: spec.ranks.max(1) as usize,
            sequence_length: positive("sequence_length", i64::from(spec.sequence_length))? as usize,
            optimizer: Optimizer {
                beta1: or(optimizer.beta1, 0.9),
                beta2: or(optimizer.beta2, 0.95),
                epsilon: or(optimizer.epsilon, 1e-8),
                weight_decay: optimizer.weight_decay.unwrap_or(0.1),
                int8: optimizer.state() == adam_w::State::Int8,
            },
            muon: spec.muon.as_ref().map(|muon| or(muon.momentum, 0.95)),
            schedule: schedule_of(&spec.schedule.unwrap_or_default(), optimizer.learning_rate, steps),
            method: method_of(spec.method.as_ref()),
            rewards: rewards_of(spec.method.as_ref()),
            distillation: spec.distillation.as_ref().map(|asked| Distillation {
                temperature: or(asked.temperature, 1.0),
                weight: asked.weight.unwrap_or(1.0),
            }),
            order: match spec.order() {
                training_spec::Order::Unspecified | training_spec::Order::Shuffled => Order::Shuffled,
                training_spec::Order::Sequential => Order::Sequential,
            },
            lora: spec.lora.as_ref().map(lora_of),
            quantized_base: spec.lora.as_ref().is_some_and(|lora| lora.quantization() == lora::Quantization::Nf4),
            z_loss: spec.z_loss,
            ema_decay: spec.ema_decay,
            clip_norm: or(spec.clip_norm, 1.0),
            seed: spec.seed,
            precision: match spec.precision() {
                training_spec::Precision::Unspecified | training_spec::Precision::Float32 => Precision::Float32,
                training_spec::Precision::Bfloat16 => Precision::Bfloat16,
                training_spec::Precision::Fp8 => Precision::Fp8,
            },
            activation_checkpointing: spec.activation_checkpointing,
            full_sharding: spec.sharding() == training_spec::Sharding::Full,
            validate_every_steps: match spec.validate_every_steps {
                0 => (steps / 10).max(1),
                every => positive("validate_every_steps", every)?,
            },
            config,
        };
        result.check()?;
        Ok(result)
    }

    /// Micro-batches to a step, over all ranks: with fewer ranks than asked, each has more of them.
    pub fn micro_batches(&self) -> usize {
        self.accumulation * self.ranks
    }

    /// Refuses what cannot be run.
    pub(super) fn check(&self) -> Result<()> {
        let spec = |field, problem: String| Err(Error::Spec { field, problem });
        if let Some(problem) = self.config.problems().into_iter().next() {
            return spec("architecture", problem);
        }
        if let Err(problem) = self.method.check_model(&self.config) {
            return spec("method", problem);
        }
        let context = self.config.context_length();
        if self.sequence_length as i64 > context {
            let length = self.sequence_length;
            return spec("sequence_length", format!("{length} is longer than the architecture's context of {context}"));
        }
        for (field, value) in
            [("learning_rate", self.schedule.peak), ("clip_norm", self.clip_norm), ("epsilon", self.optimizer.epsilon)]
        {
            if !(value.is_finite() && value > 0.0) {
                return spec(field, format!("{value} is not a positive number"));
            }
        }
        let shares = [
            ("beta1", self.optimizer.beta1),
            ("beta2", self.optimizer.beta2),
            ("muon.momentum", self.muon.unwrap_or_default()),
            ("ema_decay", self.ema_decay),
            ("lora.dropout", self.lora.as_ref().map_or(0.0, |lora| lora.dropout)),
        ];
        for (field, value) in shares {
            if !(0.0..1.0).contains(&value) {
                return spec(field, format!("{value} is not in [0, 1)"));
            }
        }
        if !(self.z_loss.is_finite() && self.z_loss >= 0.0) {
            return spec("z_loss", format!("{} is neither 0 nor a positive number", self.z_loss));
        }
        if let Method::MaskedLanguage { mask_probability } = self.method
            && !(mask_probability > 0.0 && mask_probability < 1.0)
        {
            let field = "masked_language_modeling.mask_probability";
            return spec(field, format!("{mask_probability} is not above 0 and below 1"));
        }
        if self.full_sharding && matches!(self.method, Method::Grouped(_)) {
            let text = "FULL is not for group_relative_policy_optimization, which writes texts with whole weights; use OPTIMIZER";
            return spec("sharding", text.to_owned());
        }
        if self.distillation.is_some() && matches!(self.method, Method::SequenceToSequence { .. }) {
            return spec("distillation", "no teacher is followed by sequence_to_sequence: leave it out".to_owned());
        }
        if self.quantized_base && self.lora.is_none() {
            let text = "a quantised base is not trained itself: only an adapter learns beside it".to_owned();
            return spec("lora.quantization", text);
        }
        if self.quantized_base && self.precision == Precision::Fp8 {
            let text = "a base in NF4 is not multiplied in float8: use BFLOAT16, or leave lora.quantization out";
            return spec("precision", text.to_owned());
        }
        if let Method::Grouped(constants) = self.method {
            constants.check(self)?;
        }
        let compares = self.method.needs_reference() || matches!(self.method, Method::Grouped(_));
        if self.distillation.is_some() && compares {
            let text = "a teacher is followed token by token: not with a method that compares answers".to_owned();
            return spec("distillation", text);
        }
        if matches!(self.method, Method::Judged { .. }) && self.batch_size < 2 {
            let text = "1 is too few: each prompt is also paired with another row's answer".to_owned();
            return spec("batch_size", text);
        }
        Ok(())
    }

    /// Identifies the run: the same digest means that a checkpoint of one continues the other.
    pub fn digest(&self, dataset_digest: &str, base_model_digest: &str, teacher_digest: &str) -> String {
        let text = serde_json::json!({
            "config": self.config.to_json(),
            "steps": self.steps,
            "batch_size": self.batch_size,
            "micro_batches": self.micro_batches(),
            "sequence_length": self.sequence_length,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "method": self.method,
            "rewards": self.rewards,
            "distillation": self.distillation,
            "order": self.order == Order::Sequential,
            "lora": self.lora.as_ref().map(|lora| format!("{lora:?}")),
            "quantized_base": self.quantized_base,
            "muon": self.muon,
            "z_loss": self.z_loss,
            "ema_decay": self.ema_decay,
            "clip_norm": self.clip_norm,
            "seed": self.seed,
            "precision": self.precision,
            "validate_every_steps": self.validate_every_steps,
            "dataset": dataset_digest,
            "base_model": base_model_digest,
            "teacher": teacher_digest,
        });
        format!("sha256:{}", hex::encode(Sha256::digest(text.to_string())))
    }
}

/// How a job's rows or tokens teach, defaults filled in.
pub fn method_of(method: Option<&training_spec::Method>) -> Method {
    match method {
        None => Method::Language,
        Some(training_spec::Method::SupervisedFineTuning(spec)) => {
            Method::Supervised { learn_prompts: spec.learn_prompts }
        }
        Some(training_spec::Method::DirectPreferenceOptimization(spec)) => Method::Preference {
            beta: or(spec.beta, 0.1),
            loss: match spec.loss() {
                Loss::Unspecified | Loss::Sigmoid => PreferenceLoss::Sigmoid,
                Loss::Ipo => PreferenceLoss::Ipo,
                Loss::Hinge => PreferenceLoss::Hinge,
            },
            label_smoothing: spec.label_smoothing,
            max_completion_length: spec.max_completion_length.max(0) as usize,
        },
        Some(training_spec::Method::KahnemanTverskyOptimization(spec)) => Method::Judged {
            beta: or(spec.beta, 0.1),
            desirable_weight: or(spec.desirable_weight, 1.0),
            undesirable_weight: or(spec.undesirable_weight, 1.0),
        },
        Some(training_spec::Method::GroupRelativePolicyOptimization(spec)) => Method::Grouped(grouped::of(spec)),
        Some(training_spec::Method::MaskedLanguageModeling(spec)) => {
            Method::MaskedLanguage { mask_probability: or(spec.mask_probability, Masking::PROBABILITY) }
        }
        Some(training_spec::Method::SequenceToSequence(spec)) => {
            Method::SequenceToSequence { max_target_length: spec.max_target_length.max(0) as usize }
        }
    }
}

fn lora_of(lora: &Lora) -> LoraConfig {
    LoraConfig {
        r: if lora.r == 0 { 8 } else { lora.r.into() },
        alpha: or(lora.alpha, 8.0),
        dropout: lora.dropout,
        target_modules: lora.target_modules.clone(),
        use_rslora: lora.use_rslora,
        use_dora: lora.use_dora,
    }
}

fn schedule_of(spec: &ScheduleSpec, peak: f64, steps: u64) -> Schedule {
    let decay_steps = if spec.decay_steps > 0 { spec.decay_steps.unsigned_abs() } else { (steps / 10).max(1) };
    Schedule {
        peak,
        warmup_steps: spec.warmup_steps.max(0) as u64,
        steps,
        final_ratio: spec.final_ratio.unwrap_or(0.1),
        decay: match spec.decay() {
            DecaySpec::Unspecified | DecaySpec::Cosine => Decay::Cosine,
            DecaySpec::Linear => Decay::Linear,
            DecaySpec::Constant => Decay::Constant,
            DecaySpec::WarmupStable => Decay::Last { steps: decay_steps },
        },
    }
}

fn or(value: f64, default: f64) -> f64 {
    if value == 0.0 { default } else { value }
}

fn positive(field: &'static str, value: i64) -> Result<u64> {
    match u64::try_from(value) {
        Ok(value) if value > 0 => Ok(value),
        _ => Err(Error::Spec { field, problem: format!("{value} is not a positive number") }),
    }
}
