"""The SavedModel that is pushed: raw text in, scores or text out, tokenisation in the graph.

Signatures (each takes and gives batches):
    serving_default, score: `text` -> log-likelihood sums, token and byte counts, bits per byte.
    generate: `text`, `max_new_tokens`, `temperature`, `seed` -> `text`, token counts.
    evaluate: `examples` (serialised tf.Examples with a `text` feature) -> what score gives.
"""

import os

import tensorflow as tf
import tensorflow_transform as tft

from components.tokenize.preprocessing import load_tokenizer
from components.tokenize.vocabulary import BOS_ID, EOS_ID
from components.train.models.decoder import Decoder
from components.train.scoring import SCORES, score_rows

# Rows scored at once; bounds the memory that a long document or a large request takes.
_SCORE_ROWS = 8

_EVALUATED_ONLY = frozenset(SCORES) - {"nll_sum", "correct_count"}


class ServedDecoder(tf.Module):
    """A decoder with its tokeniser, as it is saved.

    Args:
        model: The trained decoder.
        transform_output: Transform's output; its graph turns raw text into ids.
        tokenizer_path: The SentencePiece model, for turning ids back into text.
    """

    def __init__(
        self, model: Decoder, transform_output: tft.TFTransformOutput, tokenizer_path: str
    ):
        super().__init__()
        self.model = model
        self.transform = transform_output.transform_features_layer()
        self.tokenizer = load_tokenizer(tokenizer_path)
        self._length = model.shape_config.sequence_length

    def _token_ids(self, text: tf.Tensor) -> tf.RaggedTensor:
        """String [batch] -> int32 ragged [batch, tokens], by Transform's graph."""
        blank = tf.fill([tf.shape(text)[0], 1], b"")
        features = {
            "text": text[:, None],
            "doc_id": blank,
            "source": blank,
            "byte_count": tf.zeros([tf.shape(text)[0], 1], tf.int64),
        }
        ids = tf.RaggedTensor.from_sparse(self.transform(features)["token_ids"])
        return tf.cast(ids, tf.int32)

    def _score(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Scores each text exactly as packing cuts it: rows of whole questions, none twice."""
        length, batch = self._length, tf.shape(text)[0]
        ids = self._token_ids(text)
        begin = tf.fill([batch, 1], BOS_ID)
        end = tf.fill([batch, 1], EOS_ID)
        inputs = tf.concat([begin, ids], axis=1)
        targets = tf.concat([ids, end], axis=1)
        counts = tf.cast(inputs.row_lengths(), tf.int32)
        rows_each = (counts + length - 1) // length
        width = tf.maximum(tf.reduce_max(rows_each), 1) * length

        def rows(ragged: tf.RaggedTensor) -> tf.Tensor:
            dense = tf.reshape(ragged.to_tensor(shape=[None, None]), [batch, -1])
            dense = tf.pad(dense, [[0, 0], [0, width - tf.shape(dense)[1]]])
            return tf.reshape(dense, [-1, length])

        used = rows(tf.ones_like(inputs))
        documents = tf.repeat(tf.range(batch), width // length)
        real = used[:, 0] > 0  # a document shorter than the longest leaves empty rows
        parts = [tf.boolean_mask(x, real) for x in (rows(inputs), rows(targets), used)]
        documents = tf.boolean_mask(documents, real)
        missing = -tf.shape(documents)[0] % _SCORE_ROWS
        grouped = [
            tf.reshape(tf.pad(x, [[0, missing], [0, 0]]), [-1, _SCORE_ROWS, length]) for x in parts
        ]
        by_row = tf.map_fn(
            lambda group: self._score_rows(*group),
            tuple(grouped),
            fn_output_signature=dict.fromkeys(SCORES, tf.float32),
            parallel_iterations=1,
        )
        sums = {
            name: tf.math.unsorted_segment_sum(
                tf.reshape(x, tf.concat([[-1], tf.shape(x)[2:]], 0))[: tf.shape(documents)[0]],
                documents,
                batch,
            )
            for name, x in by_row.items()
        }
        byte_count = tf.strings.length(text)
        bits = sums["nll_sum"] / tf.math.log(2.0)
        return {
            **sums,
            "token_count": counts,
            "byte_count": byte_count,
            "bits_per_byte": tf.math.divide_no_nan(bits, tf.cast(byte_count, tf.float32)),
        }

    def _score_rows(self, inputs, targets, used):
        """int32 [rows, T] three times -> what `score_rows` counts."""
        positions = tf.broadcast_to(tf.range(self._length)[None], tf.shape(inputs))
        return score_rows(self.model(inputs, used, positions), targets, used)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def score(self, text):
        """Log-likelihood of each text, its end included.

        Returns a dict: nll_sum (float32, nats), correct_count (float32, targets guessed right),
        token_count (int32, targets: the text's tokens and the end), byte_count (int32),
        bits_per_byte (float32); each of shape [batch].
        """
        scores = self._score(text)
        return {name: value for name, value in scores.items() if name not in _EVALUATED_ONLY}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def evaluate(self, examples):
        """What `score` gives, and the sums of `score_rows`, for tf.Examples as TFMA sends them."""
        features = tf.io.parse_example(examples, {"text": tf.io.FixedLenFeature([], tf.string)})
        return self._score(features["text"])

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="text"),
            tf.TensorSpec([], tf.int32, name="max_new_tokens"),
            tf.TensorSpec([], tf.float32, name="temperature"),
            tf.TensorSpec([], tf.int32, name="seed"),
        ]
    )
    def generate(self, text, max_new_tokens, temperature, seed):
        """Continues each text until its end or for `max_new_tokens` tokens.

        A prompt that leaves no room in the context keeps its last tokens. Temperature 0 takes
        the likeliest token; the same seed gives the same text.

        Returns a dict: text (string, the continuation), prompt_tokens and completion_tokens
        (int32); each of shape [batch].
        """
        length, batch = self._length, tf.shape(text)[0]
        new = tf.clip_by_value(max_new_tokens, 1, length - 1)
        room = length - new
        prompt = tf.concat([tf.fill([batch, 1], BOS_ID), self._token_ids(text)], axis=1)
        prompt = prompt[:, -room:]
        prompt_lengths = tf.cast(prompt.row_lengths(), tf.int32)
        tokens = tf.reshape(prompt.to_tensor(shape=[None, length]), [batch, length])
        positions = tf.broadcast_to(tf.range(length)[None], [batch, length])

        def open_ended(step, tokens, lengths, finished):
            return (step < new) & ~tf.reduce_all(finished)

        def extend(step, tokens, lengths, finished):
            segments = tf.cast(positions < lengths[:, None], tf.int32)
            hidden = self.model.hidden(tokens, segments, positions)
            last = tf.gather(hidden, lengths - 1, axis=1, batch_dims=1)
            logits = self.model.logits(last)
            sampled = tf.random.stateless_categorical(
                logits / tf.maximum(temperature, 1e-6), 1, seed=[seed, step], dtype=tf.int32
            )[:, 0]
            likeliest = tf.argmax(logits, -1, tf.int32)
            token = tf.where(temperature > 0, sampled, likeliest)
            finished |= token == EOS_ID
            grows = tf.cast(~finished, tf.int32)
            place = tf.one_hot(lengths, length, dtype=tf.int32) * grows[:, None]
            tokens = tokens * (1 - place) + token[:, None] * place
            return step + 1, tokens, lengths + grows, finished

        _, tokens, lengths, _ = tf.while_loop(
            open_ended,
            extend,
            [tf.constant(0), tokens, prompt_lengths, tf.zeros([batch], tf.bool)],
        )
        is_new = (positions >= prompt_lengths[:, None]) & (positions < lengths[:, None])
        completion = self.tokenizer.detokenize(tf.ragged.boolean_mask(tokens, is_new))
        return {
            "text": completion,
            "prompt_tokens": prompt_lengths - 1,  # BOS is ours, not the user's
            "completion_tokens": lengths - prompt_lengths,
        }


def export_model(
    model: Decoder, transform_graph_uri: str, tokenizer_path: str, directory: str
) -> None:
    """Writes the SavedModel, with the SentencePiece model in `assets.extra`."""
    served = ServedDecoder(model, tft.TFTransformOutput(transform_graph_uri), tokenizer_path)
    score = served.score.get_concrete_function()
    tf.saved_model.save(
        served,
        directory,
        signatures={
            "serving_default": score,
            "score": score,
            "generate": served.generate.get_concrete_function(),
            "evaluate": served.evaluate.get_concrete_function(),
        },
    )
    extra = os.path.join(directory, "assets.extra")
    tf.io.gfile.makedirs(extra)
    tf.io.gfile.copy(tokenizer_path, os.path.join(extra, "tokenizer.model"), overwrite=True)
