"""Compiles a byte-level BPE tokenizer.json (GPT-2, Llama 3, Qwen, SmolLM)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text
from sentencepiece import sentencepiece_model_pb2

from tokenmill.contracts.tokenizer import COMPILED_FORMAT, CompiledTokenizer, Prefix
from tokenmill.text.control_ids import ControlIds
from tokenmill.text.tokenizers.byte_level_bpe import MODEL, WORD_HASHES, WORD_IDS, hash_words
from tokenmill.text.tokenizers.compiled import CompiledFile, array_bytes
from tokenmill.text.tokenizers.importing.character_classes import character_class
from tokenmill.text.tokenizers.importing.source import PLAIN_BPE, TokenizerJson, refuse

GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_2 = LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")
_UNDERSTOOD_SPLITS = "the regular expressions of GPT-2, Llama 3 and Qwen 2"
_UNDERSTOOD = (
    "ByteLevel; Digits (individual_digits) and ByteLevel; Split by the regular expression of "
    "GPT-2, Llama 3 or Qwen 2 (Isolated) and ByteLevel without its own"
)
_LOOK_AHEAD = r"|\s+(?!\S)"


class Split(NamedTuple):
    """How a text is cut into words.

    Attributes:
        look_ahead: RE2; between its two groups a word begins.
        words: RE2 of a word.
        prefix: Whether a text is given a blank.
    """

    look_ahead: str
    words: str
    prefix: Prefix


def byte_alphabet() -> dict[str, int]:
    """Return the byte that each character of a byte-level vocabulary stands for (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + i): byte for i, byte in enumerate(others)}


def compile_byte_level_bpe(
    source: TokenizerJson, control_ids: ControlIds, sources: Mapping[str, bytes]
) -> CompiledFile:
    """Compile a byte-level BPE tokenizer.

    Args:
        source: The tokenizer.json.
        control_ids: Of `find_control_ids`.
        sources: Files to keep, content by name.

    Raises:
        TokenmillError: A setting is not understood; the message names it.
    """
    source.check_model(
        {
            **PLAIN_BPE,
            "byte_fallback": (None, False),
            "ignore_merges": (None, False, True),
        }
    )
    nfc = _is_nfc(source)
    split = _split(source)
    added = source.found_in_text()
    vocabulary = _vocabulary(source, control_ids)
    model = _latin_1_model(source, vocabulary)
    hashes, ids = _whole_words(vocabulary, model, added, bool(source.model.get("ignore_merges")))
    return CompiledFile(
        CompiledTokenizer(
            format=COMPILED_FORMAT,
            kind="byte-level-bpe",
            control_ids=control_ids,
            vocab_size=len(vocabulary),
            prefix=split.prefix,
            nfc=nfc,
            added=added,
            look_ahead=split.look_ahead,
            words=split.words,
        ),
        tuple(vocabulary),
        {MODEL: model, WORD_HASHES: array_bytes(hashes), WORD_IDS: array_bytes(ids)},
        sources,
    )


def _is_nfc(source: TokenizerJson) -> bool:
    steps = source.parts("normalizer")
    if steps and [step["type"] for step in steps] != ["NFC"]:
        raise refuse(source.path, "normalizer", source.values["normalizer"], "none, NFC")
    return bool(steps)


def _split(source: TokenizerJson) -> Split:
    """Translate the pre-tokenizer for RE2."""
    steps = source.parts("pre_tokenizer")
    *before, last = steps or [{"type": "none"}]
    refused = refuse(source.path, "pre_tokenizer", source.values.get("pre_tokenizer"), _UNDERSTOOD)
    if last["type"] != "ByteLevel" or len(before) > 1:
        raise refused
    own = last.get("use_regex", True)
    if last.get("add_prefix_space") and before:
        raise refused  # it would be put before each of the parts
    prefix: Prefix = "unless-blank" if last.get("add_prefix_space") else "none"
    if not before:
        if not own:
            raise refused
        return _translated(GPT_2, prefix)
    first = before[0]
    if first["type"] == "Digits" and first.get("individual_digits") and own:
        return _translated(GPT_2, prefix, digits=True)
    if (
        first["type"] != "Split"
        or own
        or first.get("behavior") != "Isolated"
        or first.get("invert")
    ):
        raise refused
    pattern = first["pattern"].get("Regex")
    if pattern not in (GPT_2, LLAMA_3, QWEN_2):
        where = "pre_tokenizer, Split, pattern"
        raise refuse(source.path, where, first["pattern"], _UNDERSTOOD_SPLITS)
    return _translated(pattern, prefix)


def _translated(pattern: str, prefix: Prefix, digits: bool = False) -> Split:
    r"""Translate a regular expression.

    `\s+(?!\S)` leaves the last blank of a run to the word behind it. The mark goes there before
    the words are looked for. Where a line end may end a word (Llama 3), none goes before it.

    Args:
        pattern: Of the library.
        prefix: Goes into the result.
        digits: Each digit is cut off first, and no blank goes with it.
    """
    letter, number, blank = (character_class(name) for name in (r"\p{L}", r"\p{N}", r"\s"))
    last = blank if pattern == GPT_2 else character_class(r"\s&&[^\r\n]")
    behind = f"[^{blank}{number}]" if digits else f"[^{blank}]"
    if digits:
        pattern = pattern.replace(r" ?\p{N}+", r"\p{N}")
    words = pattern.replace(_LOOK_AHEAD, "")
    for name, ranges in ((r"\p{L}", letter), (r"\p{N}", number), (r"\s", blank)):
        words = _spelled_out(words, name, ranges)
    return Split(f"([{blank}]+)([{last}]{behind})", words, prefix)


def _spelled_out(pattern: str, name: str, ranges: str) -> str:
    """Replace a class inside and outside of bracket expressions."""
    parts, inside, i = [], False, 0
    while i < len(pattern):
        if pattern.startswith(name, i):
            parts.append(ranges if inside else f"[{ranges}]")
            i += len(name)
            continue
        if pattern[i] == "\\":
            parts.append(pattern[i : i + 2])
            i += 2
            continue
        inside = pattern[i] == "[" or (inside and pattern[i] != "]")
        parts.append(pattern[i])
        i += 1
    return "".join(parts)


def _vocabulary(source: TokenizerJson, control_ids: ControlIds) -> list[bytes | None]:
    """Return what each id stands for; None for control tokens and ids that nothing uses.

    Raises:
        TokenmillError: A byte has no token: the library would leave it out of a text in silence.
    """
    alphabet = byte_alphabet()
    special = {token.id for token in source.added_tokens() if token.special}
    special |= set(control_ids.by_name().values())
    by_id: dict[int, bytes | None] = {}
    for piece, i in source.model["vocab"].items():
        codes = [alphabet.get(character) for character in piece]
        by_id[i] = None if None in codes or i in special else bytes(codes)  # type: ignore[arg-type]
    for token in source.added_tokens():
        by_id[token.id] = None if token.special else token.content.encode()
    values = [by_id.get(i) for i in range(max(by_id) + 1)]
    missing = {*(bytes([byte]) for byte in range(256))} - {*values}
    if missing:
        shown = ", ".join(f"0x{byte[0]:02X}" for byte in sorted(missing)[:8])
        raise refuse(source.path, "model.vocab", f"no token of byte {shown}", "all 256 bytes")
    return values


def merge_ranks(source: TokenizerJson) -> dict[int, int]:
    """Return the rank of the first merge that gives a token, by the token's id."""
    ids: dict[str, int] = source.model["vocab"]
    ranks: dict[int, int] = {}
    for rank, pair in enumerate(source.model["merges"]):
        # Older files have a merge as one string with a blank between.
        left, right = pair.split(" ", 1) if isinstance(pair, str) else pair
        ranks.setdefault(ids[left + right], rank)
    return ranks


def _latin_1_model(source: TokenizerJson, vocabulary: Sequence[bytes | None]) -> bytes:
    """Write the SentencePiece BPE model that does the same merges on bytes as characters.

    A token that no merge gives (an added token, one for `ignore_merges` only) is a control token
    there, so that no merge of SentencePiece's gives it either.
    """
    ranks = merge_ranks(source)
    proto = sentencepiece_model_pb2.ModelProto()
    proto.trainer_spec.model_type = sentencepiece_model_pb2.TrainerSpec.BPE
    proto.trainer_spec.vocab_size = len(vocabulary) + 1
    proto.normalizer_spec.name = "identity"
    proto.normalizer_spec.add_dummy_prefix = False
    proto.normalizer_spec.remove_extra_whitespaces = False
    types = sentencepiece_model_pb2.ModelProto.SentencePiece
    for i, value in enumerate(vocabulary):
        merged = value is not None and (len(value) == 1 or i in ranks)
        proto.pieces.add(
            # What is no Latin-1 cannot be a word's.
            piece=value.decode("latin-1").replace(" ", "\u2581") if merged else f"\u0100{i}",  # type: ignore[union-attr]
            score=-(ranks.get(i, -1) + 1),
            type=types.NORMAL if merged else types.CONTROL,
        )
    proto.pieces.add(piece="\u0100unk", score=0, type=types.UNKNOWN)
    return proto.SerializeToString(deterministic=True)


def _whole_words(
    vocabulary: Sequence[bytes | None], model: bytes, added: Sequence[str], ignore_merges: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return hashes, ascending int64 [n], and ids, int32 [n], of words that are one token."""
    ids = np.array([i for i, value in enumerate(vocabulary) if value], np.int32)
    words = tf.constant([vocabulary[i] for i in ids.tolist()], tf.string)
    if not ignore_merges:
        op = tf_text.SentencepieceTokenizer(model, out_type=tf.int32)
        tokens = op.tokenize(tf.strings.unicode_transcode(words, "ISO-8859-1", "UTF-8"))
        alone = (tokens.row_lengths() == 1).numpy()
        alone &= tokens[:, :1].to_tensor(-1).numpy()[:, 0] == ids
        whole = {text.encode() for text in added}
        alone |= np.array([vocabulary[i] in whole for i in ids.tolist()])
        ids, words = ids[alone], tf.boolean_mask(words, alone)
    hashes = hash_words(words).numpy()
    # Of two words of one hash the first stays; the other goes the long way.
    hashes, first = np.unique(hashes, return_index=True)
    return hashes, ids[first]
