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
    from torch import nn
    import torch.nn.functional as F
    width, heads, layers, vocabulary, batch, length = 1024, 16, 24, 50304, 16, 1024

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm_1, self.norm_2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
            self.qkv, self.output = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
            self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

        def forward(self, x):
            b, t, _ = x.shape
            q, k, v = self.qkv(self.norm_1(x)).view(b, t, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.output(mixed.transpose(1, 2).reshape(b, t, width))
            return x + self.down(F.gelu(self.up(self.norm_2(x)), approximate="tanh"))

    class Gpt(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
            self.layers = nn.ModuleList(Layer() for _ in range(layers))
            self.norm = nn.LayerNorm(width, bias=False)

        def forward(self, x, y):
            z = self.tokens(x) + self.positions(torch.arange(x.shape[1], device=x.device))
            for layer in self.layers:
                z = layer(z)
            return F.cross_entropy((self.norm(z) @ self.tokens.weight.T).flatten(0, 1), y.flatten())

    model = Gpt().cuda()
    for p in model.parameters():
        if p.dim() > 1:
            nn.init.normal_(p, 0, 0.02)
    compiled = torch.compile(model)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    x, y = (ids.cuda() for ids in windows(batch, length, vocabulary))

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16):
            loss = compiled(x, y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
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
