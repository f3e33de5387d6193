"""The preprocessing function of Transform: raw text to token ids, inside the TensorFlow graph.

The same graph is applied to the training data and, in the pushed model, to a request's text.
"""

from typing import Any

import tensorflow as tf
import tensorflow_text as tf_text

TOKENIZER_PATH_KEY = "tokenizer_path"


def load_tokenizer(path: str) -> tf_text.SentencepieceTokenizer:
    """The tf.text tokeniser of a SentencePiece model file.

    The op takes the model as bytes when the graph is built, so the model is part of the graph.
    It, not the sentencepiece library, is what counts tokens everywhere: for the unigram model
    the two break ties between equal splits differently.
    """
    with tf.io.gfile.GFile(path, "rb") as source:
        return tf_text.SentencepieceTokenizer(model=source.read(), out_type=tf.int32)


def preprocessing_fn(inputs: dict[str, Any], custom_config: dict[str, Any]) -> dict[str, Any]:
    """Tokenises `text`; the other features pass through.

    Args:
        inputs: Dense string features text, source, doc_id and int64 byte_count, each of shape
            [batch, 1].
        custom_config: TOKENIZER_PATH_KEY names the SentencePiece model.

    Returns:
        token_ids: SparseTensor of int64, [batch, tokens], and the features doc_id, source,
        byte_count.
    """
    tokenizer = load_tokenizer(custom_config[TOKENIZER_PATH_KEY])
    token_ids = tokenizer.tokenize(tf.reshape(inputs["text"], [-1]))
    outputs = {name: inputs[name] for name in ("doc_id", "source", "byte_count")}
    outputs["token_ids"] = tf.cast(token_ids, tf.int64).to_sparse()
    return outputs
