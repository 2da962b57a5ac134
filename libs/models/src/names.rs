//! Tensor names of checkpoints that were saved in other ways: without the head's class, with buffers, with tied tensors twice.

use std::collections::BTreeMap;

use tch::Tensor;

use crate::{Config, Result};

/// Gives tensors the names that the layers look for: adds the prefix that models without a head lack, drops buffers that follow from the
/// configuration, and of tied tensors all but the first. Tells of tied tensors that differ.
pub(crate) fn canonical(
    config: &mut Config,
    tensors: BTreeMap<String, Tensor>,
) -> Result<(BTreeMap<String, Tensor>, Vec<String>)> {
    let (prefix, inside, buffers, tied): (_, &[&str], &[&str], &[(&str, &str)]) = match config {
        Config::Llama(config) => {
            let tied: &[_] =
                if config.tie_word_embeddings { &[("lm_head.weight", "model.embed_tokens.weight")] } else { &[] };
            ("model.", &["embed_tokens.", "layers.", "norm."], &[".rotary_emb.inv_freq"], tied)
        }
        Config::Gpt2(_) => (
            "transformer.",
            &["wte.", "wpe.", "h.", "ln_f."],
            &[".attn.bias", ".attn.masked_bias"],
            &[("lm_head.weight", "transformer.wte.weight")],
        ),
        Config::Bert(_) => (
            "bert.",
            &["embeddings.", "encoder.", "pooler."],
            &["embeddings.position_ids"],
            &[
                ("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
                ("cls.predictions.decoder.bias", "cls.predictions.bias"),
            ],
        ),
        Config::T5(_) => (
            "",
            &[],
            &["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"],
            &[("encoder.embed_tokens.weight", "shared.weight"), ("decoder.embed_tokens.weight", "shared.weight")],
        ),
    };
    let mut found = BTreeMap::new();
    for (name, tensor) in tensors {
        if buffers.iter().any(|buffer| name.ends_with(buffer)) {
            continue;
        }
        let bare = inside.iter().any(|start| name.starts_with(start));
        found.insert(if bare { format!("{prefix}{name}") } else { name }, tensor);
    }
    let mut problems = Vec::new();
    for (double, first) in tied {
        let Some(tensor) = found.remove(*double) else { continue };
        match found.get(*first) {
            None => {
                found.insert((*first).to_owned(), tensor);
            }
            Some(other) if other.size() == tensor.size() && other.f_equal(&tensor)? => {}
            Some(_) => problems.push(format!("tensors {double} and {first} differ, and the configuration ties them")),
        }
    }
    if let Config::T5(config) = config {
        config.tied_head = match (found.get("lm_head.weight"), found.get("shared.weight")) {
            (Some(head), Some(shared)) => head.size() == shared.size() && head.f_equal(shared)?,
            (head, _) => head.is_none(),
        };
        if config.tied_head {
            found.remove("lm_head.weight");
        }
    }
    Ok((found, problems))
}
