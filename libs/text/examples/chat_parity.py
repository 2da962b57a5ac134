"""Chat templates beside transformers' apply_chat_template, over every template that TRL brings and a few others.

    cargo build -p tidemill-text --example chat_parity
    python chat_parity.py target/debug/examples/chat_parity        (an environment with transformers and trl)

Compared are the text with and without a generation prompt, the ids, and the mask of what the assistant says. A template without generation
marks is compared with TRL's training template of the same name. Prints a table; fails on a difference that is not named below.
"""

import datetime
import glob
import json
import logging
import os
import re
import subprocess
import sys
import tempfile

import trl
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

# What differs, and why that is right.
KNOWN = {
    "spans": {
        **dict.fromkeys(["deepseek_r1_distill", "deepseekv3"], "its generation prompt opens thoughts that answers do not have"),
        **dict.fromkeys(["nemotron_3_nano", "nemotron_3_super", "nemotron_3_ultra", "nemotron_3_5_lightning"],
                        "its generation prompt opens thoughts that answers do not have"),
        "qwen2_5": "TRL also learns the line feed before an answer, which is part of the generation prompt",
        **dict.fromkeys(["qwen3_5_nothink", "qwen3_5_think", "qwen3_6", "qwen3_8", "glm4moe", "muse_glimmer"],
                        "TRL also learns what the generation prompt already says"),
    },
    "refused": dict.fromkeys(["gptoss"], "it needs the date, and rendering has no clock"),
    "text": dict.fromkeys(["muse_glimmer", "llama3_2"], "it writes the date where it can, and rendering has no clock"),
}
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant"
    " named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' }}OPEN{{ message['content'] +"
    " '<|im_end|>' + '\n'}}CLOSE{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKS = "{% if message['role'] == 'assistant' %}{% generation %}BODY{% endgeneration %}{% else %}BODY{% endif %}"
BODY = SMOLLM2[SMOLLM2.index("OPEN") + 4 : SMOLLM2.index("CLOSE")]
OTHERS = {
    "smollm2": SMOLLM2.replace("OPEN", "").replace("CLOSE", ""),
    "smollm2_training": SMOLLM2.replace("OPEN" + BODY + "CLOSE", MARKS.replace("BODY", BODY)),
    "zephyr": "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}",
    "mistral": "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% else %}{{ raise_exception('Only user and assistant') }}{% endif %}{% endfor %}",
}


def turns(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


CONVERSATIONS = {
    "one": turns(("user", "Describe a process of making crepes."), ("assistant", "Making crepes is easy!\n\n1. Eggs")),
    "system": turns(("system", "You are brief."), ("user", "  Hi <b>&\"there\"</b> "), ("assistant", "Hello 日本 🙂!\n"), ("user", "\nmore\n\n"), ("assistant", "naïve café")),
    "many": turns(*[(role, f"{role} says {i} <|im_x|> {{{{ x }}}}") for i in range(4) for role in ("user", "assistant")]),
}


def tokenizer(templates, path):
    pattern = r"<[|｜][A-Za-z_▁]+[|｜]>|</?s>|<(?:start|end)_of_turn>|<end_of_utterance>|<turn\|>|<\|turn>"
    special = sorted(set(re.findall(pattern, "\n".join(templates.values()))) | {"<s>", "</s>"})
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    texts = [message["content"] for conversation in CONVERSATIONS.values() for message in conversation] * 2
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=2000, special_tokens=special, initial_alphabet=alphabet, show_progress=False))
    bpe.save(path)
    return PreTrainedTokenizerFast(tokenizer_file=path, bos_token="<s>", eos_token="</s>")


def theirs(fast, template, messages):
    try:
        apply = lambda **more: fast.apply_chat_template(messages, chat_template=template, **more)
        whole = apply(return_dict=True, return_assistant_tokens_mask=True)
        return {"prompt": apply(tokenize=False, add_generation_prompt=True), "text": apply(tokenize=False), "ids": whole["input_ids"], "mask": whole["assistant_masks"]}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def main(binary):
    logging.disable(logging.WARNING)
    folder = os.path.join(os.path.dirname(trl.__file__), "chat_templates")
    templates = {os.path.basename(path)[: -len(".jinja")]: open(path).read() for path in sorted(glob.glob(folder + "/*.jinja"))} | OTHERS
    with tempfile.TemporaryDirectory() as work:
        path = os.path.join(work, "tokenizer.json")
        fast = tokenizer(templates, path)
        names = [(name, which) for name in templates for which in CONVERSATIONS]
        cases = [{"template": templates[name], "messages": CONVERSATIONS[which], "bos_token": "<s>", "eos_token": "</s>"} for name, which in names]
        said = subprocess.run([binary], input=json.dumps({"tokenizer": path, "cases": cases}), capture_output=True, text=True, check=True)
        ours = dict(zip(names, map(json.loads, said.stdout.splitlines())))
        them = {(name, which): theirs(fast, templates[name], CONVERSATIONS[which]) for name, which in names}
    counts, known, bad = dict.fromkeys(["text", "ids", "marked mask", "derived mask", "both refuse"], 0), {}, []

    def differ(name, which, what, *values):
        reason = KNOWN.get(what, {}).get(name.removesuffix("_training"))
        if reason:
            known[(name.removesuffix("_training"), what)] = reason
        else:
            bad.append((name, which, what, *values))

    for (name, which), got in ours.items():
        want = them[name, which]
        if "error" in want or "error" in got:
            if "error" in want and "error" in got:
                counts["both refuse"] += 1
            else:
                differ(name, which, "refused", want.get("error"), got.get("error"))
            continue
        if (want["prompt"], want["text"]) != (got["prompt"], got["text"]):
            differ(name, which, "text", want["text"], got["text"])
            continue
        counts["text"] += 1
        marked = re.search(r"\{%-?\s*generation\s*-?%\}", templates[name])
        twin = want if marked else them.get((name + "_training", which))
        if twin is None or "error" in twin:
            twin = {"ids": want["ids"]}
        spans = got["spans"]
        if "error" in spans or spans["ids"] != twin["ids"]:
            differ(name, which, "spans", twin["ids"], spans)
            continue
        counts["ids"] += 1
        if "mask" not in twin:
            continue
        if spans["mask"] != twin["mask"]:
            tokens = fast.convert_ids_to_tokens(twin["ids"])
            differ(name, which, "spans", *("".join(t for t, bit in zip(tokens, mask) if bit) for mask in (twin["mask"], spans["mask"])))
            continue
        counts["marked mask" if marked else "derived mask"] += 1
    print(f"{len(templates)} templates x {len(CONVERSATIONS)} conversations; equal: " + ", ".join(f"{what} {count}" for what, count in counts.items()))
    for (name, what), reason in known.items():
        print(f"  differs by intent: {name} ({what}): {reason}")
    for difference in bad:
        print("  DIFFERS:", *[str(value)[:400] for value in difference], sep=" | ")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
