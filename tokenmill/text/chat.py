r"""Conversations as one string that says of each piece whether it is a token and whether an answer.

Curation writes it, Transform and the signatures of a pushed model read it, and who serves a model
makes its prompts so. A piece begins with a mark that no message can hold (it is taken out of them)
and a digit for its kind:

    <mark>1<|im_start|><mark>0user\nHi<mark>1<|im_end|><mark>0\n<mark>1<|im_start|>...
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tokenmill.contracts.chat import ChatFormat
from tokenmill.text.chat_template import MARK, ChatTemplate, Piece

if TYPE_CHECKING:
    import tensorflow as tf

# Digits of a piece's kind.
_SPECIAL, _ANSWER = 1, 2


class Chat:
    """Writes conversations as one string each; the same for training and serving.

    Args:
        chat_format: The template, and the tokens that it writes.
    """

    def __init__(self, chat_format: ChatFormat):
        self._template = ChatTemplate(
            chat_format.template, chat_format.special_tokens, chat_format.variables
        )
        self._adds_blank = chat_format.adds_blank

    def conversation(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Write a conversation to learn from.

        Args:
            messages: Its turns: role and content, strings.

        Raises:
            TokenmillError: The template refuses it (`ChatTemplate.pieces`).
        """
        return self._join(self._template.pieces(messages))

    def prompt(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Write a conversation whose next answer is to be generated.

        Raises:
            TokenmillError: The template refuses it.
        """
        return self._join(self._template.prompt(messages))

    def _join(self, pieces: Sequence[Piece]) -> str:
        parts = []
        after_text = False
        for piece in pieces:
            text = piece.text
            if self._adds_blank and after_text and not piece.is_special:
                # The tokenizer puts one there, as it does at the beginning of the whole text.
                text = text.removeprefix(" ")
            parts.append(f"{MARK}{_SPECIAL * piece.is_special + _ANSWER * piece.is_answer}{text}")
            after_text = not piece.is_special
        return "".join(parts)


@functools.lru_cache(maxsize=4)
def chat_of(chat_format: str) -> Chat:
    """Return what writes conversations by the JSON of a `ChatFormat`, made once in a process."""
    return Chat(ChatFormat.model_validate(json.loads(chat_format)))


class ChatTokens(NamedTuple):
    """Token ids of conversations.

    Attributes:
        ids: int32, ragged [batch, tokens].
        answers: float32, ragged likewise: 1 where a token is a part of an answer, else 0.
    """

    ids: tf.RaggedTensor
    answers: tf.RaggedTensor


def chat_tokens(
    conversations: tf.Tensor,
    tokenize: Callable[[tf.Tensor], tf.RaggedTensor],
    special_tokens: Mapping[str, int],
) -> ChatTokens:
    """Tokenize what `Chat` wrote, in TensorFlow's graph.

    Args:
        conversations: string [batch].
        tokenize: string [n] -> int32, ragged [n, tokens].
        special_tokens: Ids by the token's text.

    Returns:
        Ids and answers; the tokens of a piece do not reach into the next. Fails on what `Chat` did
        not write.
    """
    import tensorflow as tf  # curation's workers do without it

    parts = tf.strings.split(conversations, MARK)
    sound = tf.reduce_all(parts[:, :1].flat_values == "")
    pieces = parts[:, 1:]
    flat = pieces.flat_values
    kind, text = tf.strings.substr(flat, 0, 1), tf.strings.substr(flat, 1, 1 << 30)
    kinds = [str(number) for number in range(_SPECIAL + _ANSWER + 1)]
    sound &= tf.reduce_all(tf.reduce_any(kind[:, None] == tf.constant(kinds)[None], axis=1))
    is_special = (kind == kinds[_SPECIAL]) | (kind == kinds[_SPECIAL + _ANSWER])
    is_answer = (kind == kinds[_ANSWER]) | (kind == kinds[_SPECIAL + _ANSWER])
    names = sorted(special_tokens)
    # One column more, so that there is one where no token is special.
    named = text[:, None] == tf.constant([*names, MARK])[None]
    sound &= tf.reduce_all(tf.reduce_any(named, axis=1) | ~is_special)
    with tf.control_dependencies(
        [tf.debugging.Assert(sound, ["not a conversation as Chat of tokenmill writes it"])]
    ):
        number = tf.argmax(tf.cast(named, tf.int32), axis=1)
    values = tf.constant([*(special_tokens[name] for name in names), 0], tf.int32)
    special = tf.RaggedTensor.from_row_lengths(
        tf.boolean_mask(tf.gather(values, number), is_special), tf.cast(is_special, tf.int64)
    )
    of_text = tf.cast(tokenize(tf.where(is_special, "", text)), tf.int32)
    tokens = tf.concat([special, of_text], axis=1)
    answers = tf.repeat(tf.cast(is_answer, tf.float32), tokens.row_lengths())

    def by_conversation(of_tokens: tf.Tensor) -> tf.RaggedTensor:
        splits = tf.gather(tokens.row_splits, pieces.row_splits)
        return tf.RaggedTensor.from_row_splits(of_tokens, splits)

    return ChatTokens(by_conversation(tokens.flat_values), by_conversation(answers))
