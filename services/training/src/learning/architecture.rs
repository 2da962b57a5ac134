//! A new model's configuration, from the architecture that a job asks for.

use tidemill_models::{Activation, BertConfig, Config, Gpt2Config, LlamaConfig, LlamaMember, Rope, T5Config};
use tidemill_proto::r#type::v1::{Architecture, architecture};

use super::{Error, Result};

/// The configuration of a new model of the given architecture for a tokenizer.
pub fn config_of(architecture: &Architecture, vocabulary_size: i64, end_of_text: Option<i64>) -> Result<Config> {
    let missing = || Error::Spec { field: "architecture", problem: "missing: llama, gpt2, bert or t5".to_owned() };
    let config = match architecture.architecture.as_ref().ok_or_else(missing)? {
        architecture::Architecture::Llama(llama) => {
            let heads = i64::from(llama.num_attention_heads);
            Config::Llama(LlamaConfig {
                member: LlamaMember::Llama,
                vocab_size: vocabulary_size,
                hidden_size: llama.hidden_size.into(),
                intermediate_size: llama.intermediate_size.into(),
                num_hidden_layers: llama.num_hidden_layers.into(),
                num_attention_heads: heads,
                num_key_value_heads: llama.num_key_value_heads.into(),
                head_dim: i64::from(llama.hidden_size) / heads.max(1),
                max_position_embeddings: llama.max_position_embeddings.into(),
                rope: Rope { theta: or(llama.rope_theta, 10_000.0), scaling: None },
                rms_norm_eps: 1e-6,
                qkv_bias: false,
                output_bias: false,
                mlp_bias: false,
                head_norms: false,
                windows: Vec::new(),
                tie_word_embeddings: llama.tie_word_embeddings,
                initializer_range: 0.02,
                bos_token_id: None,
                eos_token_id: end_of_text,
            })
        }
        architecture::Architecture::Gpt2(gpt2) => Config::Gpt2(Gpt2Config {
            vocab_size: vocabulary_size,
            n_embd: gpt2.n_embd.into(),
            n_layer: gpt2.n_layer.into(),
            n_head: gpt2.n_head.into(),
            n_positions: gpt2.n_positions.into(),
            n_inner: None,
            bias: gpt2.bias,
            // nanoGPT, whose models have no biases, uses the exact form.
            activation_function: if gpt2.bias { Activation::GeluNew } else { Activation::Gelu },
            layer_norm_epsilon: 1e-5,
            initializer_range: 0.02,
            bos_token_id: None,
            eos_token_id: end_of_text,
        }),
        architecture::Architecture::Bert(bert) => Config::Bert(BertConfig {
            vocab_size: vocabulary_size,
            hidden_size: bert.hidden_size.into(),
            num_hidden_layers: bert.num_hidden_layers.into(),
            num_attention_heads: bert.num_attention_heads.into(),
            intermediate_size: bert.intermediate_size.into(),
            hidden_act: Activation::Gelu,
            max_position_embeddings: bert.max_position_embeddings.into(),
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            initializer_range: 0.02,
            masked_lm: true,
            pooler: false,
            pad_token_id: None,
        }),
        architecture::Architecture::T5(t5) => Config::T5(t5_of(t5, vocabulary_size, end_of_text)?),
    };
    match config.problems().is_empty() {
        true => Ok(config),
        false => Err(Error::Spec { field: "architecture", problem: config.problems().join("; ") }),
    }
}

/// Texts begin with the token 0, as T5's own do, until the tokenizer is known to have another for padding.
fn t5_of(t5: &architecture::T5, vocab_size: i64, eos_token_id: Option<i64>) -> Result<T5Config> {
    let or = |value: i32, default: i64| if value == 0 { default } else { i64::from(value) };
    let (gated, activation) = match t5.feed_forward_proj.as_str() {
        "" | "relu" => (false, Activation::Relu),
        "gated-gelu" => (true, Activation::GeluNew),
        other => {
            let problem = format!("feed_forward_proj {other:?} is unknown: use relu or gated-gelu");
            return Err(Error::Spec { field: "architecture", problem });
        }
    };
    let tied = t5.tie_word_embeddings.unwrap_or(true);
    Ok(T5Config {
        vocab_size,
        d_model: t5.d_model.into(),
        d_kv: or(t5.d_kv, 64),
        d_ff: t5.d_ff.into(),
        num_layers: t5.num_layers.into(),
        num_decoder_layers: or(t5.num_decoder_layers, t5.num_layers.into()),
        num_heads: t5.num_heads.into(),
        relative_attention_num_buckets: or(t5.relative_attention_num_buckets, 32),
        relative_attention_max_distance: or(t5.relative_attention_max_distance, 128),
        layer_norm_epsilon: 1e-6,
        initializer_factor: 1.0,
        activation,
        gated,
        tied_head: tied,
        scale_decoder_outputs: tied,
        decoder_start_token_id: 0,
        eos_token_id,
    })
}

fn or(value: f64, default: f64) -> f64 {
    if value == 0.0 { default } else { value }
}
