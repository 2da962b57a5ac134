#!/usr/bin/env python3
"""The peer of `make bench-learn`: nanoGPT's CPU recipe for character-level Shakespeare in PyTorch eager, float32, at twice its learning rate.

    peer_nanogpt.py <text file> [steps] [threads]        prints one line of JSON
"""

import hashlib
import json
import math
import sys
import time

import torch
from torch import nn

from peer_gpt import Gpt

LAYERS, HEADS, WIDTH, BLOCK, BATCH = 4, 4, 128, 64, 12
PEAK, LOWEST, WARMUP, DECAY_STEPS = 2e-3, 2e-4, 100, 2000


def rate(step):
    if step < WARMUP:
        return PEAK * (step + 1) / (WARMUP + 1)
    progress = min((step - WARMUP) / (DECAY_STEPS - WARMUP - 1), 1)
    return LOWEST + 0.5 * (1 + math.cos(math.pi * progress)) * (PEAK - LOWEST)


def main():
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 2000
    torch.set_num_threads(int(sys.argv[3]) if len(sys.argv) > 3 else 2)
    torch.manual_seed(1)
    text = open(sys.argv[1], encoding="utf-8", newline="").read()
    ids = {character: i for i, character in enumerate(sorted(set(text)))}
    data = torch.tensor([ids[character] for character in text])
    train, held_out = data[: len(data) * 9 // 10], data[len(data) * 9 // 10 :]
    draws = torch.Generator().manual_seed(5)

    model = Gpt(len(ids), LAYERS, HEADS, WIDTH, BLOCK)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, PEAK, betas=(0.9, 0.99))
    start = time.perf_counter()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        at = torch.randint(len(train) - BLOCK, (BATCH,), generator=draws)
        x = torch.stack([train[i : i + BLOCK] for i in at])
        y = torch.stack([train[i + 1 : i + BLOCK + 1] for i in at])
        loss = model(x, y)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    seconds = time.perf_counter() - start

    total = 0.0
    with torch.no_grad():
        whole = (len(held_out) - 1) // BLOCK
        x, y = (held_out[i : i + whole * BLOCK].view(whole, BLOCK) for i in (0, 1))
        for rows in zip(x.split(64), y.split(64)):
            total += model(*rows, reduction="sum").item()
    digest = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest()
    figures = {
        "steps": steps,
        "seconds": seconds,
        "ms_per_step": seconds / steps * 1e3,
        "validation_loss": total / (whole * BLOCK),
        "weights": digest,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
