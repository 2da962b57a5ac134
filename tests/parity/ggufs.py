"""GGUF files as llama.cpp's own Python package writes them: bit-equal weights after `convert`, and the same logits."""

import json
import math

import gguf
import numpy
import safetensors.torch
import torch
import transformers

import configs
import families
import peer

KINDS = gguf.GGMLQuantizationType
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def cases():
    def sizes(width, heads, groups, **more):
        rest = {"hidden_size": width, "intermediate_size": 2 * width, "vocab_size": 96, "head_dim": width // heads}
        return configs.llama_like(heads, groups, **rest | {"max_position_embeddings": 128} | more)

    llama, qwen2, qwen3 = transformers.LlamaConfig, transformers.Qwen2Config, transformers.Qwen3Config
    tied = {"tie_word_embeddings": True}
    yield "llama, F32", llama(**sizes(64, 4, 2)), KINDS.F32
    yield "llama, F16, tied, biases", llama(**sizes(32, 2, 1, attention_bias=True, mlp_bias=True, **tied)), KINDS.F16
    yield "llama, BF16, yarn", llama(**sizes(64, 8, 4, **configs.rope("yarn", factor=4.0, original_max_position_embeddings=32))), KINDS.BF16
    yield "llama, Q8_0, linear rope", llama(**sizes(96, 3, 3, **configs.rope("linear", factor=2.0))), KINDS.Q8_0
    yield "llama, Q4_0, llama3 rope", llama(**sizes(128, 2, 2, **configs.rope("llama3", 500000.0, **LLAMA3))), KINDS.Q4_0
    yield "llama, Q4_1, tied", llama(**sizes(64, 2, 1, **tied)), KINDS.Q4_1
    yield "llama, Q4_K", llama(**sizes(256, 8, 2)), KINDS.Q4_K
    yield "llama, Q6_K", llama(**sizes(256, 4, 4)), KINDS.Q6_K
    yield "qwen2, Q4_0", qwen2(**sizes(64, 4, 2)), KINDS.Q4_0
    yield "qwen3, Q8_0, tied", qwen3(**sizes(64, 2, 2, **tied)), KINDS.Q8_0


def rows(only, directory, tidemill, seed):
    if only and "gguf" not in only:
        return []
    prepared, commands = [], []
    for number, (name, config, storage) in enumerate(cases()):
        place = directory / f"gguf-{number}"
        place.mkdir(parents=True)
        kind = getattr(transformers, {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}[config.model_type])
        model = peer.random_model(kind, config, seed + number)
        write(place / "model.gguf", model, storage, numpy.random.default_rng(seed + number))
        given = peer.inputs(config, config.model_type, {"length": 50}, seed)
        (place / "ids.json").write_text(json.dumps(given["input_ids"].tolist()))
        commands.append(["logits", place / "model.gguf", "--ids", place / "ids.json", "--output", place / "out.safetensors"])
        commands.append(["convert", place / "model.gguf", place / "converted"])
        prepared.append((name, model, place, given))
    tidemill(commands, "gguf")
    return [compare(*one) for one in prepared]


def write(path, model, storage, draw):
    """Writes the model, and gives it the weights that it has after storage."""
    config = model.config
    writer = gguf.GGUFWriter(path, config.model_type)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
        if original := rope.get("original_max_position_embeddings"):
            writer.add_rope_scaling_orig_ctx_len(original)
    if rope["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(rope, config.head_dim))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[config.model_type.upper()], config.num_hidden_layers)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = parameter.detach().numpy()
            heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
            interleaved = heads if config.model_type == "llama" else None
            if interleaved:
                values = values.reshape(heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
            raw, kind = stored(values, storage if values.ndim > 1 else KINDS.F32, draw)
            part, suffix = name.rsplit(".", 1)
            writer.add_tensor(f"{names.get_name(part)}.{suffix}", raw, raw_dtype=kind)
            values = gguf.quants.dequantize(raw, kind).reshape(values.shape)
            if interleaved:
                values = values.reshape(heads, -1, 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
            parameter.copy_(torch.from_numpy(values.copy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def stored(values, kind, draw):
    values = numpy.ascontiguousarray(values)
    if kind not in (KINDS.Q4_K, KINDS.Q6_K):
        return gguf.quants.quantize(values, kind), kind
    # The package reads these and does not write them: random blocks with scales that give small numbers.
    block, size = gguf.GGML_QUANT_SIZES[kind]
    raw = draw.integers(0, 256, (values.shape[0], values.shape[1] // block, size), dtype=numpy.uint8)
    scale = numpy.frombuffer(numpy.float16(4e-4 if kind == KINDS.Q4_K else 5e-5).tobytes(), numpy.uint8)
    for place in ((0, 2) if kind == KINDS.Q4_K else (208,)):
        raw[:, :, place : place + 2] = scale
    return raw.reshape(values.shape[0], -1), kind


def llama3_factors(rope, head_dim):
    """As llama.cpp's convert_hf_to_gguf.py has it."""
    low, high = (rope["original_max_position_embeddings"] / rope[key] for key in ("low_freq_factor", "high_freq_factor"))
    factors = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (i / head_dim)
        if wavelength < high:
            factors.append(1.0)
        elif wavelength > low:
            factors.append(rope["factor"])
        else:
            turns = rope["original_max_position_embeddings"] / wavelength
            smooth = (turns - rope["low_freq_factor"]) / (rope["high_freq_factor"] - rope["low_freq_factor"])
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return numpy.array(factors, numpy.float32)


def compare(name, model, place, given):
    row = {"family": "gguf", "name": name}
    if not (place / "out.safetensors").exists() or not (place / "converted").exists():
        return row | {"logits": False, "note": "`tidemill model` failed, see above"}
    with torch.no_grad():
        logits = model(given["input_ids"]).logits
    row["logits"] = families.error(safetensors.torch.load_file(place / "out.safetensors")["logits"], logits)
    ours = safetensors.torch.load_file(place / "converted" / "model.safetensors")
    theirs = dict(model.named_parameters())
    different = sorted(ours.keys() ^ theirs.keys()) or [n for n in ours if not torch.equal(ours[n], theirs[n])]
    row["converted"] = not different
    return row | {"note": f"tensors differ: {different[:4]}" if different else "weights bit-equal"}
