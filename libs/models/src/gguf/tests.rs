mod blocks;
mod broken;
mod writer;

use std::{io::Write as _, path::PathBuf};

use tempfile::NamedTempFile;

use super::*;
use writer::{Writer, float, floats, integer, text};

/// A Llama of one layer: width 8, two heads of 4, one of keys, six tokens, tied.
fn tiny() -> Writer {
    let mut writer = Writer::new();
    writer.entry("general.architecture", text("llama"));
    for (key, value) in [
        ("block_count", 1),
        ("context_length", 16),
        ("embedding_length", 8),
        ("feed_forward_length", 12),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 1),
        ("rope.dimension_count", 4),
    ] {
        writer.entry(&format!("llama.{key}"), integer(value));
    }
    writer.entry("llama.attention.layer_norm_rms_epsilon", float(1e-5));
    writer.entry("llama.rope.freq_base", float(100_000.0));
    writer.entry("tokenizer.ggml.eos_token_id", integer(2));
    for (name, shape) in [
        ("token_embd.weight", &[6u64, 8] as &[u64]),
        ("blk.0.attn_norm.weight", &[8]),
        ("blk.0.attn_q.weight", &[8, 8]),
        ("blk.0.attn_k.weight", &[4, 8]),
        ("blk.0.attn_v.weight", &[4, 8]),
        ("blk.0.attn_output.weight", &[8, 8]),
        ("blk.0.ffn_norm.weight", &[8]),
        ("blk.0.ffn_gate.weight", &[12, 8]),
        ("blk.0.ffn_up.weight", &[12, 8]),
        ("blk.0.ffn_down.weight", &[8, 12]),
        ("output_norm.weight", &[8]),
    ] {
        writer.counting(name, shape);
    }
    writer
}

fn file(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::with_suffix(".gguf").unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn opened(writer: &Writer) -> Gguf {
    open(file(&writer.bytes()).path()).unwrap()
}

fn config_error(writer: &Writer) -> String {
    opened(writer).config_json().unwrap_err().to_string()
}

fn json(writer: &Writer) -> serde_json::Value {
    serde_json::from_str(&opened(writer).config_json().unwrap()).unwrap()
}

#[test]
fn a_llama_becomes_a_hugging_face_model() {
    let writer = tiny();
    let file = file(&writer.bytes());
    let model = open(file.path()).unwrap().model(Device::Cpu).unwrap();
    assert_eq!(model.config().head_size(), 4);
    assert_eq!(model.config().kv_heads(), 1);
    let ids = Tensor::from_slice(&[1i64, 2, 3]).view([1, 3]);
    assert_eq!(model.forward(&ids, crate::Attention::Full).unwrap().size(), [1, 3, 6]);

    let config = json(&writer);
    assert_eq!(config["model_type"], "llama");
    assert_eq!(config["tie_word_embeddings"], true);
    assert_eq!(config["rope_parameters"]["rope_theta"], 100_000.0);
    assert_eq!(config["rms_norm_eps"], 1e-5);
    assert_eq!(config["eos_token_id"], 2);
}

#[test]
fn queries_and_keys_of_llama_are_ordered_for_half_split_rotation() {
    let mut writer = tiny();
    let tensors = opened(&writer).tensors().unwrap();
    // Row r of the file begins with 8 r; a head's rows 0 1 2 3 are the pairs (0, 1) and (2, 3).
    let firsts = |name: &str| Vec::<f32>::try_from(tensors[name].select(1, 0)).unwrap();
    assert_eq!(firsts("model.layers.0.self_attn.q_proj.weight"), [0.0, 16.0, 8.0, 24.0, 32.0, 48.0, 40.0, 56.0]);
    assert_eq!(firsts("model.layers.0.self_attn.k_proj.weight"), [0.0, 16.0, 8.0, 24.0]);
    assert_eq!(firsts("model.layers.0.self_attn.v_proj.weight"), [0.0, 8.0, 16.0, 24.0]);

    for (key, _) in &mut writer.entries {
        *key = key.replace("llama.", "qwen2.");
    }
    writer.entry("general.architecture", text("qwen2"));
    let tensors = opened(&writer).tensors().unwrap();
    let rows = Vec::<f32>::try_from(tensors["model.layers.0.self_attn.k_proj.weight"].select(1, 0)).unwrap();
    assert_eq!(rows, [0.0, 8.0, 16.0, 24.0]);
}

#[test]
fn the_family_and_the_head_follow_from_keys_and_tensors() {
    let mut writer = tiny();
    writer.counting("output.weight", &[6, 8]);
    assert_eq!(json(&writer)["tie_word_embeddings"], false);
    assert_eq!(opened(&writer).tensors().unwrap()["lm_head.weight"].size(), [6, 8]);
    writer.entry("llama.attention.sliding_window", integer(4));
    let config = json(&writer);
    assert_eq!((&config["model_type"], &config["sliding_window"]), (&"mistral".into(), &4.into()));
}

#[test]
fn scaled_rotations_are_read() {
    let mut writer = tiny();
    writer.entry("llama.rope.scaling.type", text("yarn"));
    writer.entry("llama.rope.scaling.factor", float(4.0));
    writer.entry("llama.rope.scaling.original_context_length", integer(4));
    let rope = &json(&writer)["rope_parameters"];
    assert_eq!((&rope["rope_type"], &rope["factor"]), (&"yarn".into(), &4.0.into()));
    assert_eq!(rope["original_max_position_embeddings"], 4);
    writer.entry("llama.rope.scaling.type", text("longrope"));
    assert!(config_error(&writer).contains("llama.rope.scaling.type: \"longrope\" is not supported"));
}

#[test]
fn the_factors_of_llama_3_become_its_setting() {
    // As llama.cpp's converter writes them for Llama 3.1: heads of 64, base 500,000, factor 8.
    let mut factors = [[1.0f32; 16], [8.0; 16]].concat();
    factors[15..18].copy_from_slice(&[1.553_414_6, 2.694_529_7, 5.257_326_6]);
    let mut writer = tiny();
    for key in ["attention.key_length", "attention.value_length", "rope.dimension_count"] {
        writer.entry(&format!("llama.{key}"), integer(64));
    }
    writer.entry("llama.rope.freq_base", float(500_000.0));
    writer.counting("rope_freqs.weight", &[32]);
    let error = config_error(&writer);
    assert!(error.contains("rope_freqs.weight does not hold the frequency factors of Llama 3"), "{error}");
    writer.tensors.last_mut().unwrap().data = floats(&factors);
    let rope = &json(&writer)["rope_parameters"];
    assert_eq!((&rope["rope_type"], &rope["factor"]), (&"llama3".into(), &8.0.into()));
    assert_eq!(rope["original_max_position_embeddings"], 8192);
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    let mut writer = tiny();
    writer.entry("llama.logit_scale", float(0.5));
    writer.entry("llama.expert_count", integer(0));
    writer.entry("llama.context_length", text("long"));
    let error = config_error(&writer);
    assert!(error.contains("llama.logit_scale: unknown key"), "{error}");
    assert!(error.contains("llama.context_length"), "{error}");
    assert!(!error.contains("expert_count"), "{error}");

    let mut writer = tiny();
    writer.entry("general.architecture", text("mamba"));
    assert!(config_error(&writer).contains("\"mamba\" is not supported; llama (with mistral), qwen2 and qwen3 are"));

    let mut writer = tiny();
    writer.counting("blk.0.ffn_gate_exps.weight", &[2, 12, 8]);
    let error = opened(&writer).tensors().unwrap_err().to_string();
    assert!(error.contains("tensor blk.0.ffn_gate_exps.weight is not part of this architecture"), "{error}");

    let mut writer = tiny();
    writer.entry("llama.rope.dimension_count", integer(2));
    assert!(config_error(&writer).contains("rope.dimension_count: 2 is not the head size 4"));
}

#[test]
fn a_missing_file_is_named() {
    let path = PathBuf::from("/nowhere/model.gguf");
    assert!(open(&path).unwrap_err().to_string().contains("/nowhere/model.gguf"));
}
