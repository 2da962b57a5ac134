"""The reference: transformers in float32, eager attention."""

import json

import torch

ROWS, NEW_TOKENS, BEAMS = 3, 14, 4
IGNORED = -100


def random_model(kind, config, seed):
    """A model whose biases and norms matter too: transformers begins with zeros and ones there."""
    torch.manual_seed(seed)
    config._attn_implementation = "eager"
    model = kind(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.2 * torch.randn(parameter.shape)
    return model


def save(model, directory, options):
    """As save_pretrained writes it, or as transformers 4 did."""
    size = {"max_shard_size": "15KB"} if options.get("shards") else {}
    stored = model.to(getattr(torch, options["dtype"])) if "dtype" in options else model
    stored.save_pretrained(directory, **size)
    model.float()
    if options.get("shards"):
        assert (directory / "model.safetensors.index.json").exists(), "the case needs several files"
    if options.get("v4"):
        path = directory / "config.json"
        config = json.loads(path.read_text())
        config["torch_dtype"] = config.pop("dtype")
        config["transformers_version"] = "4.44.0"
        if rope := config.pop("rope_parameters", None):
            config["rope_theta"] = rope.pop("rope_theta")
            # The oldest files say `type`.
            kind = rope.pop("rope_type")
            name = "type" if kind == "linear" else "rope_type"
            config["rope_scaling"] = None if kind == "default" else {name: kind} | rope
        path.write_text(json.dumps(config, indent=2))


def inputs(config, family, options, seed):
    """ids.json for `tidemill model logits`, with labels of which some do not count."""
    draw = torch.Generator().manual_seed(seed)
    length = options.get("length", 13)

    def ids(columns):
        return torch.randint(3, config.vocab_size, (ROWS, columns), generator=draw)

    given = {"input_ids": ids(length)}
    labels = ids(9) if family == "t5" else ids(length) if family == "bert" else given["input_ids"].clone()
    labels[torch.rand(labels.shape, generator=draw) < (0.6 if family == "bert" else 0.2)] = IGNORED
    labels[0, -1] = 5
    if options.get("mask"):
        mask = torch.ones(ROWS, length, dtype=torch.long)
        for row in range(1, ROWS):
            mask[row, length - 3 * row :] = 0
        given["attention_mask"] = mask
        given["input_ids"][mask == 0] = 0
        if family != "t5":
            labels[mask == 0] = IGNORED
    if family == "t5":
        labels[1, 6:] = IGNORED
    return given | {"labels": labels}


def outputs(model, given):
    """Logits, loss and gradients under the names that Tidemill gives them; padding's logits are left out."""
    model.zero_grad()
    out = model(**given)
    out.loss.backward()
    logits = out.logits.detach()
    tensors = {"logits": logits, "loss": out.loss.detach()}
    tensors |= {f"grad.{name}": p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return tensors


def prompts(config, seed):
    draw = torch.Generator().manual_seed(seed + 1)
    return [torch.randint(3, config.vocab_size, (length,), generator=draw).tolist() for length in (3, 8)]


def generate(model, prompt, beams):
    # transformers' cache has as many layers as T5's encoder, which is too few for a deeper decoder.
    cache = not model.config.is_encoder_decoder
    more = {"num_beams": beams, "max_new_tokens": NEW_TOKENS, "do_sample": False, "use_cache": cache}
    ids = torch.tensor([prompt])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), **more)[0].tolist()
    return out[1:] if model.config.is_encoder_decoder else out[len(prompt) :]


def choose_end(model, prompt):
    """Makes a token that the model does write the end of a text, so that ends are met."""
    model.generation_config.eos_token_id = None
    end = generate(model, prompt, 1)[NEW_TOKENS // 2]
    model.config.eos_token_id = model.generation_config.eos_token_id = end
    model.generation_config.pad_token_id = 0
