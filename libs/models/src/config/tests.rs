use super::*;

const LLAMA_5: &str = r#"{"architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
 "bos_token_id": 1, "eos_token_id": 2, "head_dim": 16, "hidden_act": "silu", "hidden_size": 64,
 "initializer_range": 0.02, "intermediate_size": 96, "max_position_embeddings": 128, "mlp_bias": false,
 "model_type": "llama", "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2,
 "pad_token_id": null, "pretraining_tp": 1, "rms_norm_eps": 1e-06,
 "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"}, "tie_word_embeddings": false,
 "transformers_version": "5.17.0", "use_cache": true, "vocab_size": 320}"#;

#[test]
fn what_transformers_writes_is_read_and_written_back_unchanged() {
    let config = Config::from_json(LLAMA_5).unwrap();
    let Config::Llama(llama) = &config else { panic!("{config:?}") };
    assert_eq!(llama.rope.theta, 500_000.0);
    assert_eq!((config.vocabulary_size(), config.context_length(), config.kv_heads()), (320, 128, 2));
    let written = config.to_json();
    assert_eq!(Config::from_json(&written).unwrap(), config);
    assert_eq!(Config::from_json(&written).unwrap().to_json(), written);
}

#[test]
fn every_mistake_is_reported_by_field_name() {
    let text = LLAMA_5
        .replace(r#""vocab_size": 320"#, r#""vocab_size": 0"#)
        .replace(r#""mlp_bias": false"#, r#""mlp_bias": 7"#)
        .replace(r#""use_cache": true"#, r#""quantization_config": {}"#)
        .replace(r#""hidden_size": 64,"#, "")
        .replace(r#""rope_type": "default""#, r#""rope_type": "dynamic""#);
    let problems = Config::from_json(&text).unwrap_err();
    assert_eq!(problems.len(), 5, "{problems:#?}");
    for field in ["vocab_size:", "mlp_bias:", "quantization_config:", "hidden_size:", "rope_parameters.rope_type:"] {
        assert!(problems.iter().any(|problem| problem.starts_with(field)), "{field} not in {problems:#?}");
    }
}

#[test]
fn sizes_that_contradict_each_other_are_refused() {
    let text = LLAMA_5.replace(r#""num_key_value_heads": 2"#, r#""num_key_value_heads": 3"#);
    assert!(Config::from_json(&text).unwrap_err()[0].starts_with("num_key_value_heads:"));
    let text = LLAMA_5.replace(r#""eos_token_id": 2"#, r#""eos_token_id": 320"#);
    assert!(Config::from_json(&text).unwrap_err()[0].starts_with("eos_token_id:"));
    let text = LLAMA_5.replace(r#""use_cache": true"#, r#""rope_theta": 1.0"#);
    assert!(Config::from_json(&text).unwrap_err()[0].starts_with("rope_theta:"));
}

#[test]
fn another_architecture_is_named() {
    let problems = Config::from_json(r#"{"model_type": "mamba"}"#).unwrap_err();
    assert!(problems[0].contains("mamba") && problems[0].contains("llama"), "{problems:?}");
    assert!(Config::from_json("[]").is_err() && Config::from_json("{").is_err());
}
