//! The shape of a new model, and whether the method is for such models.

use tidemill_proto::r#type::v1::TrainingSpec;
use tidemill_proto::r#type::v1::architecture::{self, Bert, Gpt2, Llama, T5};

use super::Violations;
use crate::learning::{config_of, method_of};

const MISSING: &str = "is required: llama, gpt2, bert or t5";
const VOCABULARY: i64 = 1000;

/// Returns the context, where it is valid.
pub(super) fn check(spec: &TrainingSpec, wrong: &mut Violations) -> Option<i32> {
    let before = wrong.0.len();
    let Some(asked) = &spec.architecture else {
        wrong.add("spec.architecture", MISSING);
        return None;
    };
    let context = match &asked.architecture {
        None => {
            wrong.add("spec.architecture", MISSING);
            None
        }
        Some(architecture::Architecture::Llama(shape)) => check_llama(shape, wrong),
        Some(architecture::Architecture::Gpt2(shape)) => check_gpt2(shape, wrong),
        Some(architecture::Architecture::Bert(shape)) => check_bert(shape, wrong),
        Some(architecture::Architecture::T5(shape)) => {
            check_t5(shape, wrong);
            None
        }
    };
    if wrong.0.len() == before {
        // Any vocabulary does here.
        match config_of(asked, VOCABULARY, None) {
            Ok(config) => {
                if let Err(text) = method_of(spec.method.as_ref()).check_model(&config) {
                    wrong.add("spec.method", text);
                }
            }
            Err(error) => wrong.add("spec.architecture", error.to_string()),
        }
    }
    context
}

fn check_llama(shape: &Llama, wrong: &mut Violations) -> Option<i32> {
    const AT: &str = "architecture.llama";
    let width = wrong.size(&format!("{AT}.hidden_size"), shape.hidden_size);
    wrong.size(&format!("{AT}.intermediate_size"), shape.intermediate_size);
    wrong.size(&format!("{AT}.num_hidden_layers"), shape.num_hidden_layers);
    let heads = wrong.size(&format!("{AT}.num_attention_heads"), shape.num_attention_heads);
    let pairs = wrong.size(&format!("{AT}.num_key_value_heads"), shape.num_key_value_heads);
    if width && heads {
        let (width, heads) = (shape.hidden_size, shape.num_attention_heads);
        let field = format!("{AT}.num_attention_heads");
        wrong.unless(width % heads == 0, &field, || format!("{heads} does not divide hidden_size = {width}"));
        let even = width % heads != 0 || (width / heads) % 2 == 0;
        wrong.unless(even, &field, || {
            format!(
                "heads of {} channels cannot rotate in pairs; hidden_size / num_attention_heads must be even",
                width / heads
            )
        });
    }
    if heads && pairs {
        let (heads, pairs) = (shape.num_attention_heads, shape.num_key_value_heads);
        let field = format!("{AT}.num_key_value_heads");
        wrong.unless(heads % pairs == 0, &field, || format!("{pairs} does not divide num_attention_heads = {heads}"));
    }
    let base = shape.rope_theta;
    let turns = base == 0.0 || (base.is_finite() && base > 1.0);
    wrong.unless(turns, &format!("{AT}.rope_theta"), || {
        format!("{base} is not a rotary base; use 0 for 10000, or more than 1")
    });
    let context = wrong.size(&format!("{AT}.max_position_embeddings"), shape.max_position_embeddings);
    context.then_some(shape.max_position_embeddings)
}

fn check_gpt2(shape: &Gpt2, wrong: &mut Violations) -> Option<i32> {
    const AT: &str = "architecture.gpt2";
    let width = wrong.size(&format!("{AT}.n_embd"), shape.n_embd);
    wrong.size(&format!("{AT}.n_layer"), shape.n_layer);
    let heads = wrong.size(&format!("{AT}.n_head"), shape.n_head);
    if width && heads {
        let (width, heads) = (shape.n_embd, shape.n_head);
        wrong.unless(width % heads == 0, &format!("{AT}.n_head"), || {
            format!("{heads} does not divide n_embd = {width}")
        });
    }
    wrong.size(&format!("{AT}.n_positions"), shape.n_positions).then_some(shape.n_positions)
}

fn check_bert(shape: &Bert, wrong: &mut Violations) -> Option<i32> {
    const AT: &str = "architecture.bert";
    let width = wrong.size(&format!("{AT}.hidden_size"), shape.hidden_size);
    wrong.size(&format!("{AT}.intermediate_size"), shape.intermediate_size);
    wrong.size(&format!("{AT}.num_hidden_layers"), shape.num_hidden_layers);
    let heads = wrong.size(&format!("{AT}.num_attention_heads"), shape.num_attention_heads);
    if width && heads {
        let (width, heads) = (shape.hidden_size, shape.num_attention_heads);
        wrong.unless(width % heads == 0, &format!("{AT}.num_attention_heads"), || {
            format!("{heads} does not divide hidden_size = {width}")
        });
    }
    let context = wrong.size(&format!("{AT}.max_position_embeddings"), shape.max_position_embeddings);
    context.then_some(shape.max_position_embeddings)
}

fn check_t5(shape: &T5, wrong: &mut Violations) {
    const AT: &str = "architecture.t5";
    let needed = [
        ("d_model", shape.d_model),
        ("d_ff", shape.d_ff),
        ("num_layers", shape.num_layers),
        ("num_heads", shape.num_heads),
    ];
    for (field, size) in needed {
        wrong.size(&format!("{AT}.{field}"), size);
    }
    let usual = [
        ("d_kv", shape.d_kv),
        ("num_decoder_layers", shape.num_decoder_layers),
        ("relative_attention_num_buckets", shape.relative_attention_num_buckets),
        ("relative_attention_max_distance", shape.relative_attention_max_distance),
    ];
    for (field, size) in usual.into_iter().filter(|(_, size)| *size != 0) {
        wrong.size(&format!("{AT}.{field}"), size);
    }
}
