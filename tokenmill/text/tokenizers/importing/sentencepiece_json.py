"""Compiles a tokenizer.json that stands for a SentencePiece BPE model (Llama 2, TinyLlama)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sentencepiece import sentencepiece_model_pb2

from tokenmill.contracts.tokenizer import COMPILED_FORMAT, CompiledTokenizer, Prefix
from tokenmill.text.control_ids import ControlIds
from tokenmill.text.tokenizers.compiled import CompiledFile
from tokenmill.text.tokenizers.importing.byte_level_bpe import merge_ranks
from tokenmill.text.tokenizers.importing.source import PLAIN_BPE, TokenizerJson, refuse
from tokenmill.text.tokenizers.load import SENTENCEPIECE_MODEL, of_compiled

_BLANK = "\u2581"
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": _BLANK}
_PREPEND = {"type": "Prepend", "prepend": _BLANK}
_UNDERSTOOD = (
    'Prepend "\u2581" and Replace " " by "\u2581" (Llama 2), Replace alone, or Metaspace without '
    "split"
)


def compile_sentencepiece_json(
    source: TokenizerJson, control_ids: ControlIds, sources: Mapping[str, bytes]
) -> CompiledFile:
    """Compile a BPE with byte fallback and blanks as U+2581.

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
            "byte_fallback": (True,),
            "ignore_merges": (None, False),
        }
    )
    prefix = _prefix(source)
    added = source.found_in_text()
    if added:
        raise refuse(
            source.path, "added_tokens", added[0], "special tokens only, with blanks as U+2581"
        )
    model = _model(source, control_ids, prefix)
    settings = CompiledTokenizer(
        format=COMPILED_FORMAT,
        kind="sentencepiece",
        control_ids=control_ids,
        vocab_size=_size(source),
        prefix="unless-blank" if prefix == "unless-blank" else "none",
    )
    file = CompiledFile(settings, (), {SENTENCEPIECE_MODEL: model}, sources)
    return file._replace(token_bytes=of_compiled(file).token_bytes)


def _prefix(source: TokenizerJson) -> Prefix:
    """Return whether a text gets a blank; raise an error for what is not understood."""
    normalizers, pre = source.parts("normalizer"), source.parts("pre_tokenizer")
    if not pre and normalizers == [_PREPEND, _REPLACE]:
        return "always"
    if not pre and normalizers == [_REPLACE]:
        return "none"
    if not normalizers and len(pre) == 1 and pre[0]["type"] == "Metaspace":
        known = pre[0].get("replacement") == _BLANK and pre[0].get("split") is False
        if known:
            never = pre[0].get("prepend_scheme") == "never"
            return "none" if never else "unless-blank"
    found: Any = {name: source.values.get(name) for name in ("normalizer", "pre_tokenizer")}
    raise refuse(source.path, "normalizer and pre_tokenizer", found, _UNDERSTOOD)


def _size(source: TokenizerJson) -> int:
    ids = [*source.model["vocab"].values(), *(token.id for token in source.added_tokens())]
    return max(ids) + 1


def _model(source: TokenizerJson, control_ids: ControlIds, prefix: Prefix) -> bytes:
    """Write the SentencePiece model: the tokens in their order, scored by rank of their merge."""
    pieces = {i: piece for piece, i in source.model["vocab"].items()}
    controls = {token.id: token.content for token in source.added_tokens()}
    hidden = {*controls, *control_ids.by_name().values()}
    unk = source.model["vocab"].get(source.model.get("unk_token"))
    if unk is None:
        raise refuse(source.path, "model.unk_token", source.model.get("unk_token"), "a token")
    ranks = merge_ranks(source)
    proto = sentencepiece_model_pb2.ModelProto()
    types = sentencepiece_model_pb2.ModelProto.SentencePiece
    proto.trainer_spec.model_type = sentencepiece_model_pb2.TrainerSpec.BPE
    proto.trainer_spec.byte_fallback = True
    proto.normalizer_spec.name = "identity"
    proto.normalizer_spec.add_dummy_prefix = prefix == "always"
    proto.normalizer_spec.remove_extra_whitespaces = False
    byte_tokens = {f"<0x{byte:02X}>" for byte in range(256)}
    missing = byte_tokens - {*pieces.values()}
    if missing:
        raise refuse(source.path, "model.vocab", f"no {min(missing)}", "all 256 bytes")
    for i in range(_size(source)):
        piece = pieces.get(i, controls.get(i, f"\u0100{i}"))
        if i == unk:
            kind = types.UNKNOWN
        elif i in hidden or i not in pieces:
            kind = types.CONTROL
        elif piece in byte_tokens:
            kind = types.BYTE
        else:
            # Else SentencePiece would merge to it, where the library has no merge.
            kind = types.NORMAL if len(piece) == 1 or i in ranks else types.CONTROL
        proto.pieces.add(piece=piece, score=-(ranks.get(i, -1) + 1), type=kind)
    for name, i in control_ids.by_name().items():
        if name in ("unk", "bos", "eos", "pad"):
            setattr(proto.trainer_spec, f"{name}_id", i)
            setattr(proto.trainer_spec, f"{name}_piece", proto.pieces[i].piece)
    return proto.SerializeToString(deterministic=True)
