"""The preprocessing function of Transform: the tokenizer's graph on a batch of documents."""

from typing import Any

import tensorflow as tf

from tokenmill.text.tokenization import load_tokenizer, may_cut, tokenize

TOKENIZER_PATH_KEY = "tokenizer_path"


def preprocessing_fn(inputs: dict[str, Any], custom_config: dict[str, Any]) -> dict[str, Any]:
    """Tokenize `text`; the other features pass through.

    Args:
        inputs: Dense string features text, source, doc_id and int64 byte_count, each of shape
            [batch, 1].
        custom_config: TOKENIZER_PATH_KEY names the SentencePiece model.

    Returns:
        token_ids: SparseTensor of int64, [batch, tokens], and the features doc_id, source,
        byte_count.
    """
    path = custom_config[TOKENIZER_PATH_KEY]
    with tf.io.gfile.GFile(path, "rb") as source:
        cut = may_cut(source.read())
    token_ids = tokenize(load_tokenizer(path), tf.reshape(inputs["text"], [-1]), cut)
    outputs = {name: inputs[name] for name in ("doc_id", "source", "byte_count")}
    outputs["token_ids"] = tf.cast(token_ids, tf.int64).to_sparse()
    return outputs
