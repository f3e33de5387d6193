"""Reads the tokenizer of a Hugging Face directory, compiles it and compares it with the library."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import sentencepiece
import tensorflow as tf

from tokenmill.contracts.tokenizer import COMPILED_FORMAT, CompiledTokenizer
from tokenmill.errors import TokenmillError
from tokenmill.text.control_ids import ControlIds
from tokenmill.text.tokenizers.compiled import CompiledFile, pack_tokenizer
from tokenmill.text.tokenizers.hugging_face_files import (
    SENTENCEPIECE_FILE,
    TOKENIZER_FILES,
    TOKENIZER_JSON,
    VOCABULARY,
)
from tokenmill.text.tokenizers.importing.byte_level_bpe import compile_byte_level_bpe
from tokenmill.text.tokenizers.importing.compare import check_equal
from tokenmill.text.tokenizers.importing.sentencepiece_json import compile_sentencepiece_json
from tokenmill.text.tokenizers.importing.source import TokenizerJson, refuse
from tokenmill.text.tokenizers.importing.word_piece import compile_word_piece, json_of_vocabulary
from tokenmill.text.tokenizers.load import SENTENCEPIECE_MODEL, of_compiled
from tokenmill.text.tokenizers.sentencepiece_model import control_ids_of, is_tokenmills

_CONFIGS = ("tokenizer_config.json", "special_tokens_map.json", "config.json", "added_tokens.json")
# Names that tell what a control token is for, where no configuration does.
_USUAL_NAMES = {
    "pad": ("[PAD]", "<pad>"),
    "unk": ("[UNK]", "<unk>"),
    "bos": ("<s>", "<|begin_of_text|>", "<|endoftext|>"),
    "eos": ("</s>", "<|end_of_text|>", "<|endoftext|>"),
    "mask": ("[MASK]", "<mask>"),
    "cls": ("[CLS]", "<cls>"),
    "sep": ("[SEP]", "<sep>"),
}


def import_tokenizer(path: str) -> bytes:
    """Compile the tokenizer of a directory.

    tokenizer.json goes before tokenizer.model, and this before vocab.txt; but of a vocabulary that
    tokenmill trained and exported tokenizer.model is taken, whose escapes no tokenizer.json tells.
    Configurations beside it say which tokens are control tokens. What comes out is compared with
    the library on built-in texts.

    Args:
        path: A directory, or one of its tokenizer.json and vocab.txt, on any filesystem that
            TensorFlow knows.

    Returns:
        Content of the tokenizer's file (tokenmill/text/tokenizers/compiled.py).

    Raises:
        TokenmillError: Nothing to import is there, a setting is not understood, or ids differ.
    """
    directory, name = (path, "") if tf.io.gfile.isdir(path) else os.path.split(path)
    files = _read(directory)
    chosen = [name] if name else [name for name in TOKENIZER_FILES if name in files]
    if not chosen or chosen[0] not in files:
        raise TokenmillError(
            f"{path}: there is no tokenizer.",
            f"Give a directory with one of {', '.join(TOKENIZER_FILES)}.",
        )
    if not name and is_tokenmills(files.get(SENTENCEPIECE_FILE)):
        chosen = [SENTENCEPIECE_FILE]
    where = os.path.join(directory, chosen[0])
    file, encode = _compiled(chosen[0], files, where)
    check_equal(of_compiled(file), encode, where)
    return pack_tokenizer(file)


def _read(directory: str) -> dict[str, bytes]:
    files = {}
    for name in (*TOKENIZER_FILES, *_CONFIGS):
        path = os.path.join(directory, name)
        if tf.io.gfile.exists(path):
            with tf.io.gfile.GFile(path, "rb") as source:
                files[name] = source.read()
    return files


def _compiled(
    name: str, files: Mapping[str, bytes], path: str
) -> tuple[CompiledFile, Callable[[str], list[int]]]:
    """Compile one of the files: what comes out, and the library's ids of a text."""
    configs = {name: _parsed(files[name], name) for name in _CONFIGS if name in files}
    sources = {name: files[name], **{name: files[name] for name in configs}}
    if name == SENTENCEPIECE_FILE:
        sources |= {name: files[name] for name in (TOKENIZER_JSON,) if name in files}
        return _compiled_sentencepiece(files[name], configs, sources, path)
    if name == VOCABULARY:
        lower = configs.get("tokenizer_config.json", {}).get("do_lower_case", True)
        source = TokenizerJson(json_of_vocabulary(files[name], bool(lower)), path)
    else:
        source = TokenizerJson(files[name], path)
    ids = find_control_ids(source.library.token_to_id, configs)
    if source.kind == "WordPiece":
        return compile_word_piece(source, ids, sources), source.encode
    if source.kind != "BPE":
        understood = "BPE, WordPiece; of Unigram the directory's tokenizer.model"
        raise refuse(path, "model.type", source.kind, understood)
    if source.model.get("byte_fallback"):
        return compile_sentencepiece_json(source, ids, sources), source.encode
    return compile_byte_level_bpe(source, ids, sources), source.encode


def _compiled_sentencepiece(
    model: bytes, configs: Mapping[str, Any], sources: Mapping[str, bytes], path: str
) -> tuple[CompiledFile, Callable[[str], list[int]]]:
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        size = processor.get_piece_size()
    except (RuntimeError, OSError) as error:
        raise TokenmillError(
            f"{path}: no SentencePiece model: {error}.", "Give the file as it was published."
        ) from error
    extra = configs.get("added_tokens.json", {})
    beyond = [name for name, i in extra.items() if i >= size]
    if beyond:
        raise refuse(
            path, "added_tokens.json", beyond[0], "tokens of the model; or a tokenizer.json"
        )

    def token_to_id(token: str) -> int | None:
        found = processor.piece_to_id(token)
        return found if processor.id_to_piece(found) == token else None

    ids = find_control_ids(token_to_id, configs) if configs else ControlIds()
    named = {**control_ids_of(processor).by_name(), **ids.by_name()}
    settings = CompiledTokenizer(
        format=COMPILED_FORMAT,
        kind="sentencepiece",
        control_ids=ControlIds(**named),
        vocab_size=size,
        prefix="none",
    )
    file = CompiledFile(settings, (), {SENTENCEPIECE_MODEL: model}, sources)
    return file._replace(token_bytes=of_compiled(file).token_bytes), processor.encode


def _parsed(content: bytes, name: str) -> dict[str, Any]:
    try:
        values = json.loads(content)
    except ValueError as error:
        raise TokenmillError(f"{name}: no JSON: {error}.", "Copy the file anew.") from error
    if not isinstance(values, dict):
        raise TokenmillError(f"{name}: expected a JSON object.", "Copy the file anew.")
    return values


def find_control_ids(
    token_to_id: Callable[[str], int | None], configs: Mapping[str, Any]
) -> ControlIds:
    """Find which tokens are control tokens.

    First go the tokens that tokenizer_config.json and special_tokens_map.json name (`bos_token`),
    then the ids of config.json (`bos_token_id`; of a list the first), then usual names.

    Args:
        token_to_id: Id of a token, or None.
        configs: JSON of the configurations by file name.
    """
    ids: dict[str, int] = {}
    for name in ControlIds.model_fields:
        for config in ("tokenizer_config.json", "special_tokens_map.json"):
            token = configs.get(config, {}).get(f"{name}_token")
            content = token.get("content") if isinstance(token, dict) else token
            found = token_to_id(content) if isinstance(content, str) else None
            if found is not None:
                ids.setdefault(name, found)
        number = configs.get("config.json", {}).get(f"{name}_token_id")
        number = number[0] if isinstance(number, list) and number else number
        if isinstance(number, int) and number >= 0:
            ids.setdefault(name, number)
    if not ids:
        for name, usual in _USUAL_NAMES.items():
            known = [found for found in map(token_to_id, usual) if found is not None]
            ids |= {name: known[0]} if known else {}
    return ControlIds(**ids)
