//! How the model is trained.

use tidemill_proto::r#type::v1::architecture::Architecture as Family;
use tidemill_proto::r#type::v1::architecture::{Bert, Gpt2, Llama};
use tidemill_proto::r#type::v1::training_spec::{Method, Precision};
use tidemill_proto::r#type::v1::{AdamW, Schedule, TrainingSpec};

use super::wrong::Wrong;

/// Beyond this a size is a mistake.
const LARGEST: i32 = 1 << 20;

/// `rows`: the dataset is of rows and not of text.
pub(super) fn check(training: &TrainingSpec, has_base: bool, rows: bool, wrong: &mut Wrong) {
    wrong.unless(has_base || !rows, "base", || {
        "it is required: rows are learned in the tokens and the chat template of a model".to_owned()
    });
    let of_rows = !matches!(training.method, None | Some(Method::MaskedLanguageModeling(_)));
    wrong.unless(rows == of_rows, "training", || {
        let methods = "supervised_fine_tuning, direct_preference_optimization, kahneman_tversky_optimization, \
                       group_relative_policy_optimization, sequence_to_sequence";
        if rows {
            format!("say how rows are learned: {methods}")
        } else {
            format!("{methods} are for rows: leave it out")
        }
    });
    wrong.unless(has_base || training.lora.is_none(), "training.lora", || "it needs a base".to_owned());
    // A base brings its own.
    let needed = !has_base && !rows;
    let architecture = match needed {
        true => wrong.required("training.architecture", training.architecture.as_ref()),
        false => None,
    };
    let context = match architecture {
        None => None,
        Some(architecture) => match &architecture.architecture {
            None => {
                wrong.add("training.architecture", "say which: llama, gpt2, bert or t5");
                None
            }
            Some(Family::Llama(llama)) => check_llama(llama, wrong),
            Some(Family::Gpt2(gpt2)) => check_gpt2(gpt2, wrong),
            Some(Family::Bert(bert)) => check_bert(bert, wrong),
            Some(Family::T5(_)) => {
                wrong.add("training.architecture", "a t5 learns rows, which need a base: use llama, gpt2 or bert");
                None
            }
        },
    };
    let steps = training.steps;
    wrong.unless(steps >= 1, "training.steps", || format!("{steps} should be at least 1"));
    wrong.size("training.batch_size", training.batch_size, LARGEST);
    wrong.count("training.accumulation", training.accumulation.into());
    wrong.count("training.ranks", training.ranks.into());
    let length = training.sequence_length;
    if wrong.size("training.sequence_length", length, LARGEST)
        && let Some(context) = context
    {
        wrong.unless(length <= context, "training.sequence_length", || {
            format!("{length} is more than the architecture's context of {context}")
        });
    }
    if let Some(optimizer) = wrong.required("training.optimizer", training.optimizer.as_ref()) {
        check_optimizer(optimizer, wrong);
    }
    if let Some(schedule) = wrong.required("training.schedule", training.schedule.as_ref()) {
        check_schedule(schedule, steps, wrong);
    }
    wrong.within("training.clip_norm", training.clip_norm, 0.0, f64::MAX);
    wrong.choice::<Precision>("training.precision", training.precision, true);
    wrong.count("training.checkpoint_every_steps", training.checkpoint_every_steps);
    wrong.count("training.validate_every_steps", training.validate_every_steps);
    wrong.count("training.keep_checkpoints", training.keep_checkpoints.into());
}

/// Gives the context, where it is one.
fn check_llama(llama: &Llama, wrong: &mut Wrong) -> Option<i32> {
    let at = |name: &str| format!("training.architecture.llama.{name}");
    let (width, heads, shared) = (llama.hidden_size, llama.num_attention_heads, llama.num_key_value_heads);
    let has_width = wrong.size(&at("hidden_size"), width, LARGEST);
    wrong.size(&at("intermediate_size"), llama.intermediate_size, LARGEST);
    wrong.size(&at("num_hidden_layers"), llama.num_hidden_layers, LARGEST);
    let has_heads = wrong.size(&at("num_attention_heads"), heads, LARGEST);
    let has_shared = wrong.size(&at("num_key_value_heads"), shared, LARGEST);
    if has_width && has_heads {
        let divides = width % heads == 0;
        wrong.unless(divides, &at("num_attention_heads"), || format!("{heads} does not divide hidden_size {width}"));
        wrong.unless(!divides || (width / heads) % 2 == 0, &at("num_attention_heads"), || {
            format!("a head would be {} wide; rotary positions need an even width", width / heads)
        });
    }
    if has_heads && has_shared {
        wrong.unless(heads % shared == 0, &at("num_key_value_heads"), || {
            format!("{shared} does not divide num_attention_heads {heads}")
        });
    }
    let base = llama.rope_theta;
    wrong.unless(base == 0.0 || (base.is_finite() && base > 1.0), &at("rope_theta"), || {
        format!("{base} should be more than 1, or 0 for 10000")
    });
    let has_context = wrong.size(&at("max_position_embeddings"), llama.max_position_embeddings, LARGEST);
    has_context.then_some(llama.max_position_embeddings)
}

/// Gives the context, where it is one.
fn check_gpt2(gpt2: &Gpt2, wrong: &mut Wrong) -> Option<i32> {
    let at = |name: &str| format!("training.architecture.gpt2.{name}");
    let has_width = wrong.size(&at("n_embd"), gpt2.n_embd, LARGEST);
    wrong.size(&at("n_layer"), gpt2.n_layer, LARGEST);
    if wrong.size(&at("n_head"), gpt2.n_head, LARGEST) && has_width {
        wrong.unless(gpt2.n_embd % gpt2.n_head == 0, &at("n_head"), || {
            format!("{} does not divide n_embd {}", gpt2.n_head, gpt2.n_embd)
        });
    }
    wrong.size(&at("n_positions"), gpt2.n_positions, LARGEST).then_some(gpt2.n_positions)
}

/// Gives the context, where it is one.
fn check_bert(bert: &Bert, wrong: &mut Wrong) -> Option<i32> {
    let at = |name: &str| format!("training.architecture.bert.{name}");
    let (width, heads) = (bert.hidden_size, bert.num_attention_heads);
    let has_width = wrong.size(&at("hidden_size"), width, LARGEST);
    wrong.size(&at("intermediate_size"), bert.intermediate_size, LARGEST);
    wrong.size(&at("num_hidden_layers"), bert.num_hidden_layers, LARGEST);
    if wrong.size(&at("num_attention_heads"), heads, LARGEST) && has_width {
        wrong.unless(width % heads == 0, &at("num_attention_heads"), || {
            format!("{heads} does not divide hidden_size {width}")
        });
    }
    let context = bert.max_position_embeddings;
    wrong.size(&at("max_position_embeddings"), context, LARGEST).then_some(context)
}

fn check_optimizer(optimizer: &AdamW, wrong: &mut Wrong) {
    let rate = optimizer.learning_rate;
    wrong.unless(rate.is_finite() && rate > 0.0, "training.optimizer.learning_rate", || {
        format!("{rate} should be a positive number")
    });
    for (name, beta) in [("beta1", optimizer.beta1), ("beta2", optimizer.beta2)] {
        wrong.unless((0.0..1.0).contains(&beta), &format!("training.optimizer.{name}"), || {
            format!("{beta} should be at least 0 and below 1")
        });
    }
    wrong.unless((0.0..1.0).contains(&optimizer.epsilon), "training.optimizer.epsilon", || {
        format!("{} should be at least 0 and below 1", optimizer.epsilon)
    });
    wrong.within("training.optimizer.weight_decay", optimizer.weight_decay.unwrap_or(0.1), 0.0, 1e6);
}

fn check_schedule(schedule: &Schedule, steps: i64, wrong: &mut Wrong) {
    let warmup = schedule.warmup_steps;
    wrong.count("training.schedule.warmup_steps", warmup);
    wrong.unless(warmup <= steps.max(0) || steps < 1, "training.schedule.warmup_steps", || {
        format!("{warmup} is more than the {steps} steps in all")
    });
    wrong.within("training.schedule.final_ratio", schedule.final_ratio.unwrap_or(0.1), 0.0, 1.0);
}
