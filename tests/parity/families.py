"""Random tiny models of every family through `logits --gradients`, `generate` and `convert`."""

import json

import safetensors.torch
import transformers

import configs
import peer

# Below this share of a model's largest gradient a gradient is zero but for rounding, as those of the biases of BERT's keys are.
ROUNDING = 1e-6
LIMIT = 1e-4


def rows(only, directory, tidemill, seed):
    prepared = []
    cases = []
    for number, (family, name, config, kind, options) in enumerate(configs.all_cases(only)):
        place = directory / f"{family}-{number}"
        place.mkdir(parents=True)
        case = prepare(place, family, config, kind, options, seed + 100 * number)
        prepared.append((family, name, kind, options, place, case))
        cases += commands(place, options, case)
    if cases:
        tidemill(cases, "families")
    return [compare(*one) for one in prepared]


def prepare(place, family, config, kind, options, seed):
    """Writes the model and what goes in; gives what should come out."""
    model = peer.random_model(kind, config, seed)
    prompts = [] if family == "bert" else peer.prompts(config, seed)
    if prompts:
        peer.choose_end(model, prompts[0])
    peer.save(model, place / "model", options)
    if "dtype" in options:
        model = load(kind, place / "model")
    given = peer.inputs(config, family, options, seed)
    (place / "ids.json").write_text(json.dumps({name: tensor.tolist() for name, tensor in given.items()}))
    (place / "prompts.json").write_text(json.dumps(prompts))
    generated = {beams: [peer.generate(model, prompt, beams) for prompt in prompts] for beams in (1, peer.BEAMS)}
    return {"given": given, "outputs": peer.outputs(model, given), "generated": generated}


def commands(place, options, case):
    model, output = place / "model", ("--output", place / "out.safetensors")
    yield ["logits", model, "--ids", place / "ids.json", "--gradients", *output]
    if case["generated"][1]:
        for beams in case["generated"]:
            more = ("--max-new-tokens", peer.NEW_TOKENS, "--beams", beams, "--output", place / f"beams-{beams}.json")
            yield ["generate", model, "--ids", place / "prompts.json", *more]
    # What came in shards goes out as one file, and the other way around.
    shards = () if options.get("shards") else ("--shard-bytes", "15000")
    yield ["convert", model, place / "converted", *shards]


def load(kind, place):
    return kind.from_pretrained(place, dtype="float32", attn_implementation="eager").eval()


def largest(tensor):
    """The largest size of a tensor's numbers; infinite where one is no number, which must not pass as small."""
    return tensor.abs().nan_to_num(nan=float("inf")).max().item()


def error(ours, theirs, rounding=0.0):
    if ours.shape != theirs.shape:
        return float("inf")
    if max(largest(ours), largest(theirs)) <= rounding:
        return 0.0
    return largest(ours - theirs) / max(largest(theirs), 1e-30)


def compare(family, name, kind, options, place, case):
    row = {"family": family, "name": name}
    notes = []
    path = place / "out.safetensors"
    if not path.exists():
        return row | {"logits": False, "note": "`tidemill model logits` failed, see above"}
    ours, theirs = safetensors.torch.load_file(path), case["outputs"]
    mask = case["given"].get("attention_mask")
    kept = slice(None) if mask is None or family == "t5" else mask.bool()
    row["logits"] = error(ours["logits"][kept], theirs["logits"][kept])
    row["loss"] = error(ours["loss"], theirs["loss"])
    gradients = {name for name in theirs if name.startswith("grad.")}
    rounding = ROUNDING * max(largest(theirs[name]) for name in gradients)
    mine = {name for name in ours if name.startswith("grad.")}
    if gradients != mine:
        row["gradient"] = False
        notes.append(f"gradients missing {sorted(gradients - mine)[:3]}, too many {sorted(mine - gradients)[:3]}")
    else:
        errors = {name: error(ours[name], theirs[name], rounding) for name in gradients}
        worst = max(errors, key=errors.get)
        row["gradient"] = errors[worst]
        if errors[worst] > LIMIT:
            notes.append(worst)
    if case["generated"][1]:
        for beams, key in ((1, "greedy"), (peer.BEAMS, "beams")):
            found = place / f"beams-{beams}.json"
            ids = json.loads(found.read_text()) if found.exists() else "none"
            row[key] = ids == case["generated"][beams]
            if not row[key]:
                notes.append(f"{key}: ours {ids}, theirs {case['generated'][beams]}")
    row["converted"] = converted(kind, place, case)
    return row | {"note": "; ".join(notes)}


def converted(kind, place, case):
    """Whether transformers loads what Tidemill wrote, without complaints, and computes the same logits bit for bit."""
    if not (place / "converted").exists():
        return False
    model, info = kind.from_pretrained(
        place / "converted", dtype="float32", attn_implementation="eager", output_loading_info=True
    )
    if any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")):
        return False
    return bool((peer.outputs(model.eval(), case["given"])["logits"] == case["outputs"]["logits"]).all())


transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
