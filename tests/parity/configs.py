"""Random tiny configurations of every family: what each has of its own is in at least one of them.

A case is (name, configuration, class of the model, options). Options:
  v4       config.json as transformers 4 wrote it
  shards   several weights files
  dtype    how the weights are stored
  mask     rows are padded, with an attention mask
  length   tokens of a row (default 13)
"""

import transformers as t


COMMON = {"vocab_size": 67, "initializer_range": 0.2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def llama_like(heads, groups, head_dim, **more):
    sizes = {"num_attention_heads": heads, "num_key_value_heads": heads // groups, "head_dim": head_dim}
    rest = {"hidden_size": 24, "intermediate_size": 37, "num_hidden_layers": 2, "max_position_embeddings": 64}
    return COMMON | rest | sizes | more


def rope(kind, theta=10000.0, **more):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **more}}


def gpt2():
    def config(width, heads, **more):
        return t.GPT2Config(**COMMON | {"n_embd": width, "n_head": heads, "n_layer": 2, "n_positions": 32} | more)

    yield "heads of 5", config(15, 3), {}
    yield "heads of 7, erf gelu", config(28, 4, activation_function="gelu"), {"shards": True}
    yield "one head of 24, 3 layers", config(24, 1, n_layer=3), {"v4": True}
    yield "inner width 33", config(20, 2, n_inner=33), {"dtype": "bfloat16"}
    yield "epsilon 1e-3", config(18, 6, layer_norm_epsilon=1e-3), {"length": 32}
    yield "padded", config(24, 4, n_layer=1), {"mask": True}


def llama():
    def config(*sizes, **more):
        return t.LlamaConfig(**llama_like(*sizes, **more))

    yield "2: heads of 6, no groups, untied", config(4, 1, 6), {}
    yield "groups of 2, tied, biases", config(4, 2, 10, attention_bias=True, mlp_bias=True, tie_word_embeddings=True), {"shards": True}
    yield "groups of 3, v4 layout", config(3, 3, 8, rms_norm_eps=1e-5, **rope("default", 500000.0)), {"v4": True}
    llama3 = rope("llama3", 500.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
    yield "3: llama3 rope, groups of 4", config(8, 4, 12, **llama3), {"length": 41}
    yield "3: llama3 rope, v4 layout", config(4, 2, 20, tie_word_embeddings=True, **llama3), {"length": 41, "v4": True}
    yield "linear rope", config(4, 4, 6, **rope("linear", factor=4.0)), {"length": 29}
    yield "linear rope, v4 layout", config(2, 1, 12, **rope("linear", factor=2.5)), {"length": 29, "v4": True}
    yarn = rope("yarn", factor=4.0, original_max_position_embeddings=16)
    yield "yarn rope, groups of 8", config(8, 8, 20, **yarn), {"length": 47}
    more = rope("yarn", factor=2.0, original_max_position_embeddings=32, beta_fast=16.0, beta_slow=2.0, attention_factor=1.1)
    yield "yarn rope with its factors, v4 layout", config(4, 2, 32, **more), {"length": 47, "v4": True}
    yield "float16 weights, padded", config(6, 2, 4), {"dtype": "float16", "mask": True}


def mistral():
    def config(*sizes, **more):
        return t.MistralConfig(**llama_like(*sizes, **more))

    yield "window of 4", config(4, 2, 6, sliding_window=4), {}
    yield "window of 2", config(3, 3, 10, sliding_window=2), {}
    yield "window as long as the text", config(4, 1, 12, sliding_window=13), {"v4": True}
    yield "window of 7, tied", config(8, 4, 20, sliding_window=7, tie_word_embeddings=True), {"length": 21}
    yield "no window", config(8, 8, 6, sliding_window=None), {"shards": True}
    yield "window of 5, yarn", config(4, 2, 12, sliding_window=5, **rope("yarn", factor=4.0, original_max_position_embeddings=16)), {"length": 40}
    yield "window of 3, padded", config(2, 2, 8, sliding_window=3), {"mask": True}


def qwen2():
    def config(*sizes, **more):
        head_dim = sizes[2]
        return t.Qwen2Config(**llama_like(*sizes, **more) | {"hidden_size": sizes[0] * head_dim})

    yield "groups of 2", config(4, 2, 6), {}
    yield "tied, no groups", config(3, 1, 10, tie_word_embeddings=True), {"shards": True}
    yield "v4 layout", config(4, 4, 12, **rope("default", 1e6)), {"v4": True}
    window = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1, "num_hidden_layers": 3}
    yield "window of 4 in the later layers", config(6, 3, 8, **window), {}
    yield "yarn", config(8, 8, 6, **rope("yarn", factor=4.0, original_max_position_embeddings=16)), {"length": 41}
    yield "bfloat16 weights, padded", config(2, 1, 20), {"dtype": "bfloat16", "mask": True}


def qwen3():
    def config(*sizes, **more):
        return t.Qwen3Config(**llama_like(*sizes, **more))

    yield "heads of 10, groups of 2", config(4, 2, 10), {}
    yield "tied, groups of 8", config(8, 8, 6, tie_word_embeddings=True), {"v4": True}
    yield "heads wider than the model", config(3, 3, 20), {"shards": True}
    yield "biases", config(4, 1, 12, attention_bias=True), {}
    yield "yarn", config(8, 4, 16, **rope("yarn", 1e6, factor=4.0, original_max_position_embeddings=16)), {"length": 41, "v4": True}
    window = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 0}
    yield "window of 5 in all layers", config(4, 2, 8, **window), {"length": 17}
    yield "padded", config(2, 2, 6), {"mask": True}


def bert():
    def config(width, heads, **more):
        rest = {"num_hidden_layers": 2, "intermediate_size": 41, "max_position_embeddings": 40}
        return t.BertConfig(**COMMON | {"hidden_size": width, "num_attention_heads": heads} | rest | more)

    yield "heads of 5", config(15, 3), {}
    yield "heads of 7, padded", config(28, 4), {"mask": True}
    yield "relu, v4 layout", config(24, 2, hidden_act="relu"), {"v4": True}
    yield "tanh gelu, one layer", config(20, 4, hidden_act="gelu_new", num_hidden_layers=1), {"shards": True}
    yield "epsilon 1e-3, float16 weights", config(18, 6, layer_norm_eps=1e-3), {"dtype": "float16"}
    yield "one type, long", config(24, 1, type_vocab_size=1, num_hidden_layers=3), {"length": 40, "mask": True}


def t5():
    def config(d_kv, heads, **more):
        rest = {"vocab_size": 67, "d_model": 24, "d_ff": 35, "num_layers": 2, "initializer_factor": 1.0, "dropout_rate": 0.0}
        tokens = {"decoder_start_token_id": 0, "eos_token_id": 2, "pad_token_id": 0}
        return t.T5Config(**rest | tokens | {"d_kv": d_kv, "num_heads": heads} | more)

    yield "1.0: relu, tied, heads of 5", config(5, 4), {}
    yield "1.1: gated gelu, untied", config(6, 4, feed_forward_proj="gated-gelu", tie_word_embeddings=False), {"shards": True}
    yield "heads of 7, 3 decoder layers, padded", config(7, 3, num_decoder_layers=3), {"mask": True}
    yield "8 buckets up to 20", config(8, 2, relative_attention_num_buckets=8, relative_attention_max_distance=20), {"length": 37}
    yield "gated silu, v4 layout", config(12, 1, feed_forward_proj="gated-silu", tie_word_embeddings=False), {"v4": True}
    yield "bfloat16 weights, padded", config(10, 6, layer_norm_epsilon=1e-5), {"dtype": "bfloat16", "mask": True}


FAMILIES = {
    "gpt2": (gpt2, t.GPT2LMHeadModel),
    "llama": (llama, t.LlamaForCausalLM),
    "mistral": (mistral, t.MistralForCausalLM),
    "qwen2": (qwen2, t.Qwen2ForCausalLM),
    "qwen3": (qwen3, t.Qwen3ForCausalLM),
    "bert": (bert, t.BertForMaskedLM),
    "t5": (t5, t.T5ForConditionalGeneration),
}


def all_cases(only):
    for family, (configs, kind) in FAMILIES.items():
        if not only or family in only:
            for name, config, options in configs():
                yield family, name, config, kind, options
