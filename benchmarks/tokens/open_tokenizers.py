"""Ids and speed of open models' tokenizers in the graph, beside the library that they come from.

    python benchmarks/tokens/open_tokenizers.py TEXTS.jsonl --documents 10000 NAME=PATH..

PATH is a Hugging Face directory, or a tiktoken file of ranks, of which a tokenizer.json is made:
`gpt2=.../gpt2.tiktoken`, `qwen2=.../qwen.tiktoken` (the name says which regular expression).
Documents are taken at equal distances from the file, `text` of each line. CPU seconds of one thread
of the library and of all threads of TensorFlow; batches of 256 documents. Prints a Markdown table.
"""

import argparse
import base64
import itertools
import json
import os
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import tensorflow as tf

from tokenmill.text.tokenizers.importing.byte_level_bpe import QWEN_2, byte_alphabet
from tokenmill.text.tokenizers.importing.directory import import_tokenizer
from tokenmill.text.tokenizers.importing.source import TokenizerJson
from tokenmill.text.tokenizers.load import load_tokenizer

BATCH = 256
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
NFC_ENDING = {"qwen2": {"type": "NFC"}}


def merged(token: bytes, ranks: dict[bytes, int], limit: int) -> list[bytes]:
    """Merge a token's bytes by ranks below a limit."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 1:
        found = [ranks.get(a + b, limit) for a, b in itertools.pairwise(parts)]
        best = min(found)
        if best >= limit:
            break
        i = found.index(best)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts


def json_of_ranks(path: str, name: str) -> dict:
    """Write the tokenizer.json of a tiktoken file."""
    with open(path, "rb") as source:
        pairs = (line.split() for line in source if line.strip())
        ranks = {base64.b64decode(token): int(rank) for token, rank in pairs}
    characters = {byte: character for character, byte in byte_alphabet().items()}
    vocabulary, merges = {}, []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        vocabulary["".join(characters[byte] for byte in token)] = rank
        parts = merged(token, ranks, rank) if len(token) > 1 else []
        if len(parts) == 2:
            merges.append(["".join(characters[byte] for byte in part) for part in parts])
    end = {
        **{"id": max(ranks.values()) + 1, "content": "<|endoftext|>", "special": True},
        **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False),
    }
    split = {"type": "Split", "pattern": {"Regex": QWEN_2}, "behavior": "Isolated", "invert": False}
    own = {**BYTE_LEVEL, "use_regex": name == "gpt2"}
    steps = {"type": "Sequence", "pretokenizers": [split, own]}
    return {
        "version": "1.0",
        "added_tokens": [end],
        "normalizer": NFC_ENDING.get(name),
        "pre_tokenizer": own if name == "gpt2" else steps,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": merges},
    }


def library_encode(path: str):
    """The library's ids of a batch of texts, by one thread."""
    if os.path.exists(os.path.join(path, "tokenizer.json")):
        with open(os.path.join(path, "tokenizer.json"), "rb") as source:
            library = TokenizerJson(source.read(), path).library
        return "tokenizers", lambda texts: [
            encoded.ids for encoded in library.encode_batch(texts, add_special_tokens=False)
        ]
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(
        model_file=os.path.join(path, "tokenizer.model")
    )
    return "sentencepiece", processor.encode


def measure(name: str, path: str, texts: list[str]) -> None:
    """Compare one tokenizer and print its row."""
    start = time.process_time()
    tokenizer = load_tokenizer(import_tokenizer(path), path)
    importing = time.process_time() - start
    spec = [tf.TensorSpec([None], tf.string)]
    graph = tf.function(tokenizer.tokenize, input_signature=spec, autograph=False)
    graph(tf.constant([b"warm"]))
    library, encode = library_encode(path)
    size = sum(len(text.encode()) for text in texts)
    ours = theirs = 0.0
    differing = tokens = 0
    for i in range(0, len(texts), BATCH):
        batch = texts[i : i + BATCH]
        column = tf.constant([text.encode() for text in batch])
        start = time.process_time()
        found = graph(column)
        ours += time.process_time() - start
        start = time.process_time()
        wanted = encode(batch)
        theirs += time.process_time() - start
        tokens += sum(map(len, wanted))
        pairs = zip(found.to_list(), wanted, strict=True)
        differing += sum(a != list(b) for a, b in pairs)
    print(
        f"| {name} | {tokenizer.vocab_size:,} | {len(texts):,} | {size / 1e6:.1f} | {tokens:,} | "
        f"{differing} | {size / 1e6 / ours:.2f} | {size / 1e6 / theirs:.2f} ({library}) | "
        f"{importing:.1f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts")
    parser.add_argument("tokenizers", nargs="+")
    parser.add_argument("--documents", type=int, default=10_000)
    arguments = parser.parse_args()
    with open(arguments.texts, encoding="utf-8") as source:
        lines = source.readlines()
    chosen = [
        lines[i * len(lines) // arguments.documents]
        for i in range(min(arguments.documents, len(lines)))
    ]
    texts = [json.loads(line)["text"] for line in chosen]
    print(
        "| tokenizer | tokens | documents | MB | ids | documents that differ | MB per CPU-second | "
        "library's | import, CPU-seconds |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    for entry in arguments.tokenizers:
        name, path = entry.split("=", 1)
        with tempfile.TemporaryDirectory() as directory:
            if os.path.isfile(path):
                target = os.path.join(directory, "tokenizer.json")
                with open(target, "w", encoding="utf-8") as out:
                    json.dump(json_of_ranks(path, name), out)
                path = directory
            measure(name, path, texts)


if __name__ == "__main__":
    main()
