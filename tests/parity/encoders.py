"""Masked LM and sequence-to-sequence as a plain loop around transformers' own losses (BertForMaskedLM, T5ForConditionalGeneration)."""

import torch

METHODS = ("mlm", "seq2seq")
# Of T5: what fills up a batch and begins a text, and what ends one.
PAD, END, MASK, FIRST = 0, 1, 2, 3
WINDOW = 64


def words(least, most, vocabulary, generator):
    count = int(torch.randint(least, most, (1,), generator=generator))
    return torch.randint(FIRST, vocabulary, (count,), generator=generator).tolist()


def rows_of(method, count, vocabulary, generator):
    """Windows with hidden tokens, the same for both sides; or sources with texts."""
    if method == "seq2seq":
        return [{"source": words(4, 14, vocabulary, generator) + [END], "text": words(3, 12, vocabulary, generator) + [END]}
                for _ in range(count)]
    rows = []
    for _ in range(count):
        ids = torch.randint(FIRST, vocabulary, (WINDOW,), generator=generator)
        labels = ids.clone()
        labels[torch.rand(WINDOW, generator=generator) >= 0.15] = -100
        labels[-1] = ids[-1]
        chance = torch.rand(WINDOW, generator=generator)
        other = torch.randint(FIRST, vocabulary, (WINDOW,), generator=generator)
        chosen = labels != -100
        ids = torch.where(chosen & (chance < 0.8), MASK, torch.where(chosen & (chance > 0.9), other, ids))
        rows.append({"inputs": ids.tolist(), "targets": labels.tolist()})
    return rows


def for_us(row):
    if "inputs" in row:
        return row
    return {"source": row["source"], "inputs": [PAD] + row["text"][:-1], "targets": row["text"]}


def base_model(family, folder, vocabulary):
    from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

    torch.manual_seed(11)
    if family == "bert":
        config = BertConfig(vocab_size=vocabulary, hidden_size=48, num_hidden_layers=2, num_attention_heads=6, intermediate_size=96,
                            max_position_embeddings=WINDOW, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
                            initializer_range=0.1)
        model = BertForMaskedLM(config)
    else:
        gated = family == "t5, gated"
        config = T5Config(vocab_size=vocabulary, d_model=48, d_kv=8, d_ff=96, num_layers=2, num_decoder_layers=3, num_heads=6,
                          relative_attention_num_buckets=8, relative_attention_max_distance=20, dropout_rate=0.0,
                          feed_forward_proj="gated-gelu" if gated else "relu", tie_word_embeddings=not gated, initializer_factor=0.5,
                          pad_token_id=PAD, eos_token_id=END, decoder_start_token_id=PAD)
        model = T5ForConditionalGeneration(config)
    model.save_pretrained(folder)


def auto(method):
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

    return {"mlm": AutoModelForMaskedLM, "seq2seq": AutoModelForSeq2SeqLM}.get(method, AutoModelForCausalLM)


def batch(rows):
    """What transformers is given: texts padded, and sources with a mask."""
    if "inputs" in rows[0]:
        return {"input_ids": torch.tensor([row["inputs"] for row in rows]), "labels": torch.tensor([row["targets"] for row in rows])}

    def padded(part, fill):
        longest = max(len(row[part]) for row in rows)
        return torch.tensor([row[part] + [fill] * (longest - len(row[part])) for row in rows])

    sources = padded("source", PAD)
    mask = (torch.arange(sources.shape[1])[None] < torch.tensor([len(row["source"]) for row in rows])[:, None]).long()
    return {"input_ids": sources, "attention_mask": mask, "labels": padded("text", -100)}


def losses(case, rows, base, folder, steps, batch_size, rate):
    """Losses step by step, and the adapter before and after."""
    model = auto(case["method"]).from_pretrained(base).train()
    start = end = None
    if "lora" in case:
        from peft import LoraConfig, get_peft_model

        task = "SEQ_2_SEQ_LM" if case["method"] == "seq2seq" else None
        torch.manual_seed(5)
        model = get_peft_model(model, LoraConfig(r=case["lora"]["r"], lora_alpha=case["lora"]["alpha"], lora_dropout=0.0,
                                                 target_modules=case["lora"]["target_modules"], task_type=task))
        start, end = folder / "start", folder / "peer"
        model.save_pretrained(start)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    found = []
    for step in range(steps):
        loss = model(**batch([rows[(step * batch_size + number) % len(rows)] for number in range(batch_size)])).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        found.append(loss.item())
    if end:
        model.save_pretrained(end)
    return found, start, end
