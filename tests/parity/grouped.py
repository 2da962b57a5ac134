"""GRPO against TRL: what our side drew is drawn again, so that TRL's GRPOTrainer judges and learns from the same answers."""

import re

GENERATIONS, LONGEST = 4, 24
# (pattern, weight): both happen to about half of the answers of a model that knows nothing.
RULES = [(r"w4[0-4]( |$)", 1.0), (r"^w([0-9]|[1-5][0-9])( |$)", -0.5)]


def method(case):
    """The method of our spec."""
    constants = {"numGenerations": GENERATIONS, "maxCompletionLength": LONGEST,
                 "loss": "LOSS_" + case.get("loss", "dapo").upper(),
                 "scaleRewards": "SCALE_REWARDS_" + case.get("scale", "group").upper(),
                 "rewards": [{"weight": weight, "regularExpression": {"pattern": pattern}} for pattern, weight in RULES]}
    for name, field in [("beta", "beta"), ("temperature", "temperature"), ("iterations", "numIterations")]:
        if name in case:
            constants[field] = case[name]
    return {"groupRelativePolicyOptimization": constants}


def rule(pattern):
    def follows(completions, **_):
        return [float(bool(re.search(pattern, text))) for text in completions]

    return follows


def answers_of(step, end):
    """Prompts and completions of a step, as ids; an answer that was not cut off ends with `end`."""
    prompts = [note["prompt"] for note in step["answers"]]
    completions = [note["answer"] if len(note["answer"]) == LONGEST else note["answer"] + [end] for note in step["answers"]]
    return prompts, completions


def peer_steps(case, ours, model, processing, common, text, end):
    """TRL's losses, gradient norms and figures, learning from the answers of `ours`; updates with one step's answers are joined."""
    import datasets
    from transformers import PrinterCallback
    from trl import GRPOConfig, GRPOTrainer

    iterations = case.get("iterations", 1)
    drawn = (answers_of(step, end) for step in ours)

    def rollout(prompts, _):
        ids, completions = next(drawn)
        assert [text(i, True) for i in ids] == prompts, "the two sides see the same prompts"
        return {"prompt_ids": ids, "completion_ids": completions, "logprobs": None}

    common = {**common, "max_steps": len(ours) * iterations}
    common["per_device_train_batch_size"] *= GENERATIONS
    common.pop("max_length")
    arguments = GRPOConfig(
        **common, num_generations=GENERATIONS, max_completion_length=LONGEST, beta=case.get("beta", 0.0),
        temperature=case.get("temperature", 1.0), num_iterations=iterations, loss_type=case.get("loss", "dapo"),
        scale_rewards=case.get("scale", "group"), reward_weights=[weight for _, weight in RULES], shuffle_dataset=False)
    rows = [{"prompt": text(row, True)} for row in case["prompts"]]
    trainer = GRPOTrainer(model=model, args=arguments, reward_funcs=[rule(pattern) for pattern, _ in RULES],
                          train_dataset=datasets.Dataset.from_list(rows), processing_class=processing, rollout_func=rollout)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    steps = [log[at:at + iterations] for at in range(0, len(log), iterations)]

    def mean(entries, name):
        # What is known of answers is logged once, with the first of the updates.
        found = [entry[name] for entry in entries if name in entry]
        return sum(found) / len(found)

    def step(entries):
        figures = {"reward": mean(entries, "reward"), "completion_length": mean(entries, "completions/mean_length"),
                   "clip_ratio": mean(entries, "clip_ratio/region_mean")}
        if "beta" in case:
            figures["kl"] = mean(entries, "kl")
        return {"loss": mean(entries, "loss"), "gradient_norm": entries[-1]["grad_norm"], "figures": figures}

    return [step(entries) for entries in steps], trainer.model


def difference(own, peer):
    """The largest of the differences in loss, gradient norm and figures of a step."""
    pairs = [(own["loss"], peer["loss"]), (own["gradient_norm"], peer["gradient_norm"])]
    pairs += [(own["figures"][name], value) for name, value in peer["figures"].items()]
    return max(abs(a - b) / max(1.0, abs(b)) for a, b in pairs)
