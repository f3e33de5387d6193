"""What the gateway reads of a pushed version itself: its shape, tokenizer and chat format."""

from __future__ import annotations

import os
from collections.abc import Sequence

import tensorflow as tf

from tokenmill.contracts.chat import find_chat_format
from tokenmill.contracts.served_model import read_served_model
from tokenmill.contracts.tokenizer import TOKENIZER_PATH
from tokenmill.text.chat import chat_tokens
from tokenmill.text.tokenizers.load import read_tokenizer


class ModelAssets:
    """The files in `assets.extra` of a version.

    Args:
        directory: Of the version.

    Attributes:
        shape: Sizes of the model.
        control_ids: Of its tokenizer.
        token_bytes: What each id stands for; None for control tokens.
        chat_format: Of a model of conversations.
    """

    def __init__(self, directory: str):
        self.shape = read_served_model(directory).model_shape
        self.chat_format = find_chat_format(os.path.join(directory, "assets.extra"))
        tokenizer = read_tokenizer(os.path.join(directory, TOKENIZER_PATH))
        self.control_ids = tokenizer.control_ids
        self.token_bytes = tokenizer.token_bytes
        # In a graph, its ops hold the model.
        strings = [tf.TensorSpec([None], tf.string)]
        self._tokenize = tf.function(tokenizer.tokenize, input_signature=strings, autograph=False)
        special = self.chat_format.special_tokens if self.chat_format is not None else {}
        self._chat_ids = tf.function(
            lambda prompts: chat_tokens(prompts, tokenizer.tokenize, special).ids,
            input_signature=strings,
            autograph=False,
        )

    @property
    def padding(self) -> int:
        """Return what fills arrays of ids up."""
        return self.control_ids.padding

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of texts, without begin and end; as training does."""
        return self._tokenize(tf.constant([text.encode() for text in texts], tf.string)).to_list()

    def chat_ids(self, prompt: str) -> list[int]:
        """Return the ids of what tokenmill.text.chat.Chat.prompt wrote."""
        return self._chat_ids(tf.constant([prompt.encode()])).to_list()[0]
