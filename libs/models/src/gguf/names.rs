//! Hugging Face's name of each tensor, and the order of rows it has there.

use tch::Tensor;

use super::header::Header;
use crate::Result;

/// Factors of Llama 3's rope frequencies: a setting there, not a weight.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// Hugging Face's name; none for a tensor that these architectures do not have.
pub(super) fn hugging_face(name: &str) -> Option<String> {
    match name {
        "token_embd.weight" => return Some("model.embed_tokens.weight".to_owned()),
        "output_norm.weight" => return Some("model.norm.weight".to_owned()),
        "output.weight" => return Some("lm_head.weight".to_owned()),
        _ => {}
    }
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let (part, kind) = rest.rsplit_once('.')?;
    let layer: u32 = layer.parse().ok()?;
    if !matches!(kind, "weight" | "bias") {
        return None;
    }
    let part = match part {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    };
    Some(format!("model.layers.{layer}.{part}.{kind}"))
}

/// Heads whose rows are to be reordered, for queries and for keys.
pub(super) struct Interleaved {
    heads: i64,
    kv_heads: i64,
}

impl Interleaved {
    /// Files of the architecture `llama` hold queries and keys for a rotation of neighbours (2i, 2i+1); Hugging Face rotates
    /// (i, i + d/2). The other architectures are stored as Hugging Face has them.
    pub(super) fn of(header: &Header) -> Option<Self> {
        let count = |key: &str| header.integer(&format!("llama.attention.{key}"));
        let heads = count("head_count").filter(|_| header.architecture() == Some("llama"))?;
        Some(Self { heads, kv_heads: count("head_count_kv").unwrap_or(heads) })
    }

    /// The tensor with its rows as Hugging Face has them, or what is wrong with its shape.
    pub(super) fn arranged(&self, name: &str, tensor: Tensor) -> Result<std::result::Result<Tensor, String>> {
        let heads = match name {
            _ if name.contains(".attn_q.") => self.heads,
            _ if name.contains(".attn_k.") => self.kv_heads,
            _ => return Ok(Ok(tensor)),
        };
        let shape = tensor.size();
        if heads < 1 || shape[0] % (heads * 2) != 0 {
            return Ok(Err(format!("tensor {name} has shape {shape:?}, which {heads} heads of even size do not fit")));
        }
        let pairs = tensor.f_view([heads, shape[0] / heads / 2, 2, -1])?;
        Ok(Ok(pairs.f_transpose(1, 2)?.f_reshape(shape.as_slice())?))
    }
}
