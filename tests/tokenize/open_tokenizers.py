"""Small tokenizers of every kind, trained with the tokenizers library, as Hugging Face files."""

import functools
import itertools
import json
import os

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from tokenmill.text.tokenizers.importing.byte_level_bpe import GPT_2, LLAMA_3, QWEN_2
from tokenmill.text.tokenizers.importing.compare import ODD_STRINGS

# Learned from text, the text of a special token would be that token.
_NO_TRAINING = {*"<[", "\ufffd", "\uffff"}
TEXTS = [
    f"{a} {b}s are in the  {a}; it's {b}'S and the {a} of 2{len(a)}{len(b)} days\n   {len(a)} times"
    for a, b in itertools.product(
        ("River", "stone", "über", "garden", "Straße", "market", "зима", "engine"),
        ("bridge", "signal", "медь", "silver", "forêt", "island", "paper", "light"),
    )
] + [text for text in ODD_STRINGS if len(text) < 100 and not _NO_TRAINING.intersection(text)]
E = "<|endoftext|>"


def _sequence(pattern):
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    own = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([split, own])


def _byte_level(pre, specials=(E,), normalizer=None) -> dict:
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre
    if normalizer:
        library.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=list(specials), initial_alphabet=sorted(alphabet),
        show_progress=False,
    )  # fmt: skip
    library.train_from_iterator(TEXTS, trainer)
    return json.loads(library.to_str())


def _plain(add_prefix_space=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)


def _llama_3() -> dict:
    values = _byte_level(_sequence(LLAMA_3), ("<|begin_of_text|>", "<|end_of_text|>"))
    # A word that no merge gives, as Llama 3 has some.
    values["model"]["vocab"]["Ġunmergeable"] = len(values["model"]["vocab"])
    values["model"]["ignore_merges"] = True
    return values


def _qwen_2() -> dict:
    values = _byte_level(_sequence(QWEN_2), (E, "<|im_start|>"), normalizers.NFC())
    size = len(values["model"]["vocab"])
    for i, content in enumerate(("<tool_call>", "<tool_call>s", "</tool_call>", "<|fim_prefix|>")):
        values["added_tokens"].append(
            {**values["added_tokens"][0], "id": size + i, "content": content, "special": False}
        )
    return values


def _word_piece(lowercase: bool) -> dict:
    library = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=500, special_tokens=special, show_progress=False, limit_alphabet=150
    )
    library.train_from_iterator(TEXTS, trainer)
    library.enable_truncation(8)
    library.enable_padding(length=8)
    return json.loads(library.to_str())


def _sentencepiece(**sections) -> dict:
    library = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    # Merges within words only, as SentencePiece's own training makes them.
    library.pre_tokenizer = pre_tokenizers.Metaspace(split=True, prepend_scheme="always")
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=special, show_progress=False, limit_alphabet=60
    )
    library.train_from_iterator(TEXTS, trainer)
    values = json.loads(library.to_str())
    values["added_tokens"] = values["added_tokens"][:3]
    return {**values, "pre_tokenizer": None, **sections}


def _replace():
    return {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}


def _llama_2() -> dict:
    prepend = {"type": "Prepend", "prepend": "\u2581"}
    decoder = {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ],
    }
    steps = {"type": "Sequence", "normalizers": [prepend, _replace()]}
    return _sentencepiece(normalizer=steps, decoder=decoder)


def _metaspace() -> dict:
    own = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False}
    return _sentencepiece(pre_tokenizer=own, decoder=own)


def _digits() -> dict:
    steps = [pre_tokenizers.Digits(individual_digits=True), _plain()]
    return _byte_level(pre_tokenizers.Sequence(steps))


KINDS = {
    "GPT-2": lambda: _byte_level(_plain()),
    "GPT-2, prefix": lambda: _byte_level(_plain(add_prefix_space=True)),
    "GPT-2, split": lambda: _byte_level(_sequence(GPT_2)),
    "SmolLM": _digits,
    "Llama 3": _llama_3,
    "Qwen 2": _qwen_2,
    "BERT, uncased": lambda: _word_piece(lowercase=True),
    "BERT, cased": lambda: _word_piece(lowercase=False),
    "Llama 2": _llama_2,
    "Metaspace": _metaspace,
}


@functools.cache
def values_of(kind: str) -> dict:
    """The tokenizer.json of a kind; trained once, as the library learns otherwise each time."""
    return KINDS[kind]()


def write_files(directory, values: dict, **configs) -> str:
    """Write tokenizer.json and configurations (name without ending) into a directory."""
    os.makedirs(directory, exist_ok=True)
    for name, content in {"tokenizer": values, **configs}.items():
        with open(os.path.join(directory, f"{name}.json"), "w", encoding="utf-8") as out:
            json.dump(content, out)
    return str(directory)
