"""Compiles a WordPiece tokenizer.json, or a vocab.txt (BERT, MiniLM)."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from tokenmill.contracts.tokenizer import COMPILED_FORMAT, CompiledTokenizer
from tokenmill.text.control_ids import ControlIds
from tokenmill.text.tokenizers.compiled import CompiledFile, array_bytes
from tokenmill.text.tokenizers.importing.character_classes import ALL_CHARACTERS
from tokenmill.text.tokenizers.importing.source import TokenizerJson, refuse
from tokenmill.text.tokenizers.word_piece import (
    ENTRIES,
    OUTPUT_ENDS,
    OUTPUTS,
    PAGE,
    PAGES,
    VOCABULARY,
)

_CODES = 0x110000
_MOST_BYTES = 256  # of a token, that tf.text's op takes
# TensorFlow writes a noncharacter as U+FFFD, which no text holds once it is cleaned.
_NOT_WRITTEN = {
    "\n",
    "\ufffd",
    *map(chr, range(0xFDD0, 0xFDF0)),
    *(chr(plane + last) for plane in range(0, _CODES, 0x10000) for last in (0xFFFE, 0xFFFF)),
}
_BAR = "|"  # no other character becomes it
# What the library's decoder takes the blank away before.
_CLINGING = (".", "?", "!", ",")
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def compile_word_piece(
    source: TokenizerJson, control_ids: ControlIds, sources: Mapping[str, bytes]
) -> CompiledFile:
    """Compile a WordPiece tokenizer.

    Args:
        source: The tokenizer.json.
        control_ids: Of `find_control_ids`.
        sources: Files to keep, content by name.

    Raises:
        TokenmillError: A setting is not understood; the message names it.
    """
    _check(source)
    added = source.found_in_text()
    if added:
        raise refuse(source.path, "added_tokens", added[0], "special tokens only, with WordPiece")
    ids: dict[str, int] = source.model["vocab"]
    by_id = {i: token for token, i in ids.items()}
    special = {token.id: token.content for token in source.added_tokens()}
    size = max(*by_id, *special, 0) + 1
    hidden = {*special, *control_ids.by_name().values()}
    unk = source.model["unk_token"]
    control_ids = control_ids.model_copy(update={"unk": ids[unk]})
    hidden.add(ids[unk])
    # The op wants a token at every id; no word holds a blank.
    names = [by_id.get(i, f" {i}") for i in range(size)]
    broken = [
        name
        for name in names
        if len(name.encode()) > _MOST_BYTES or _NOT_WRITTEN.intersection(name)
    ]
    if broken:
        understood = f"tokens of at most {_MOST_BYTES} bytes, without line feed and noncharacters"
        raise refuse(source.path, "model.vocab", broken[0], understood)
    continuation = source.model["continuing_subword_prefix"]
    pages, entries, outputs, ends = character_table(
        *(
            json.dumps(source.values[name], sort_keys=True)
            for name in ("normalizer", "pre_tokenizer")
        )
    )
    return CompiledFile(
        CompiledTokenizer(
            format=COMPILED_FORMAT,
            kind="wordpiece",
            control_ids=control_ids,
            vocab_size=size,
            prefix="none",
            unk_text=unk,
            continuation=continuation,
            longest_word=source.model["max_input_chars_per_word"],
        ),
        tuple(
            None if i in hidden or i not in by_id else _text_of(name, continuation)
            for i, name in enumerate(names)
        ),
        {
            PAGES: array_bytes(pages),
            ENTRIES: array_bytes(entries),
            OUTPUTS: array_bytes(outputs),
            OUTPUT_ENDS: array_bytes(ends),
            VOCABULARY: "\n".join(names).encode(),
        },
        sources,
    )


def _check(source: TokenizerJson) -> None:
    kinds = [step["type"] for step in source.parts("normalizer")]
    if kinds != ["BertNormalizer"]:
        raise refuse(source.path, "normalizer", source.values.get("normalizer"), "BertNormalizer")
    kinds = [step["type"] for step in source.parts("pre_tokenizer")]
    if kinds != ["BertPreTokenizer"]:
        raise refuse(
            source.path, "pre_tokenizer", source.values.get("pre_tokenizer"), "BertPreTokenizer"
        )
    if source.model["unk_token"] not in source.model["vocab"]:
        raise refuse(source.path, "model.unk_token", source.model["unk_token"], "a token")
    normalizer = source.parts("normalizer")[0]
    if normalizer.get("clean_text") is not True:
        raise refuse(source.path, "normalizer.clean_text", normalizer.get("clean_text"), "true")


def _text_of(token: str, continuation: str) -> bytes:
    if token.startswith(continuation):
        return token[len(continuation) :].encode()
    return (token if token in _CLINGING else f" {token}").encode()


@functools.lru_cache(maxsize=4)
def character_table(
    normalizer: str, pre_tokenizer: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Find what each character becomes by the library's normalizer and pre-tokenizer.

    Both look at one character alone: what NFD would put into another order are marks that are
    taken out, or that no language writes in the other order.

    Args:
        normalizer: That section of a tokenizer.json.
        pre_tokenizer: That section.

    Returns:
        pages int32 [0x1100], entries int32 [pages * 256], outputs int32 [n], ends int64 [entries
        + 1], as tokenmill/text/tokenizers/word_piece.py describes them.
    """
    steps = {"normalizer": json.loads(normalizer), "pre_tokenizer": json.loads(pre_tokenizer)}
    model = {"type": "WordLevel", "vocab": {}, "unk_token": ""}
    library = tokenizers.Tokenizer.from_str(json.dumps({**steps, "version": "1.0", "model": model}))
    normalized = _normalized(library.normalizer)
    becomes = _separated(library.pre_tokenizer, {c for text in normalized for c in text})
    numbers: dict[str, int] = {}
    entry_of = np.zeros(_CODES, np.int32)
    for character, text in zip(ALL_CHARACTERS, normalized, strict=True):
        rewritten = "".join(becomes.get(c, c) for c in text)
        if rewritten != character:
            entry_of[ord(character)] = numbers.setdefault(rewritten, len(numbers) + 1)
    codes = [np.array([ord(c) for c in text], np.int32) for text in ["", *numbers]]
    # Row 0 of the ragged table is entry 0.
    ends = np.cumsum([0, *map(len, codes)], dtype=np.int64)
    pages: dict[bytes, int] = {}
    numbered = [
        pages.setdefault(entry_of[start : start + PAGE].tobytes(), len(pages))
        for start in range(0, _CODES, PAGE)
    ]
    entries = np.frombuffer(b"".join(pages), np.int32)
    return np.array(numbered, np.int32), entries, np.concatenate(codes), ends


def _normalized(normalizer: normalizers.Normalizer) -> list[str]:
    """Return what each of ALL_CHARACTERS becomes, all in one call: 1.1 million take seconds."""
    others = ALL_CHARACTERS.replace(_BAR, "")
    texts = normalizer.normalize_str(_BAR.join(others)).split(_BAR)
    texts.insert(ALL_CHARACTERS.index(_BAR), normalizer.normalize_str(_BAR))
    return texts


def _separated(pre_tokenizer: pre_tokenizers.PreTokenizer, characters: set[str]) -> dict[str, str]:
    """Return what characters become that no word holds: a blank, or themselves between blanks."""
    text = "".join(sorted(characters))
    separated: dict[str, str] = {}
    end = 0
    for part, (start, after) in pre_tokenizer.pre_tokenize_str(text):
        separated |= dict.fromkeys(text[end:start], " ")
        # A part of one character may be a letter between two marks.
        if len(part) == 1 and len(pre_tokenizer.pre_tokenize_str(f"a{part}a")) == 3:
            separated[part] = f" {part} "
        end = after
    return separated | dict.fromkeys(text[end:], " ")


def json_of_vocabulary(vocabulary: bytes, lower_case: bool) -> bytes:
    """Write the tokenizer.json that a vocab.txt stands for.

    Args:
        vocabulary: Content of vocab.txt: a token a line, its place is its id.
        lower_case: `do_lower_case` of tokenizer_config.json.
    """
    lines = vocabulary.decode().split("\n")
    tokens = [line.rstrip("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]
    ids = {token: i for i, token in enumerate(tokens)}
    library = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer(lowercase=lower_case)
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.add_special_tokens([token for token in _SPECIAL if token in ids])
    # Parsed and written again, as the library's order of keys is another in every process.
    return json.dumps(json.loads(library.to_str()), ensure_ascii=False, sort_keys=True).encode()
