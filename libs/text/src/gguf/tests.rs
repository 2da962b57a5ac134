use super::*;

/// Every byte, some merges, a special token, and one that users defined.
fn vocabulary(pre: &str) -> GgufVocabulary {
    let trained = Tokenizer::train_bpe(["one two 1234 don't, it's 12"], 270, &["<|end|>"]).unwrap();
    let file: Value = serde_json::from_slice(trained.json()).unwrap();
    let mut tokens = vec![String::new(); trained.vocabulary_size()];
    for (token, id) in file["model"]["vocab"].as_object().unwrap() {
        tokens[id.as_u64().unwrap() as usize] = token.clone();
    }
    tokens[trained.token_id("<|end|>").unwrap() as usize] = "<|end|>".to_owned();
    let pairs = file["model"]["merges"].as_array().unwrap().iter();
    let merges = pairs.map(|pair| format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap())).collect();
    let end = tokens.iter().position(|token| token == "<|end|>").unwrap() as i64;
    tokens.push("<tag>".to_owned());
    let types = tokens.iter().map(|token| match token.as_str() {
        "<|end|>" => 3,
        "<tag>" => 4,
        _ => 1,
    });
    let types = types.collect();
    GgufVocabulary {
        model: "gpt2".to_owned(),
        pre: Some(pre.to_owned()),
        types,
        merges,
        tokens,
        begin: Some(end),
        end: Some(end),
        chat_template: Some("{{ messages[0]['content'] }}".to_owned()),
        ..GgufVocabulary::default()
    }
}

fn pieces(pre: &str, text: &str) -> Vec<String> {
    let tokenizer = vocabulary(pre).tokenizer().unwrap();
    tokenizer.encode(text).unwrap().iter().map(|id| tokenizer.token(*id).unwrap()).collect()
}

#[test]
fn each_pre_tokenizer_splits_in_its_own_way() {
    let trained = pieces("gpt-2", "1234");
    assert!(trained.len() < 4, "the merges of the test join digits: {trained:?}");
    assert_eq!(pieces("smollm", "1234"), ["1", "2", "3", "4"]);
    assert_eq!(pieces("qwen2", "1234"), ["1", "2", "3", "4"]);
    assert_ne!(pieces("llama-bpe", "1234"), pieces("qwen2", "1234"));
    for pre in ["gpt-2", "smollm", "llama-bpe", "qwen2"] {
        let tokenizer = vocabulary(pre).tokenizer().unwrap();
        for text in ["one two don't\n\n  it's 12 naïve 日本 \u{1F600}", " ", "\r\n\t"] {
            assert_eq!(tokenizer.decode(&tokenizer.encode(text).unwrap()).unwrap(), text, "{pre}");
        }
    }
}

#[test]
fn special_and_added_tokens_are_single() {
    let tokenizer = vocabulary("smollm").tokenizer().unwrap();
    let ids = tokenizer.encode_template("a<|end|>b<tag>").unwrap();
    let (end, tag) = (tokenizer.token_id("<|end|>").unwrap(), tokenizer.token_id("<tag>").unwrap());
    assert_eq!((ids[1], ids[3], ids.len()), (end, tag, 4));
    assert!(tokenizer.is_special(end) && !tokenizer.is_special(tag));
}

#[test]
fn the_config_names_tokens_and_template() {
    let mut vocabulary = vocabulary("smollm");
    let config: Value = serde_json::from_slice(&vocabulary.config(99).unwrap()).unwrap();
    assert_eq!(config["eos_token"], "<|end|>");
    assert_eq!(config["pad_token"], Value::Null);
    assert_eq!(config["model_max_length"], 99);
    assert_eq!(config["chat_template"], "{{ messages[0]['content'] }}");
    assert!(vocabulary.template().unwrap().is_some());
    vocabulary.padding = Some(9999);
    assert!(vocabulary.config(99).unwrap_err().to_string().contains("padding_token_id: 9999 is not one of"));
}

#[test]
fn the_begin_token_is_put_where_the_file_or_the_scheme_says() {
    let processor = |vocabulary: &GgufVocabulary| {
        let file: Value = serde_json::from_slice(vocabulary.tokenizer().unwrap().json()).unwrap();
        file["post_processor"].clone()
    };
    let mut vocabulary = vocabulary("llama-bpe");
    let single = &processor(&vocabulary)["processors"][1]["single"];
    assert_eq!(single[0]["SpecialToken"]["id"], "<|end|>");
    assert_eq!(single[1]["Sequence"]["id"], "A");
    vocabulary.add_begin = Some(false);
    assert_eq!(processor(&vocabulary)["type"], "ByteLevel");
}

#[test]
fn what_cannot_be_a_tokenizer_is_said() {
    let error = |change: fn(&mut GgufVocabulary)| {
        let mut vocabulary = vocabulary("smollm");
        change(&mut vocabulary);
        vocabulary.tokenizer().unwrap_err().to_string()
    };
    assert!(error(|v| v.model = "llama".into()).contains("tokenizer.ggml.model: \"llama\": only gpt2"));
    assert!(
        error(|v| v.pre = Some("tekken".into())).contains("tokenizer.ggml.pre: \"tekken\" is not known; gpt-2, smollm")
    );
    assert!(error(|v| v.pre = None).contains("tokenizer.ggml.pre: missing"));
    assert!(error(|v| v.types.truncate(3)).contains("tokenizer.ggml.token_type: 3 types for"));
    assert!(error(|v| v.tokens[5] = v.tokens[4].clone()).contains("is both token 4 and token 5"));
    assert!(error(|v| v.merges[0] = "ab".into()).contains("merge 0, \"ab\", is not a pair"));
    assert!(error(|v| v.merges[0] = "unknown words".into()).contains("tokenizer.json cannot be used"));
}
