"""The preprocessing function of Transform: the tokenizer's graph on a batch of documents."""

from typing import Any

import tensorflow as tf

from tokenmill.text.tokenizers.load import read_tokenizer

TOKENIZER_PATH_KEY = "tokenizer_path"


def preprocessing_fn(inputs: dict[str, Any], custom_config: dict[str, Any]) -> dict[str, Any]:
    """Tokenize `text`; the other features pass through.

    Args:
        inputs: Dense string features text, source, doc_id and int64 byte_count, each of shape
            [batch, 1].
        custom_config: TOKENIZER_PATH_KEY names the tokenizer's file.

    Returns:
        token_ids: SparseTensor of int64, [batch, tokens], and the features doc_id, source,
        byte_count.
    """
    tokenizer = read_tokenizer(custom_config[TOKENIZER_PATH_KEY])
    token_ids = tokenizer.tokenize(tf.reshape(inputs["text"], [-1]))
    outputs = {name: inputs[name] for name in ("doc_id", "source", "byte_count")}
    outputs["token_ids"] = tf.cast(token_ids, tf.int64).to_sparse()
    return outputs
