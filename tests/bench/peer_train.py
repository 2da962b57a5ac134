#!/usr/bin/env python3
"""The peers of `make bench-train`; each prints one line of JSON.

    peer_train.py adapter FOLDER STEPS THREADS     transformers and peft, eager, float32, CPU
    peer_train.py gpt STEPS                        PyTorch, torch.compile, fused AdamW, bfloat16, GPU
    peer_train.py tokens FOLDER TEXT               the `tokenizers` package on one thread
"""

import json
import os
import resource
import statistics
import sys
import time

WARM_UP = 3


def timed(step, steps, tokens, wait=lambda: None):
    losses, seconds = [], []
    for _ in range(steps + WARM_UP):
        start = time.perf_counter()
        losses.append(step())
        wait()
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds[WARM_UP:])
    return {"ms_per_step": median * 1e3, "tokens_per_second": tokens / median, "first_loss": losses[0], "last_loss": losses[-1],
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def windows(batch, length, vocabulary):
    """What our side draws: each row one period and its continuation."""
    import torch
    period = [(at * 7919 + 13) % vocabulary for at in range(length)]
    return torch.tensor([period] * batch), torch.tensor([period[1:] + period[:1]] * batch)


def adapter(folder, steps, threads):
    import peft
    import torch
    import transformers
    torch.set_num_threads(threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = peft.get_peft_model(model, config)
    model.train()
    x, y = windows(4, 256, model.config.vocab_size)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, 1e-4, betas=(0.9, 0.95), weight_decay=0.1)

    def step():
        loss = model(input_ids=x, labels=y, shift_labels=y, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        return loss.item()

    return timed(step, steps, x.numel())


def gpt(steps):
    import torch
    from peer_gpt import Gpt
    vocabulary, batch, length = 50304, 16, 1024
    model = Gpt(vocabulary, layers=24, heads=16, width=1024, length=length, approximate="tanh").cuda()
    compiled = torch.compile(model)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    x, y = (ids.cuda() for ids in windows(batch, length, vocabulary))

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16):
            loss = compiled(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return timed(step, steps, x.numel(), torch.cuda.synchronize) | {"peak_mib": torch.cuda.max_memory_allocated() / 2**20}


def tokens(folder, text):
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import tokenizers
    tokenizer = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json")
    documents = [part + "\n\n" for part in open(text, encoding="utf-8", newline="").read().split("\n\n")]
    start = time.perf_counter()
    count = sum(len(tokenizer.encode(document, add_special_tokens=False).ids) for document in documents)
    return {"encoded_per_second": count / (time.perf_counter() - start), "tokens": count}


def main():
    what, *rest = sys.argv[1:]
    if what == "adapter":
        result = adapter(rest[0], int(rest[1]), int(rest[2]))
    elif what == "gpt":
        result = gpt(int(rest[0]))
    else:
        result = tokens(*rest)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
