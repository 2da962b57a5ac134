"""Layers in float8 against torchao: the bytes of one layer, and a model that learns with them as transformers' Phi3, which is a Llama whose
queries, keys and values are one matrix, and gates and ups another, as they are on our side; what is one matrix has one scale.

torchao gets what our CPU gives its own layers: bfloat16 in and out, and all between the layers in float32. Products outside torchao's
layers, those of the head and of adapters, are PyTorch's in bfloat16."""

import subprocess

import torch

# Largest error of a step's loss and of its gradients' norm, each from the same weights. One number that is rounded the other way to eight
# bits moves the former by 1e-4 and the latter by up to 6e-3: so much torchao differs from itself where weights differ in their last bit.
# In bfloat16 it is 1e-5 and 4e-4.
BOUNDS = {"fp8": (2e-4, 1e-2), "bfloat16": (5e-5, 2e-3)}
# (tokens, inputs, outputs, bias, size of the numbers)
SHAPES = [(32, 48, 96, False, 1.0), (64, 256, 16, True, 1.0), (7, 16, 32, True, 1e-4), (33, 96, 48, False, 300.0), (1, 16, 16, True, 0.0)]


def converted(model):
    """The model with its layers in float8, but for its head."""
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    # The recipe "tensorwise" is the default. Tokens come in any number, and products want multiples of 16.
    config = Float8LinearConfig(pad_inner_dim=True)
    return convert_to_float8_training(model, config=config, module_filter_fn=lambda _, name: name != "lm_head")


def same_bytes(program, folder):
    """Whether outputs and gradients of single layers are torchao's, byte by byte: the names of those that are not."""
    import safetensors.torch

    generator = torch.Generator().manual_seed(9)
    given, theirs = {}, {}
    for number, (tokens, inputs, outputs, has_bias, size) in enumerate(SHAPES):
        layer = torch.nn.Linear(inputs, outputs, bias=has_bias)
        layer.weight.data = torch.randn(outputs, inputs, generator=generator) * 0.1
        x = (torch.randn(tokens, inputs, generator=generator) * size).bfloat16()
        gradient = (torch.randn(tokens, outputs, generator=generator) / max(size, 1.0)).bfloat16()
        given |= {f"{number}.x": x.float(), f"{number}.weight": layer.weight.data, f"{number}.gradient": gradient.float()}
        if has_bias:
            layer.bias.data = torch.randn(outputs, generator=generator) * size
            given[f"{number}.bias"] = layer.bias.data
        x.requires_grad_()
        layer = converted(torch.nn.Sequential(layer))[0]
        y = layer(x)
        y.backward(gradient)
        theirs |= {f"{number}.y": y.detach().float(), f"{number}.x": x.grad.float(), f"{number}.weight": layer.weight.grad}
        if has_bias:
            theirs[f"{number}.bias"] = layer.bias.grad
    safetensors.torch.save_file(given, folder / "in.safetensors")
    subprocess.run([program, folder / "in.safetensors", folder / "out.safetensors"], check=True)
    ours = safetensors.torch.load_file(folder / "out.safetensors")
    different = [f"fp8 {name}" for name, tensor in theirs.items() if not torch.equal(ours[name], tensor)]
    print(f"fp8: {len(SHAPES)} layers with their gradients, {len(different)} of {len(theirs)} tensors with other bytes than torchao's")
    return different


def joined(at):
    """Matrices of a Phi3's layer, and of which of a Llama's each is made."""
    return {f"{at}.self_attn.qkv_proj.weight": [f"{at}.self_attn.{part}_proj.weight" for part in "qkv"],
            f"{at}.mlp.gate_up_proj.weight": [f"{at}.mlp.{part}_proj.weight" for part in ("gate", "up")]}


def fused(llama):
    """A Llama as a Phi3."""
    from transformers import Phi3Config, Phi3ForCausalLM

    names = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
             "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id"]
    sizes = {name: getattr(llama.config, name) for name in names}
    rope = {"rope_type": "default", "rope_theta": llama.config.rope_parameters["rope_theta"], "partial_rotary_factor": 1.0}
    model = Phi3ForCausalLM(Phi3Config(**sizes, rope_parameters=rope, attn_implementation="eager",
                                       original_max_position_embeddings=sizes["max_position_embeddings"]))
    states = llama.state_dict()
    for layer in range(sizes["num_hidden_layers"]):
        for whole, parts in joined(f"model.layers.{layer}").items():
            states[whole] = torch.cat([states.pop(part) for part in parts])
    model.load_state_dict(states)
    return model.train()


def lower(model):
    """Puts bfloat16 around torchao's layers, and into those of PyTorch."""
    from torchao.float8.float8_linear import Float8Linear

    def product(module):
        return lambda x: torch.nn.functional.linear(x.bfloat16(), module.weight.bfloat16()).float()

    for module in model.modules():
        if isinstance(module, Float8Linear):
            module.register_forward_pre_hook(lambda _, inputs: (inputs[0].bfloat16(),))
            module.register_forward_hook(lambda _, inputs, out: out.float())
        elif type(module) is torch.nn.Linear:
            module.forward = product(module)


def laid(rows):
    """Rows end to end, as our side lays them: what transformers is given, and the targets."""
    lengths = [len(row["inputs"]) for row in rows]
    document = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(lengths))
    places = torch.cat([torch.arange(length) for length in lengths])
    seen = (document[:, None] == document[None]) & (places[:, None] >= places[None])
    mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    ids, targets = ([token for row in rows for token in row[part]] for part in ("inputs", "targets"))
    given = {"input_ids": torch.tensor([ids]), "position_ids": places[None], "attention_mask": mask[None, None]}
    return given, torch.tensor(targets)


class Peer:
    """The model of a folder, as it learns with torchao. `disturbed` changes its weights in their last bit, by that seed."""

    def __init__(self, case, base, rate, disturbed=0):
        from transformers import AutoModelForCausalLM

        self.base, self.llama = base, AutoModelForCausalLM.from_pretrained(base)
        model = fused(self.llama)
        if disturbed:
            generator = torch.Generator().manual_seed(disturbed)
            for parameter in model.parameters():
                parameter.data *= 1 + 2.0**-23 * torch.randint(-1, 2, parameter.shape, generator=generator)
        if case["precision"] == "fp8":
            model = converted(model)
        self.head, self.adapts = model.lm_head, "lora" in case
        if self.adapts:
            from peft import LoraConfig, get_peft_model

            torch.manual_seed(5)
            lora = LoraConfig(r=case["lora"]["r"], lora_alpha=case["lora"]["alpha"], lora_dropout=0.0,
                              target_modules=case["lora"]["target_modules"], task_type="CAUSAL_LM")
            model = get_peft_model(model, lora)
        lower(model)
        # What the losses of a step are divided by. As on our side the head's gradients are divided after its products in bfloat16,
        # which would round others if it was done before.
        self.weight = 1
        self.head.register_forward_pre_hook(lambda _, inputs: self.divided(inputs[0]))
        self.model, self.pieces = model, case.get("accumulation", 1)
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)

    def divided(self, states):
        if states.requires_grad:
            states.register_hook(lambda gradient: gradient / self.weight)

    def step(self, rows):
        """Learns from the rows of a step: its loss, and the norm of its gradients."""
        size = len(rows) // self.pieces
        batches = [laid(rows[at:at + size]) for at in range(0, len(rows), size)]
        self.weight = sum(int((targets != -100).sum()) for _, targets in batches)
        self.optimizer.zero_grad()
        total = 0.0
        for given, targets in batches:
            loss = torch.nn.functional.cross_entropy(self.model(**given, use_cache=False).logits[0], targets, reduction="sum")
            loss.backward()
            total += loss.item() / self.weight
        if self.head.weight.grad is not None:
            self.head.weight.grad /= self.weight
        norm = torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        return {"loss": total, "gradient_norm": float(norm)}

    def save(self, folder):
        """Writes its weights as they are: the model to start from, and the adapter where there is one."""
        if self.adapts:
            self.model.save_pretrained(folder)
            return self.base, folder
        states = {name: parameter.detach() for name, parameter in self.model.state_dict().items()}
        for layer in range(self.llama.config.num_hidden_layers):
            for whole, parts in joined(f"model.layers.{layer}").items():
                sizes = [self.llama.get_parameter(part).shape[0] for part in parts]
                states |= dict(zip(parts, states.pop(whole).split(sizes)))
        self.llama.load_state_dict(states)
        self.llama.save_pretrained(folder)
        return folder, None


def apart(ours, theirs, figure="loss"):
    """How far steps are from others, relative to these."""
    return [abs(a[figure] - b[figure]) / max(1.0, abs(b[figure])) for a, b in zip(ours, theirs)]


def root_mean_square(values):
    return (sum(value**2 for value in values) / len(values)) ** 0.5


def compared(case, rows, base, folder, steps, batch_size, rate, ours):
    """Both sides over the same steps; `ours(case, numbers of rows, base, adapter, steps)` gives our side's.

    Rounding to eight bits makes much of little: torchao's own losses go apart where its weights differ in the last bit. So each step is
    also taken by our side from the very weights that torchao has before it, where nothing has gone apart yet."""
    batches = [[(step * batch_size + number) % len(rows) for number in range(batch_size)] for step in range(steps)]

    def alone(disturbed):
        peer = Peer(case, base, rate, disturbed)
        return [peer.step([rows[number] for number in numbers]) for numbers in batches]

    peer, theirs, own, other = Peer(case, base, rate), [], [], []
    for step, numbers in enumerate(batches):
        begin = peer.save(folder / f"step-{step}")
        own += ours(case, numbers, *begin, 1)
        if step == 0:
            other = ours({**case, "precision": "bfloat16" if case["precision"] == "fp8" else "float32"}, numbers, *begin, 1)
            start = begin[1]
        theirs.append(peer.step([rows[number] for number in numbers]))
    errors, norms = apart(own, theirs), apart(own, theirs, "gradient_norm")
    free = ours(case, range(len(rows)), base, start, steps)
    row = {
        "losses": [step["loss"] for step in own], "peer_losses": [step["loss"] for step in theirs],
        "first_error": errors[0], "worst_error": max(errors), "norm_error": max(norms), "other_precision": apart(other, theirs)[0],
        "drift": root_mean_square(apart(free, theirs)),
        "peer_drift": max(root_mean_square(apart(alone(seed), theirs)) for seed in range(1, 5)),
    }
    loss, norm = BOUNDS[case["precision"]]
    holds = [row["worst_error"] <= loss, row["norm_error"] <= norm, row["drift"] <= 2 * row["peer_drift"],
             # Another format is told apart.
             row["other_precision"] > loss]
    return row, not all(holds)
