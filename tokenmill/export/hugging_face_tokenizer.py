"""A model's tokenizer as files of Hugging Face's: those it was imported from, or a tokenizer.json.

In a tokenizer.json of a vocabulary that tokenmill trained is spelled out what SentencePiece does by
itself: the escapes of components/tokenize/training.py and the blank as U+2581 are normalizers, the
cut before each run of blanks is a pre-tokenizer, and the way back is a decoder. The model itself
lies beside it, for tokenmill.

BPE gives the same ids and texts. Of a unigram vocabulary `tokenizers` takes another one of several
splits that are equally likely in some 30 % of documents, as the sentencepiece library does beside
TensorFlow's op.
"""

import json
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from sentencepiece import sentencepiece_model_pb2

from tokenmill.checkpoints.settings import CONFIG_NAME
from tokenmill.contracts.chat import ChatFormat
from tokenmill.contracts.tokenizer import TOKENIZER_PATH
from tokenmill.errors import TokenmillError
from tokenmill.files import write_bytes, write_json
from tokenmill.model.shape import ModelShape
from tokenmill.text.control_ids import TOKENMILL_CONTROL_IDS, ControlIds
from tokenmill.text.tokenizers.compiled import is_compiled, unpack_tokenizer
from tokenmill.text.tokenizers.hugging_face_files import (
    SENTENCEPIECE_FILE,
    TOKENIZER_CONFIG,
    TOKENIZER_JSON,
)
from tokenmill.text.tokenizers.load import load_tokenizer
from tokenmill.text.vocabulary import CONTROL_TOKENS

_BLANK = "\u2581"
# Order matters: the escape's own first, so that no other rule's outcome is taken for text.
_NORMALIZE = (("\ue000", "\ue000-"), (_BLANK, "\ue000."), (" ", _BLANK))
_DECODE = ((_BLANK, " "), ("\ue000.", _BLANK), ("\ue000-", "\ue000"))
_Piece = sentencepiece_model_pb2.ModelProto.SentencePiece
# Control tokens around a text, by the model's head.
_FRAMES = {"lm": ("<s>",), "mlm": ("<cls>", "<sep>"), "classifier": ("<cls>", "<sep>")}


class TokenizerFiles(NamedTuple):
    """What was written of a tokenizer.

    Attributes:
        files: Names of the files.
        exact_ids: Whether they give the ids that the pushed model's gives, of any text.
        control_ids: Of the tokenizer.
    """

    files: list[str]
    exact_ids: bool
    control_ids: ControlIds


def write_tokenizer(
    content: bytes, directory: str, shape: ModelShape, chat_format: ChatFormat | None = None
) -> TokenizerFiles:
    """Write an imported tokenizer's files as they were, or those of one that tokenmill trained.

    Args:
        content: The pushed model's tokenizer file.
        directory: Where to; it is there.
        shape: Of the model.
        chat_format: Of a model of conversations: its template is written, too.
    """
    if is_compiled(content):
        imported = unpack_tokenizer(content, TOKENIZER_PATH)
        files = dict(imported.sources)
        files.pop(CONFIG_NAME, None)  # that is the model's
        if chat_format is not None:
            files[TOKENIZER_CONFIG] = _with_template(files.get(TOKENIZER_CONFIG), chat_format)
        for name, source in files.items():
            write_bytes(os.path.join(directory, name), source)
        is_exact = not _is_unigram(files.get(TOKENIZER_JSON))
        return TokenizerFiles(list(files), is_exact, imported.description.control_ids)
    names = None if chat_format is None else chat_format.special_tokens
    named = _rename(content, names or {})
    made = tokenizer_json(named, _FRAMES[shape.head])
    write_json(os.path.join(directory, TOKENIZER_JSON), made)
    write_bytes(os.path.join(directory, SENTENCEPIECE_FILE), named)
    config = _tokenizer_config(shape.sequence_length, chat_format)
    write_json(os.path.join(directory, TOKENIZER_CONFIG), config)
    is_exact = made["model"]["type"] == "BPE"
    control_ids = load_tokenizer(content, TOKENIZER_PATH).control_ids
    names_written = [TOKENIZER_JSON, SENTENCEPIECE_FILE, TOKENIZER_CONFIG]
    return TokenizerFiles(names_written, is_exact, control_ids)


def _is_unigram(tokenizer_json: bytes | None) -> bool:
    """Tell whether this is the tokenizer.json of a unigram vocabulary: then it is tokenmill's."""
    return tokenizer_json is not None and json.loads(tokenizer_json)["model"]["type"] == "Unigram"


def _with_template(tokenizer_config: bytes | None, chat_format: ChatFormat) -> bytes:
    """Return a tokenizer_config.json whose chat template is the one that was trained with."""
    values: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    if tokenizer_config is not None:
        values = json.loads(tokenizer_config)
        if values.get("chat_template") == chat_format.template:
            return tokenizer_config
    values["chat_template"] = chat_format.template
    return json.dumps(values, indent=2, ensure_ascii=False).encode()


def _tokenizer_config(length: int, chat_format: ChatFormat | None) -> dict[str, Any]:
    control = TOKENMILL_CONTROL_IDS.by_name()
    chat: dict[str, Any] = {}
    if chat_format is not None:
        own = {CONTROL_TOKENS[i] for i in control.values()}
        chat["chat_template"] = chat_format.template
        chat["additional_special_tokens"] = sorted({*chat_format.special_tokens} - own)
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": length,
        "clean_up_tokenization_spaces": False,
        # "</s>" in a user's text is text; what a template writes are tokens, and the library does
        # not tell one from the other.
        "split_special_tokens": chat_format is None,
        **chat,
        **{f"{role}_token": CONTROL_TOKENS[i] for role, i in control.items()},
    }


def _rename(model: bytes, names: Mapping[str, int]) -> bytes:
    """Return a SentencePiece model whose control tokens have other texts: those of a template."""
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    for name, number in names.items():
        proto.pieces[number].piece = name
    return proto.SerializeToString(deterministic=True) if names else model


def tokenizer_json(model: bytes, frame: tuple[str, ...]) -> dict[str, Any]:
    """Make the content of tokenizer.json.

    Args:
        model: A SentencePiece model file that tokenmill trained.
        frame: Control tokens around a text where special tokens are asked for: the one before it,
            and the one behind it if there is one.

    Raises:
        TokenmillError: The model is none that tokenmill trained.
    """
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    spec, normalizer = proto.trainer_spec, proto.normalizer_spec
    if normalizer.add_dummy_prefix or normalizer.remove_extra_whitespaces or not spec.byte_fallback:
        raise TokenmillError(
            "the SentencePiece model was not trained by tokenmill: its normalizer is another.",
            "Take the tokenizer files that it came with.",
        )
    is_bpe = spec.model_type == sentencepiece_model_pb2.TrainerSpec.BPE
    added = [
        _added(i, piece.piece, piece.type != _Piece.USER_DEFINED)
        for i, piece in enumerate(proto.pieces)
        if piece.type in (_Piece.CONTROL, _Piece.UNKNOWN, _Piece.USER_DEFINED)
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": _sequence("normalizers", [_replace(*rule) for rule in _NORMALIZE]),
        "pre_tokenizer": _sequence("pretokenizers", _cuts(proto, is_bpe)),
        "post_processor": _framed(frame, {p.piece: i for i, p in enumerate(proto.pieces)}),
        "decoder": _sequence(
            "decoders",
            [{"type": "ByteFallback"}, {"type": "Fuse"}, *(_replace(*rule) for rule in _DECODE)],
        ),
        "model": _bpe(proto) if is_bpe else _unigram(proto),
    }


def _cuts(proto: sentencepiece_model_pb2.ModelProto, is_bpe: bool) -> list[dict[str, Any]]:
    """Return where a text is cut.

    In a unigram model control tokens and bytes are pieces like any other, which text would become:
    it is cut within what looks like one. That may change the split around it.
    """
    cuts = [_split(f"{_BLANK}+", "MergedWithNext")]
    if not is_bpe:
        kinds = (_Piece.CONTROL, _Piece.UNKNOWN, _Piece.BYTE)
        names = [re.escape(p.piece[1:]) for p in proto.pieces if p.type in kinds]
        cuts.append(_split(f"<(?={'|'.join(names)})", "MergedWithPrevious"))
    return cuts


def _split(pattern: str, behavior: str) -> dict[str, Any]:
    return {
        "type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": False,
    }  # fmt: skip


def _bpe(proto: sentencepiece_model_pb2.ModelProto) -> dict[str, Any]:
    """Return the model: SentencePiece joins the neighbors whose piece has the highest score."""
    ids = {piece.piece: i for i, piece in enumerate(proto.pieces)}
    normal = {p.piece: p.score for p in proto.pieces if p.type == _Piece.NORMAL}
    merges = [
        (-score, ids[piece[:cut]], ids[piece[cut:]], [piece[:cut], piece[cut:]])
        for piece, score in normal.items()
        for cut in range(1, len(piece))
        if piece[:cut] in normal and piece[cut:] in normal
    ]
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": proto.trainer_spec.unk_piece,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": True,
        "ignore_merges": False,
        "vocab": ids,
        "merges": [pair for *_, pair in sorted(merges, key=lambda merge: merge[:3])],
    }


def _unigram(proto: sentencepiece_model_pb2.ModelProto) -> dict[str, Any]:
    scored = (_Piece.NORMAL, _Piece.USER_DEFINED)
    # What is unknown is 10 less likely than the least likely piece, in both libraries.
    least = min(p.score for p in proto.pieces if p.type in scored)
    return {
        "type": "Unigram",
        "unk_id": next(i for i, p in enumerate(proto.pieces) if p.type == _Piece.UNKNOWN),
        "vocab": [[p.piece, p.score if p.type in scored else least] for p in proto.pieces],
        "byte_fallback": True,
    }


def _framed(frame: tuple[str, ...], ids: dict[str, int]) -> dict[str, Any]:
    before, *behind = [{"SpecialToken": {"id": token, "type_id": 0}} for token in frame]
    parts = [[before, {"Sequence": {"id": name, "type_id": 0}}, *behind] for name in "AB"]
    return {
        "type": "TemplateProcessing",
        "single": parts[0],
        "pair": parts[0] + parts[1],
        "special_tokens": {
            token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in frame
        },
    }


def _added(number: int, content: str, special: bool) -> dict[str, Any]:
    return {
        "id": number,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": special,
    }


def _replace(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": pattern}, "content": content}


def _sequence(name: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "Sequence", name: parts}
