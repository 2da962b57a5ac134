mod memory;

use std::{fs, path::Path};

use tch::{Device, Kind, Tensor, no_grad};

use super::*;

pub(crate) fn llama(tied: bool) -> Config {
    member(LlamaMember::Llama, tied)
}

fn member(member: LlamaMember, tied: bool) -> Config {
    Config::Llama(LlamaConfig {
        member,
        vocab_size: 61,
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        max_position_embeddings: 64,
        rope: Rope::default(),
        rms_norm_eps: 1e-6,
        qkv_bias: member == LlamaMember::Qwen2,
        output_bias: false,
        mlp_bias: false,
        head_norms: member == LlamaMember::Qwen3,
        windows: if member == LlamaMember::Mistral { vec![Some(10); 2] } else { Vec::new() },
        tie_word_embeddings: tied,
        initializer_range: 0.2,
        bos_token_id: None,
        eos_token_id: Some(0),
    })
}

fn gpt2(bias: bool) -> Config {
    Config::Gpt2(Gpt2Config {
        vocab_size: 61,
        n_embd: 32,
        n_layer: 2,
        n_head: 4,
        n_positions: 64,
        n_inner: None,
        bias,
        activation_function: Activation::GeluNew,
        layer_norm_epsilon: 1e-5,
        initializer_range: 0.2,
        bos_token_id: None,
        eos_token_id: Some(0),
    })
}

fn bert(masked_lm: bool) -> Config {
    Config::Bert(BertConfig {
        vocab_size: 61,
        hidden_size: 30,
        num_hidden_layers: 2,
        num_attention_heads: 6,
        intermediate_size: 44,
        hidden_act: Activation::Gelu,
        max_position_embeddings: 64,
        type_vocab_size: 2,
        layer_norm_eps: 1e-12,
        initializer_range: 0.2,
        masked_lm,
        pooler: !masked_lm,
        pad_token_id: Some(0),
    })
}

pub(crate) fn t5(gated: bool) -> Config {
    Config::T5(T5Config {
        vocab_size: 61,
        d_model: 32,
        d_kv: 7,
        d_ff: 40,
        num_layers: 2,
        num_decoder_layers: 3,
        num_heads: 3,
        relative_attention_num_buckets: 8,
        relative_attention_max_distance: 20,
        layer_norm_epsilon: 1e-6,
        initializer_factor: 1.0,
        activation: if gated { Activation::GeluNew } else { Activation::Relu },
        gated,
        tied_head: !gated,
        scale_decoder_outputs: !gated,
        decoder_start_token_id: 0,
        eos_token_id: Some(1),
    })
}

/// Those that continue texts.
pub(crate) fn families() -> Vec<Config> {
    let members = [LlamaMember::Mistral, LlamaMember::Qwen2, LlamaMember::Qwen3].map(|kind| member(kind, true));
    [vec![llama(true), llama(false), gpt2(true), gpt2(false)], members.to_vec()].concat()
}

fn all_families() -> Vec<Config> {
    [families(), vec![bert(true), bert(false), t5(true), t5(false)]].concat()
}

fn tokens(count: i64) -> Tensor {
    (Tensor::arange(count, (Kind::Int64, Device::Cpu)) * 17 + 3).remainder(61).unsqueeze(0)
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

#[test]
fn decoding_with_a_cache_gives_the_logits_of_a_full_pass() {
    let _guard = tch::no_grad_guard();
    for config in families() {
        let model = Model::new(config, 1, Device::Cpu).unwrap();
        let ids = tokens(40);
        let full = model.forward(&ids, Attention::Full).unwrap();
        let mut cache = Cache::new(&model, 64).unwrap();
        // A prompt, a continuation of several tokens, then one token at a time.
        let mut parts = Vec::new();
        for (start, count) in [(0, 16), (16, 5)].into_iter().chain((21..40).map(|start| (start, 1))) {
            parts.push(model.forward(&ids.narrow(1, start, count), Attention::Cached(&mut cache)).unwrap());
        }
        let cached = Tensor::cat(&parts, 1);
        assert!(largest_difference(&full, &cached) < 1e-4, "{}", largest_difference(&full, &cached));
        assert_eq!(cache.length(), 40);
        // A shorter prefix is kept, the rest read again.
        cache.truncate(30);
        let again = model.next(&ids.narrow(1, 30, 10), Attention::Cached(&mut cache)).unwrap();
        assert!(largest_difference(&full.select(1, 39), &again) < 1e-4);
    }
}

#[test]
fn a_sequence_longer_than_the_context_or_the_cache_is_refused() {
    for config in families() {
        let model = Model::new(config, 1, Device::Cpu).unwrap();
        let error = model.forward(&tokens(65), Attention::Full).unwrap_err().to_string();
        assert_eq!(error, "65 tokens do not fit a context of 64");
        let mut cache = Cache::new(&model, 8).unwrap();
        assert!(model.forward(&tokens(9), Attention::Cached(&mut cache)).is_err());
        assert!(model.forward(&tokens(8), Attention::Cached(&mut cache)).is_ok());
        assert!(model.forward(&tokens(1), Attention::Cached(&mut cache)).is_err());
        let outside = Tensor::from_slice(&[61i64]).unsqueeze(0);
        assert!(model.forward(&outside, Attention::Full).is_err());
    }
}

#[test]
fn a_batch_is_learned_by_heart() {
    for config in families() {
        let model = Model::new(config, 3, Device::Cpu).unwrap();
        model.set_trainable(true).unwrap();
        let parameters: Vec<Tensor> = model.parameters().iter().map(|p| p.tensor.shallow_clone()).collect();
        let (ids, targets) = (tokens(33).narrow(1, 0, 32), tokens(33).narrow(1, 1, 32));
        let (mut first, mut last) = (None, 0.0);
        for _ in 0..60 {
            let loss = model.loss_sum(&ids, &targets, Attention::Full, 0.0).unwrap() / 32.0;
            loss.backward();
            let gradients = tidemill_torch::gradients::take(&parameters).unwrap();
            no_grad(|| {
                for (parameter, gradient) in parameters.iter().zip(&gradients) {
                    let _ = parameter.shallow_clone().subtract_(&(gradient.sign() * 0.01));
                }
            });
            last = loss.double_value(&[]);
            first.get_or_insert(last);
        }
        assert!(last < 0.1 && first.unwrap() > 2.0, "{first:?} to {last}");
    }
}

#[test]
fn a_loss_is_the_mean_of_its_parts_and_skips_ignored_targets() {
    let model = Model::new(llama(true), 1, Device::Cpu).unwrap();
    let (ids, targets) = (tokens(33).narrow(1, 0, 32), tokens(33).narrow(1, 1, 32));
    let logits = model.forward(&ids, Attention::Full).unwrap();
    let expected = logits.squeeze_dim(0).log_softmax(-1, Kind::Float).gather(1, &targets.view([32, 1]), false);
    let expected = -expected.sum(Kind::Float).double_value(&[]);
    let loss = model.loss_sum(&ids, &targets, Attention::Full, 0.0).unwrap().double_value(&[]);
    assert!((loss - expected).abs() < 1e-3, "{loss} against {expected}");
    let masked = targets.copy();
    let _ = masked.narrow(1, 1, 31).fill_(IGNORED);
    let first = model.loss_sum(&ids, &masked, Attention::Full, 0.0).unwrap().double_value(&[]);
    assert!(first > 0.0 && first < expected / 4.0);
}

#[test]
fn a_directory_read_and_written_again_is_equal_byte_by_byte() {
    for config in all_families() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let model = Model::new(config.clone(), 5, Device::Cpu).unwrap();
        save(&model, first.path()).unwrap();
        let loaded = load(first.path(), Device::Cpu).unwrap();
        assert_eq!(loaded.config(), &config);
        save(&loaded, second.path()).unwrap();
        for file in [CONFIG_FILE, WEIGHTS_FILE] {
            let read = |directory: &Path| fs::read(directory.join(file)).unwrap();
            assert_eq!(read(first.path()), read(second.path()), "{file}");
        }
        let ids = tokens(20);
        let outputs = |model: &Model| match config {
            Config::T5(_) => model.forward_pair(&ids, &ids).unwrap(),
            _ => model.states(&ids, Attention::Full).unwrap(),
        };
        assert_eq!(largest_difference(&outputs(&model), &outputs(&loaded)), 0.0);
        // In shards of one tensor or a few it is the same.
        let third = tempfile::tempdir().unwrap();
        save_sharded(&model, third.path(), 9_000).unwrap();
        assert!(third.path().join(INDEX_FILE).exists() && !third.path().join(WEIGHTS_FILE).exists());
        assert_eq!(largest_difference(&outputs(&model), &outputs(&load(third.path(), Device::Cpu).unwrap())), 0.0);
    }
}

#[test]
fn documents_in_one_row_are_what_they_are_alone() {
    let _guard = tch::no_grad_guard();
    let lengths = [16, 1, 23, 20];
    let documents = Documents::new(lengths.to_vec(), Device::Cpu).unwrap();
    for config in all_families() {
        let model = Model::new(config, 1, Device::Cpu).unwrap();
        let ids = tokens(60);
        let mut start = 0;
        let alone: Vec<Tensor> = lengths
            .iter()
            .map(|length| {
                let ids = ids.narrow(1, start, *length);
                start += length;
                match model.config() {
                    Config::T5(_) => model.forward_pair(&ids, &ids).unwrap(),
                    _ => model.states(&ids, Attention::Full).unwrap(),
                }
            })
            .collect();
        let together = match model.config() {
            Config::T5(_) => {
                let states = model.encode(&ids, Attention::Documents(&documents)).unwrap();
                let (own, source) = (Attention::Documents(&documents), Attention::Documents(&documents));
                model.decode(&ids, own, &states, source).unwrap()
            }
            _ => model.states(&ids, Attention::Documents(&documents)).unwrap(),
        };
        assert!(largest_difference(&Tensor::cat(&alone, 1), &together) < 1e-4, "{}", model.config().model_type());
    }
    let model = Model::new(llama(true), 1, Device::Cpu).unwrap();
    let error = model.forward(&tokens(59), Attention::Documents(&documents)).unwrap_err().to_string();
    assert_eq!(error, "documents of 60 tokens need one row of as many, got 1 rows of 59");
}

#[test]
fn an_adapter_begins_as_nothing_learns_and_merges() {
    for (config, use_dora) in all_families().into_iter().flat_map(|config| [(config.clone(), false), (config, true)]) {
        let kind = config.model_type();
        let mut model = Model::new(config, 3, Device::Cpu).unwrap();
        let outputs = |model: &Model| match model.config() {
            Config::T5(_) => model.forward_pair(&tokens(32), &tokens(32)).unwrap(),
            Config::Bert(bert) if bert.masked_lm => model.forward(&tokens(32), Attention::Full).unwrap(),
            _ => model.states(&tokens(32), Attention::Full).unwrap(),
        };
        let before = tch::no_grad(|| outputs(&model));
        let lora =
            LoraConfig { r: 3, alpha: 6.0, dropout: 0.0, target_modules: Vec::new(), use_rslora: use_dora, use_dora };
        model.attach_adapter(&lora, 5).unwrap();
        assert!(largest_difference(&before, &tch::no_grad(|| outputs(&model))) < 1e-5, "{kind}");
        model.set_trainable(true).unwrap();
        outputs(&model).square().sum(Kind::Float).backward();
        let gradients = model.disk_gradients().unwrap();
        assert!(gradients.len() == model.parameters().len(), "{kind}");
        // B is zero, so A learns nothing in the first step, and B does.
        let learned = |part: &str| {
            gradients.iter().filter(|(name, _)| name.contains(part)).all(|(_, g)| g.abs().max().double_value(&[]) > 0.0)
        };
        assert!(learned("lora_B") && !learned("lora_A"), "{kind}");
        tch::no_grad(|| {
            for parameter in model.parameters() {
                let _ = parameter.tensor.shallow_clone().f_add_(&(parameter.tensor.ones_like() * 0.01)).unwrap();
            }
        });
        model.set_trainable(false).unwrap();
        let adapted = outputs(&model);
        assert!(largest_difference(&before, &adapted) > 1e-3, "{kind}");
        assert_eq!(largest_difference(&before, &model.without_adapter(|| outputs(&model))), 0.0, "{kind}");
        // On disk and back.
        let (base, adapter) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        save(&model, base.path()).unwrap();
        save_adapter(&mut model, adapter.path(), "base").unwrap();
        let loaded = load_adapted(base.path(), adapter.path(), Device::Cpu).unwrap();
        assert_eq!(largest_difference(&adapted, &outputs(&loaded)), 0.0, "{kind}");
        model.merge_adapter().unwrap();
        assert!(largest_difference(&adapted, &outputs(&model)) < 1e-4, "{kind}");
    }
}

#[test]
fn an_adapter_for_another_model_is_refused_with_every_reason() {
    let mut model = Model::new(llama(true), 3, Device::Cpu).unwrap();
    let mut lora = LoraConfig {
        r: 3,
        alpha: 6.0,
        dropout: 0.0,
        target_modules: vec!["c_attn".to_owned()],
        use_rslora: false,
        use_dora: false,
    };
    let error = model.attach_adapter(&lora, 5).unwrap_err().to_string();
    assert!(error.contains("c_attn") && error.contains("q_proj"), "{error}");
    lora.target_modules = vec!["q_proj".to_owned()];
    let mut model = Model::new(llama(true), 3, Device::Cpu).unwrap();
    model.attach_adapter(&lora, 5).unwrap();
    let (base, adapter) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    save(&Model::new(gpt2(true), 3, Device::Cpu).unwrap(), base.path()).unwrap();
    save_adapter(&mut model, adapter.path(), "base").unwrap();
    let error = load_adapted(base.path(), adapter.path(), Device::Cpu).unwrap_err().to_string();
    assert!(error.contains(ADAPTER_WEIGHTS_FILE) && error.contains("q_proj"), "{error}");
}

#[test]
fn beams_are_never_worse_than_the_likeliest_tokens() {
    for config in families() {
        let model = Model::new(config, 7, Device::Cpu).unwrap();
        let prompt = [3i64, 20, 37];
        let greedy = generate::greedy(&model, &prompt, 6, &[]).unwrap();
        assert_eq!(generate::beam_search(&model, &prompt, 6, &[], 1).unwrap(), greedy);
        let score = |tokens: &[i64]| {
            let ids = Tensor::from_slice(&[&prompt[..], tokens].concat()).unsqueeze(0);
            let targets = Tensor::full([1, 8], IGNORED, (Kind::Int64, Device::Cpu));
            targets.narrow(1, 2, 6).copy_(&ids.narrow(1, 3, 6));
            model.loss_sum(&ids.narrow(1, 0, 8), &targets, Attention::Full, 0.0).unwrap().double_value(&[])
        };
        let best = generate::beam_search(&model, &prompt, 6, &[], 4).unwrap();
        assert!(score(&best) <= score(&greedy) + 1e-4);
    }
}

#[test]
fn integers_are_no_weights() {
    let directory = tempfile::tempdir().unwrap();
    let model = Model::new(llama(true), 5, Device::Cpu).unwrap();
    save(&model, directory.path()).unwrap();
    let mut tensors = model.disk_tensors().unwrap();
    tensors[0].1 = tensors[0].1.to_kind(Kind::Uint8);
    write_tensors(&directory.path().join(WEIGHTS_FILE), &tensors).unwrap();
    let error = load(directory.path(), Device::Cpu).unwrap_err().to_string();
    assert!(error.contains(&tensors[0].0) && error.contains("not a weight"), "{error}");
}

#[test]
fn a_weights_file_that_does_not_fit_lists_every_problem() {
    let directory = tempfile::tempdir().unwrap();
    let model = Model::new(llama(true), 5, Device::Cpu).unwrap();
    save(&model, directory.path()).unwrap();
    let mut tensors = model.disk_tensors().unwrap();
    tensors.retain(|(name, _)| name != "model.norm.weight");
    tensors.push(("model.layers.9.mlp.up_proj.weight".to_owned(), Tensor::zeros([2], (Kind::Float, Device::Cpu))));
    for (name, tensor) in &mut tensors {
        if name == "model.layers.1.self_attn.k_proj.weight" {
            *tensor = Tensor::zeros([3, 32], (Kind::Float, Device::Cpu));
        }
    }
    write_tensors(&directory.path().join(WEIGHTS_FILE), &tensors).unwrap();
    let error = load(directory.path(), Device::Cpu).unwrap_err().to_string();
    for part in [
        "model.safetensors",
        "tensor model.norm.weight is missing",
        "tensor model.layers.1.self_attn.k_proj.weight has shape [3, 32]",
        "tensor model.layers.9.mlp.up_proj.weight is not part",
    ] {
        assert!(error.contains(part), "{part:?} not in {error}");
    }
}

#[test]
fn a_weights_file_that_is_broken_anywhere_is_an_error_and_never_a_panic() {
    let directory = tempfile::tempdir().unwrap();
    save(&Model::new(llama(true), 5, Device::Cpu).unwrap(), directory.path()).unwrap();
    let path = directory.path().join(WEIGHTS_FILE);
    let whole = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for cut in [0, 1, 7, 8, 20, header - 1, header, header + 1, whole.len() - 1] {
        fs::write(&path, &whole[..cut]).unwrap();
        let error = load(directory.path(), Device::Cpu).unwrap_err().to_string();
        assert!(error.contains(WEIGHTS_FILE), "{error}");
    }
    for place in (0..header).step_by(3) {
        let mut broken = whole.clone();
        broken[place] ^= 0x55;
        fs::write(&path, &broken).unwrap();
        // Most flips are errors; those inside the free text of the header may be harmless.
        let _ = load(directory.path(), Device::Cpu);
    }
    fs::remove_file(&path).unwrap();
    assert!(load(directory.path(), Device::Cpu).unwrap_err().to_string().contains(WEIGHTS_FILE));
}
