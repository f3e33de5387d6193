"""What `tokenmill export hf` wrote, loaded by transformers, against the pushed model.

    PYTHONPATH=. python benchmarks/numerics/exported.py ask MODEL TEXTS.jsonl ANSWERS.npz
    PEER/bin/python benchmarks/numerics/exported.py compare EXPORTED TEXTS.jsonl ANSWERS.npz

The first asks the pushed model for the ids of each text, the logits of the first, and a greedy
continuation; the second, in an environment with transformers and torch, says how many differ. TEXTS
has a JSON object with `text` a line.
"""

import json
import sys

import numpy as np

_NEW_TOKENS, _LOGITS_OF = 24, 32


def read_texts(path: str) -> list[str]:
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def ask(model: str, texts: list[str], answers: str) -> None:
    import tensorflow as tf

    from serving.saved_model import load

    pushed = load(model)
    batches = [pushed._tokenize(tf.constant(texts[i : i + 64])) for i in range(0, len(texts), 64)]
    ids = tf.concat(batches, 0)
    first = ids[0, :_LOGITS_OF][None]
    logits = pushed.signatures["logits_ids"](token_ids=tf.constant(first))["logits"]
    made = pushed.signatures["generate"](
        text=tf.constant(["The "]), max_new_tokens=tf.constant([_NEW_TOKENS]),
        temperature=tf.constant([0.0]), top_k=tf.constant([0]), top_p=tf.constant([1.0]),
        seed=tf.constant([0]), truncate_prompt=tf.constant([False]),
    )  # fmt: skip
    np.savez(
        answers,
        ids=ids.flat_values.numpy(),
        splits=ids.row_splits.numpy(),
        first=first.numpy(),
        logits=logits.numpy(),
        text=made["text"].numpy()[0],
    )


def compare(exported: str, texts: list[str], answers: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    known = np.load(answers)
    tokenizer = AutoTokenizer.from_pretrained(exported)
    model = AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32).eval()
    splits = known["splits"]
    differ = back = 0
    for i, text in enumerate(texts):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        differ += ids != known["ids"][splits[i] : splits[i + 1]].tolist()
        back += tokenizer.decode(ids) != text
    with torch.no_grad():
        logits = model(torch.tensor(known["first"].astype("int64"))).logits.numpy()
        prompt = tokenizer("The ", return_tensors="pt")
        made = model.generate(
            prompt.input_ids, attention_mask=prompt.attention_mask,
            max_new_tokens=_NEW_TOKENS, do_sample=False,
        )[0, prompt.input_ids.shape[1] :]  # fmt: skip
    is_token = known["logits"] > -1e9  # the pushed model has no logits of rows that no token has
    print(
        json.dumps(
            {
                "class": type(model).__name__,
                "texts": len(texts),
                "other_ids": differ,
                "not_back": back,
                "largest_difference_of_logits": float(
                    np.abs(logits - known["logits"])[is_token].max()
                ),
                "ours": known["text"].item().decode(),
                "theirs": tokenizer.decode(made, skip_special_tokens=True),
            },
            ensure_ascii=False,
        )
    )


if __name__ == "__main__":
    what, model, texts, answers = sys.argv[1:]
    {"ask": ask, "compare": compare}[what](model, read_texts(texts), answers)
