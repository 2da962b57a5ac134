//! The rules of a TrainingSpec that need nothing but the spec itself.

mod grouped;
mod shape;

use tidemill_chassis::Fault;
use tidemill_proto::r#type::v1::schedule::Decay;
use tidemill_proto::r#type::v1::training_spec::{Method, Order, Precision};
use tidemill_proto::r#type::v1::{AdamW, Lora, Schedule, TrainingSpec, adam_w, lora};

/// Largest size of anything: beyond it a shape is a mistake, and products of shapes could overflow.
const LARGEST: i32 = 1 << 20;

/// Most processes of one job; all run on one machine.
const MOST_RANKS: i32 = 256;

/// Wrong fields, as they are found.
#[derive(Default)]
pub(crate) struct Violations(Vec<(String, String)>);

impl Violations {
    pub(crate) fn add(&mut self, field: impl Into<String>, text: impl Into<String>) {
        self.0.push((field.into(), text.into()));
    }

    pub(crate) fn into_result(self) -> Result<(), Fault> {
        if self.0.is_empty() { Ok(()) } else { Err(Fault::invalid_fields(self.0)) }
    }

    fn unless(&mut self, holds: bool, field: &str, text: impl FnOnce() -> String) {
        if !holds {
            self.add(format!("spec.{field}"), text());
        }
    }

    /// A size that must be there.
    fn size(&mut self, field: &str, value: i32) -> bool {
        let holds = (1..=LARGEST).contains(&value);
        self.unless(holds, field, || format!("{value} is not a size; use 1 to {LARGEST}"));
        holds
    }

    /// An optional count: 0 takes the default.
    fn count(&mut self, field: &str, value: i64) {
        self.unless(value >= 0, field, || format!("{value} is negative; use 0 for the usual number"));
    }

    /// A number in `low <= value < high`.
    fn range(&mut self, field: &str, value: f64, low: f64, high: f64) {
        self.unless((low..high).contains(&value), field, || format!("{value} is not in {low} <= value < {high}"));
    }
}

/// Adds what is wrong with a spec. The architecture does not matter where a base model brings its own.
pub(crate) fn check(spec: &TrainingSpec, has_base: bool, wrong: &mut Violations) {
    let context = if has_base { None } else { shape::check(spec, wrong) };
    wrong.unless(spec.steps >= 1, "steps", || format!("{} is not a number of steps; use at least 1", spec.steps));
    wrong.size("batch_size", spec.batch_size);
    wrong.count("accumulation", spec.accumulation.into());
    wrong.unless((0..=MOST_RANKS).contains(&spec.ranks), "ranks", || {
        format!("{} is not a number of ranks; use 1 to {MOST_RANKS}", spec.ranks)
    });
    if wrong.size("sequence_length", spec.sequence_length)
        && let Some(context) = context
    {
        wrong.unless(spec.sequence_length <= context, "sequence_length", || {
            format!("{} is more than the architecture's context of {context}", spec.sequence_length)
        });
    }
    match &spec.optimizer {
        None => wrong.add("spec.optimizer", "is required"),
        Some(optimizer) => check_optimizer(optimizer, wrong),
    }
    match &spec.schedule {
        None => wrong.add("spec.schedule", "is required"),
        Some(schedule) => check_schedule(schedule, spec.steps, wrong),
    }
    let clips = spec.clip_norm.is_finite() && spec.clip_norm >= 0.0;
    wrong.unless(clips, "clip_norm", || {
        format!("{} is not a norm; use 0 for 1.0, or a positive number", spec.clip_norm)
    });
    let known = Precision::try_from(spec.precision).is_ok();
    wrong.unless(known, "precision", || format!("{} is not a precision", spec.precision));
    let known = Order::try_from(spec.order).is_ok();
    wrong.unless(known, "order", || format!("{} is not an order", spec.order));
    wrong.range("z_loss", spec.z_loss, 0.0, 1.0);
    wrong.range("ema_decay", spec.ema_decay, 0.0, 1.0);
    if let Some(muon) = &spec.muon {
        wrong.range("muon.momentum", muon.momentum, 0.0, 1.0);
    }
    if let Some(lora) = &spec.lora {
        wrong.unless(has_base, "lora", || "needs a base model: name base_model_digest".to_owned());
        check_lora(lora, wrong);
        let both = spec.precision() == Precision::Fp8 && lora.quantization() == lora::Quantization::Nf4;
        wrong.unless(!both, "precision", || {
            "a base in NF4 is not multiplied in float8: use BFLOAT16, or leave lora.quantization out".to_owned()
        });
    }
    if let Some(distillation) = &spec.distillation {
        wrong.range("distillation.temperature", distillation.temperature, 0.0, 1e3);
        let weight = distillation.weight.unwrap_or(1.0);
        wrong.unless((0.0..=1.0).contains(&weight), "distillation.weight", || format!("{weight} is not in [0, 1]"));
        let learns_tokens =
            matches!(spec.method, None | Some(Method::SupervisedFineTuning(_) | Method::MaskedLanguageModeling(_)));
        wrong.unless(learns_tokens, "distillation", || {
            "a teacher is followed token by token: with packed tokens, supervised_fine_tuning or masked_language_modeling"
                .to_owned()
        });
    }
    if let Some(method) = &spec.method {
        check_method(method, spec, wrong);
    }
    wrong.count("checkpoint_every_steps", spec.checkpoint_every_steps);
    wrong.count("validate_every_steps", spec.validate_every_steps);
    wrong.count("keep_checkpoints", spec.keep_checkpoints.into());
}

fn check_lora(lora: &Lora, wrong: &mut Violations) {
    wrong.unless((0..=4096).contains(&lora.r), "lora.r", || {
        format!("{} is not a rank; use 1 to 4096, or 0 for 8", lora.r)
    });
    wrong.range("lora.alpha", lora.alpha, 0.0, 1e6);
    wrong.range("lora.dropout", lora.dropout, 0.0, 1.0);
    let named = lora.target_modules.iter().all(|name| !name.is_empty());
    wrong.unless(named, "lora.target_modules", || "has an empty name; leave the list empty for all layers".to_owned());
    let known = lora::Quantization::try_from(lora.quantization).is_ok();
    wrong.unless(known, "lora.quantization", || format!("{} is not a quantization", lora.quantization));
}

fn check_method(method: &Method, of: &TrainingSpec, wrong: &mut Violations) {
    match method {
        Method::SupervisedFineTuning(_) => {}
        Method::MaskedLanguageModeling(spec) => {
            wrong.range("masked_language_modeling.mask_probability", spec.mask_probability, 0.0, 1.0);
        }
        Method::SequenceToSequence(spec) => {
            wrong.count("sequence_to_sequence.max_target_length", spec.max_target_length.into());
        }
        Method::DirectPreferenceOptimization(spec) => {
            const AT: &str = "direct_preference_optimization";
            wrong.range(&format!("{AT}.beta"), spec.beta, 0.0, 1e6);
            wrong.range(&format!("{AT}.label_smoothing"), spec.label_smoothing, 0.0, 0.5);
        }
        Method::KahnemanTverskyOptimization(spec) => {
            const AT: &str = "kahneman_tversky_optimization";
            let weights =
                [("desirable_weight", spec.desirable_weight), ("undesirable_weight", spec.undesirable_weight)];
            for (field, value) in [("beta", spec.beta)].into_iter().chain(weights) {
                wrong.range(&format!("{AT}.{field}"), value, 0.0, 1e6);
            }
            wrong.unless(of.batch_size != 1, "batch_size", || {
                "1 is too few for kahneman_tversky_optimization: each prompt is also paired with another row's answer".to_owned()
            });
        }
        Method::GroupRelativePolicyOptimization(spec) => grouped::check(spec, of.sequence_length, wrong),
    }
}

fn check_optimizer(optimizer: &AdamW, wrong: &mut Violations) {
    let rate = optimizer.learning_rate;
    let learns = rate.is_finite() && rate > 0.0;
    wrong.unless(learns, "optimizer.learning_rate", || format!("{rate} is not a learning rate; use a positive number"));
    wrong.range("optimizer.beta1", optimizer.beta1, 0.0, 1.0);
    wrong.range("optimizer.beta2", optimizer.beta2, 0.0, 1.0);
    wrong.range("optimizer.epsilon", optimizer.epsilon, 0.0, 1.0);
    wrong.range("optimizer.weight_decay", optimizer.weight_decay.unwrap_or(0.1), 0.0, 1e6);
    let known = adam_w::State::try_from(optimizer.state).is_ok();
    wrong.unless(known, "optimizer.state", || format!("{} is not a state", optimizer.state));
}

fn check_schedule(schedule: &Schedule, steps: i64, wrong: &mut Violations) {
    wrong.count("schedule.warmup_steps", schedule.warmup_steps);
    wrong.unless(schedule.warmup_steps <= steps.max(0), "schedule.warmup_steps", || {
        format!("{} is more than the {steps} steps in all", schedule.warmup_steps)
    });
    let ratio = schedule.final_ratio.unwrap_or(0.1);
    wrong.count("schedule.decay_steps", schedule.decay_steps);
    let known = Decay::try_from(schedule.decay).is_ok();
    wrong.unless(known, "schedule.decay", || format!("{} is not a way down", schedule.decay));
    let share = (0.0..=1.0).contains(&ratio);
    wrong.unless(share, "schedule.final_ratio", || format!("{ratio} is not a share; use 0 to 1"));
}

#[cfg(test)]
mod tests {
    use tidemill_proto::r#type::v1::architecture::{self, Bert, Llama, T5};
    use tidemill_proto::r#type::v1::{Architecture, MaskedLanguageModeling, SequenceToSequence};

    use super::*;

    fn llama() -> Llama {
        Llama {
            hidden_size: 64,
            intermediate_size: 128,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            max_position_embeddings: 32,
            ..Llama::default()
        }
    }

    fn valid(shape: Llama) -> TrainingSpec {
        TrainingSpec {
            architecture: Some(Architecture { architecture: Some(architecture::Architecture::Llama(shape)) }),
            steps: 10,
            batch_size: 2,
            sequence_length: 16,
            optimizer: Some(AdamW { learning_rate: 1e-3, ..AdamW::default() }),
            schedule: Some(Schedule { warmup_steps: 2, ..Schedule::default() }),
            ..TrainingSpec::default()
        }
    }

    fn fields(spec: &TrainingSpec, has_base: bool) -> Vec<String> {
        let mut wrong = Violations::default();
        check(spec, has_base, &mut wrong);
        wrong.0.into_iter().map(|(field, _)| field).collect()
    }

    #[test]
    fn a_valid_spec_has_no_violations() {
        assert_eq!(fields(&valid(llama()), false), [""; 0]);
        assert_eq!(fields(&TrainingSpec { architecture: None, ..valid(llama()) }, true), [""; 0]);
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let spec = TrainingSpec {
            steps: 0,
            batch_size: -1,
            sequence_length: 33,
            optimizer: Some(AdamW { learning_rate: f64::NAN, beta2: 1.0, ..AdamW::default() }),
            schedule: Some(Schedule { warmup_steps: 11, final_ratio: Some(2.0), ..Schedule::default() }),
            clip_norm: -1.0,
            precision: 9,
            keep_checkpoints: -1,
            ..valid(Llama { num_attention_heads: 5, num_key_value_heads: 3, ..llama() })
        };
        let expected = [
            "spec.architecture.llama.num_attention_heads",
            "spec.architecture.llama.num_key_value_heads",
            "spec.steps",
            "spec.batch_size",
            "spec.sequence_length",
            "spec.optimizer.learning_rate",
            "spec.optimizer.beta2",
            "spec.schedule.warmup_steps",
            "spec.schedule.final_ratio",
            "spec.clip_norm",
            "spec.precision",
            "spec.keep_checkpoints",
        ];
        assert_eq!(fields(&spec, false), expected);
    }

    #[test]
    fn an_empty_spec_names_what_it_lacks() {
        let expected = [
            "spec.architecture",
            "spec.steps",
            "spec.batch_size",
            "spec.sequence_length",
            "spec.optimizer",
            "spec.schedule",
        ];
        assert_eq!(fields(&TrainingSpec::default(), false), expected);
    }

    #[test]
    fn formats_that_are_not_known_are_told() {
        let spec = TrainingSpec {
            lora: Some(Lora { quantization: 2, ..Lora::default() }),
            optimizer: Some(AdamW { learning_rate: 1e-3, state: 3, ..AdamW::default() }),
            ..valid(llama())
        };
        assert_eq!(fields(&spec, true), ["spec.optimizer.state", "spec.lora.quantization"]);
    }

    #[test]
    fn a_base_in_four_bits_is_not_multiplied_in_float8() {
        let with = |precision: Precision| TrainingSpec {
            lora: Some(Lora { quantization: lora::Quantization::Nf4.into(), ..Lora::default() }),
            precision: precision.into(),
            ..valid(llama())
        };
        assert!(fields(&with(Precision::Bfloat16), true).is_empty());
        assert_eq!(fields(&with(Precision::Fp8), true), ["spec.precision"]);
    }

    #[test]
    fn heads_that_cannot_rotate_are_refused() {
        let odd = Llama { hidden_size: 60, num_attention_heads: 4, ..llama() };
        assert_eq!(fields(&valid(odd), false), ["spec.architecture.llama.num_attention_heads"]);
    }

    fn of(shape: architecture::Architecture, method: Option<Method>) -> TrainingSpec {
        TrainingSpec { architecture: Some(Architecture { architecture: Some(shape) }), method, ..valid(llama()) }
    }

    #[test]
    fn a_method_is_for_models_of_its_kind() {
        let bert = Bert {
            hidden_size: 64,
            intermediate_size: 128,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            max_position_embeddings: 32,
        };
        let t5 = T5 { d_model: 64, d_ff: 128, num_layers: 2, num_heads: 4, ..T5::default() };
        let methods: [fn() -> Option<Method>; 3] = [
            || None,
            || Some(Method::MaskedLanguageModeling(MaskedLanguageModeling::default())),
            || Some(Method::SequenceToSequence(SequenceToSequence::default())),
        ];
        let shapes = [
            architecture::Architecture::Llama(llama()),
            architecture::Architecture::Bert(bert),
            architecture::Architecture::T5(t5),
        ];
        for (at, method) in methods.into_iter().enumerate() {
            for (of_kind, shape) in shapes.iter().enumerate() {
                let expected: &[&str] = if at == of_kind { &[] } else { &["spec.method"] };
                assert_eq!(fields(&of(shape.clone(), method()), false), expected, "{:?} {shape:?}", method());
            }
        }
    }

    #[test]
    fn shapes_and_constants_of_encoders_are_checked() {
        let method = Some(Method::MaskedLanguageModeling(MaskedLanguageModeling { mask_probability: 1.0 }));
        let bert = Bert { hidden_size: 64, num_attention_heads: 5, max_position_embeddings: 8, ..Bert::default() };
        let expected = [
            "spec.architecture.bert.intermediate_size",
            "spec.architecture.bert.num_hidden_layers",
            "spec.architecture.bert.num_attention_heads",
            "spec.sequence_length",
            "spec.masked_language_modeling.mask_probability",
        ];
        assert_eq!(fields(&of(architecture::Architecture::Bert(bert), method), false), expected);
        let method = Some(Method::SequenceToSequence(SequenceToSequence { max_target_length: -1 }));
        let t5 = T5 { d_model: 64, d_kv: -1, num_heads: 2, ..T5::default() };
        let expected = [
            "spec.architecture.t5.d_ff",
            "spec.architecture.t5.num_layers",
            "spec.architecture.t5.d_kv",
            "spec.sequence_to_sequence.max_target_length",
        ];
        assert_eq!(fields(&of(architecture::Architecture::T5(t5.clone()), method), false), expected);
        let odd = T5 { d_ff: 8, num_layers: 1, d_kv: 0, feed_forward_proj: "swish".to_owned(), ..t5 };
        let method = Some(Method::SequenceToSequence(SequenceToSequence::default()));
        assert_eq!(fields(&of(architecture::Architecture::T5(odd), method), false), ["spec.architecture"]);
    }
}
