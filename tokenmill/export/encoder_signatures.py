"""Computations of an encoder's signatures: vectors, classes, and the loss at hidden tokens."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tokenmill.contracts.served_model import Pooling, Quantization
from tokenmill.export.decoder_signatures import Rows, ServedDecoder, cut_into_rows
from tokenmill.export.scoring import SCORES, score_rows
from tokenmill.export.text_masking import TextMasking
from tokenmill.model.build import Encoder
from tokenmill.text.control_ids import TOKENMILL_CONTROL_IDS, ControlIds

_FRAME = 2  # CLS and SEP
# What torch's normalize divides by at least.
_LEAST_NORM = 1e-12


class ServedEncoder(ServedDecoder):
    """An encoder with its tokenizer; texts are framed as in training, `CLS tokens SEP`.

    Args:
        model: The trained encoder.
        tokenize: string [batch] -> ragged int32 [batch, tokens].
        quantization: How the weights are stored.
        masking: What `evaluate` hides; a classifier needs none.
        label_names: The classes of a classifier, ascending.
        control_ids: Of the tokenizer.
        tokens: As for `ServedDecoder`.
        pooling: What `embed` computes; None for the mean over all rows of a text.
    """

    def __init__(
        self,
        model: Encoder,
        tokenize: Any,
        quantization: Quantization,
        masking: TextMasking | None = None,
        label_names: Sequence[str] | None = None,
        control_ids: ControlIds = TOKENMILL_CONTROL_IDS,
        tokens: int | None = None,
        pooling: Pooling | None = None,
    ):
        super().__init__(model, tokenize, quantization, control_ids, tokens)
        self._masking = masking
        self._pooling = pooling
        self._labels = np.array([name.encode() for name in label_names or ()], object)

    def evaluate(self, ids: tf.RaggedTensor) -> dict[str, tf.Tensor]:
        """Hide tokens of each text by the fixed draw and score the model at them.

        Returns a dict: every sum of tokenmill/export/scoring.py over a text's hidden tokens, and
        token_count, how many these are (int32 [batch]); a short text may have none.
        """
        assert self._masking is not None, "only a masked language model is evaluated"
        batch = ids.nrows(out_type=tf.int32)
        hidden, weights = self._masking.hide(ids)
        rows = self._framed(hidden, ids, weights)
        with self.weights_in_use():
            sums = self._map_rows(rows, self._evaluate_rows, (tf.float32,) * len(SCORES))
        by_text = {
            name: tf.math.unsorted_segment_sum(value, rows.texts, batch)
            for name, value in zip(SCORES, sums, strict=True)
        }
        return {**by_text, "token_count": tf.cast(tf.reduce_sum(weights, axis=1), tf.int32)}

    def logits(self, token_ids: tf.Tensor) -> tf.Tensor:
        """Compute the logits at each token.

        int32 [batch, width] of `CLS tokens SEP` -> float32 [batch, width, vocabulary].
        """
        return super().logits(token_ids)

    def classify(self, ids: tf.RaggedTensor) -> dict[str, tf.Tensor]:
        """Classify each text, of which as many tokens as the context holds are read.

        Returns a dict: label (string [batch]); probabilities (float32 [batch, classes]) and labels,
        their names in the same order (string [batch, classes]); token_count and truncated_tokens
        (int32 [batch]).
        """
        logits, read, truncated = self._class_logits(ids)
        names = tf.constant(self._labels, tf.string)
        return {
            "probabilities": tf.nn.softmax(logits),
            "label": tf.gather(names, tf.argmax(logits, -1, tf.int32)),
            "labels": tf.tile(names[None], [tf.shape(logits)[0], 1]),
            "token_count": read,
            "truncated_tokens": truncated,
        }

    def embed(self, ids: tf.RaggedTensor) -> dict[str, tf.Tensor]:
        """Make one vector of each text.

        Without a pooling, as `ServedDecoder.embed` says. With one, of as many tokens as that reads;
        then the dict has truncated_tokens (int32 [batch]), too, and token_count is what is read.
        """
        pooling = self._pooling
        if pooling is None:
            return super().embed(ids)
        rows, read, truncated = self._first_rows(ids, min(pooling.max_tokens, self.context_length))
        of_rows = self._embed_rows if pooling.mode == "mean" else self._first_vectors
        with self.weights_in_use():
            (vectors,) = self._map_rows(rows, of_rows, (tf.float32,))
        if pooling.mode == "mean":
            vectors /= tf.reduce_sum(rows.used, -1, keepdims=True)
        if pooling.normalized:
            vectors /= tf.maximum(tf.norm(vectors, axis=-1, keepdims=True), _LEAST_NORM)
        return {"embedding": vectors, "token_count": read, "truncated_tokens": truncated}

    def _first_vectors(self, inputs, targets, used):
        del targets
        return (tf.cast(self._hidden(inputs, used)[:, 0], tf.float32),)

    def evaluate_classes(self, ids: tf.RaggedTensor, labels: tf.Tensor) -> dict[str, tf.Tensor]:
        """Score the class of each text against its label.

        A text without a token, or with a label that is none of the classes (or none at all), counts
        nowhere, as the Packer leaves such documents out.

        Args:
            ids: int32 ragged [batch, tokens].
            labels: string [batch].

        Returns:
            Sums of tokenmill/export/scoring.py over the one target of each text; example_count (1
            if the text counts, int32 [batch]); label_id and predicted_id (int32 [batch]);
            probabilities (float32 [batch, classes]); label_names (string [batch, classes]);
            token_count (int32 [batch]).
        """
        logits, read, _ = self._class_logits(ids)
        names = tf.constant(self._labels, tf.string)
        is_it = labels[:, None] == names[None]
        used = tf.cast(tf.reduce_any(is_it, -1) & (read > 0), tf.int32)
        label_id = tf.argmax(tf.cast(is_it, tf.int32), -1, tf.int32)
        return {
            **score_rows(logits[:, None], label_id[:, None], used[:, None]),
            "example_count": used,
            "label_id": label_id,
            "predicted_id": tf.argmax(logits, -1, tf.int32),
            "probabilities": tf.nn.softmax(logits),
            "label_names": tf.tile(names[None], [tf.shape(logits)[0], 1]),
            "token_count": read,
        }

    def _class_logits(self, ids: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Compute logits of classes, and count the tokens that are read and cut off.

        Returns float32 [batch, classes] and twice int32 [batch].
        """
        rows, read, truncated = self._first_rows(ids, self.context_length)
        with self.weights_in_use():
            logits = self.decoder.logits(self._hidden(rows.inputs, rows.used)[:, 0])
        return logits, read, truncated

    def _first_rows(self, ids: tf.RaggedTensor, longest: int) -> tuple[Rows, tf.Tensor, tf.Tensor]:
        """Make one row of the beginning of each text, of `longest` tokens at most, framed.

        Returns the rows, and twice int32 [batch]: the tokens that are read, and cut off.
        """
        counts = tf.cast(ids.row_lengths(), tf.int32)
        read = tf.minimum(counts, longest - _FRAME)
        return self._rows(ids[:, : longest - _FRAME]), read, counts - read

    def _rows(self, ids: tf.RaggedTensor) -> Rows:
        """Cut texts into rows whose `used` is 1 at their tokens, CLS and SEP."""
        rows = self._framed(
            ids, ids, ids.with_flat_values(tf.ones_like(ids.flat_values, tf.float32))
        )
        return rows._replace(used=tf.cast(rows.inputs != self.padding, tf.float32))

    def _framed(
        self, inputs: tf.RaggedTensor, targets: tf.RaggedTensor, weights: tf.RaggedTensor
    ) -> Rows:
        """Cut texts as packing cuts the eval split, each row with a CLS and SEP of its own.

        Args:
            inputs: int32 [batch, tokens], what the model sees.
            targets: int32 [batch, tokens].
            weights: float32 [batch, tokens], what goes into `Rows.used`.
        """
        # An empty text is a bare frame.
        tokens, wanted, used, texts = cut_into_rows(
            inputs, targets, weights, self.context_length - _FRAME, self.padding
        )
        frame = [[0, 0], [1, 1]]
        tokens = tf.pad(tokens, frame, constant_values=self.padding)
        slot = tf.range(tf.shape(tokens)[1])[None]
        # Text never encodes to padding, and nothing is replaced by it.
        end = 1 + tf.reduce_sum(tf.cast(tokens != self.padding, tf.int32), -1, keepdims=True)
        begins, ends = map(self.control_ids.need, ("cls", "sep"))
        tokens = tf.where(slot == 0, begins, tf.where(slot == end, ends, tokens))
        return Rows(tokens, tf.pad(wanted, frame), tf.pad(used, frame), texts)

    def _hidden(self, inputs: tf.Tensor, used: tf.Tensor) -> tf.Tensor:
        """Run the encoder up to its head; padding is not attended to.

        int32 [rows, width] -> [rows, width, d_model].
        """
        del used
        positions = tf.broadcast_to(tf.range(tf.shape(inputs)[1])[None], tf.shape(inputs))
        segment_ids = tf.cast(inputs != self.padding, tf.int32)
        return self.decoder.hidden(self._embeddable(inputs), segment_ids, positions)
