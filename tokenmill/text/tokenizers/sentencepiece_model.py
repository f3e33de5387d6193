"""SentencePiece models in TensorFlow's graph: those that tokenmill trains, and those of others.

A model that begins each text with a blank (Llama 2, Mistral: the dummy prefix) gives a text the
tokens of its words, too, once the blank is put before the text and no longer by the model. So its
texts are cut as tokenmill's own are.
"""

from __future__ import annotations

import sentencepiece
import tensorflow as tf
import tensorflow_text as tf_text
from sentencepiece import sentencepiece_model_pb2

from tokenmill.text.control_ids import ControlIds
from tokenmill.text.tokenization import PART_BYTES, may_cut, repair_utf8, tokenize
from tokenmill.text.tokenizers.base import Tokenizer, join_tokens, token_strings
from tokenmill.text.tokenizers.byte_level_bpe import LONGEST_WORD, prefixed
from tokenmill.text.vocabulary import CONTROL_TOKENS

_ESCAPED_BLANK = "\u2581"
_BLANK = f"[ {_ESCAPED_BLANK}]"


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece tokenizer.

    Args:
        model: The model file's content.
        control_ids: If not those that the model itself names.
        prefix: "always" or "unless-blank" for a blank before each text that the model itself does
            not put there.

    Attributes:
        prefix: The same, and of a model that puts one there itself.
    """

    def __init__(self, model: bytes, control_ids: ControlIds | None = None, prefix: str = "none"):
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.control_ids = control_ids or control_ids_of(processor)
        self.vocab_size = processor.get_piece_size()
        self.token_bytes = _token_bytes(processor)
        self.prefix = prefix
        self._cut = may_cut(model)
        self._part_bytes = PART_BYTES
        if not self._cut:
            without, had_prefix = _without_dummy_prefix(model)
            if may_cut(without, blanks_for_2581=True):
                model, self._cut, self._part_bytes = without, True, LONGEST_WORD
                self.prefix = "always" if had_prefix else prefix
        self._op = tf_text.SentencepieceTokenizer(model, out_type=tf.int32)

    def resources(self) -> list[tf.Module]:
        """Return the ops that hold a model."""
        return [self._op]

    def tokenize(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Tokenize texts: string [batch] -> int32, ragged [batch, tokens]."""
        if self._part_bytes != PART_BYTES:
            # The model takes it for a blank, and before blanks texts are cut.
            text = tf.strings.regex_replace(repair_utf8(text), _ESCAPED_BLANK, " ")
        text = prefixed(text, self.prefix, _BLANK)
        return tokenize(self._op, text, self._cut, self._part_bytes)

    def detokenize(self, ids: tf.RaggedTensor) -> tf.Tensor:
        """Turn ids into text: int32, ragged [batch, tokens] -> string [batch]."""
        if self.prefix == "none":
            return self._op.detokenize(ids)
        # The op would take all blanks before a text away, not the one that was put there.
        joined = join_tokens(token_strings(self.token_bytes), ids)
        return tf.strings.regex_replace(joined, "^ ", "")


def is_tokenmills(model: bytes | None) -> bool:
    """Tell whether a file is a SentencePiece model with the escapes of those tokenmill trains."""
    if model is None:
        return False
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    except (RuntimeError, OSError):  # no model; who takes it in the end says so
        return False
    escaped = processor.normalize("\u2581\ue000")
    return bool(escaped == "\ue000.\ue000-")


def control_ids_of(processor: sentencepiece.SentencePieceProcessor) -> ControlIds:
    """Return the ids that a model says its control tokens have.

    MASK, CLS and SEP have no role in SentencePiece: they go by tokenmill's names for them.
    """
    roles = {
        name: value if value >= 0 else None
        for name, value in (
            ("pad", processor.pad_id()),
            ("unk", processor.unk_id()),
            ("bos", processor.bos_id()),
            ("eos", processor.eos_id()),
        )
    }
    for name, token in zip(("mask", "cls", "sep"), CONTROL_TOKENS[4:7], strict=True):
        found = processor.piece_to_id(token)
        named = processor.is_control(found) and processor.id_to_piece(found) == token
        roles[name] = found if named else None
    return ControlIds(**roles)


def _token_bytes(processor: sentencepiece.SentencePieceProcessor) -> tuple[bytes | None, ...]:
    def value(i: int) -> bytes | None:
        if processor.is_control(i) or processor.is_unknown(i) or processor.is_unused(i):
            return None
        piece = processor.id_to_piece(i)
        if processor.is_byte(i):
            return bytes([int(piece[1:-1], 16)])
        return piece.replace("\u2581", " ").encode()

    return tuple(map(value, range(processor.get_piece_size())))


def _without_dummy_prefix(model: bytes) -> tuple[bytes, bool]:
    """Return the model without its dummy prefix, and whether it put a blank before a text."""
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    suffix = proto.trainer_spec.treat_whitespace_as_suffix
    if not proto.normalizer_spec.add_dummy_prefix or suffix:
        return model, False
    proto.normalizer_spec.add_dummy_prefix = False
    return proto.SerializeToString(deterministic=True), True
