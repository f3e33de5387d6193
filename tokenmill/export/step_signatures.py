"""Signatures that take and give the cache, for servers that send tokens as they are made.

`generate` answers in one call. A server that streams, or that lets texts join and leave a batch
between two tokens, keeps the keys and values itself:

    prefill_ids: token_ids (int32 [batch, width], begin included, padding at the right) -> logits
        (float32 [batch, vocabulary]) after the last token, and for each layer i keys_i and values_i
        (float32 [batch, kv_heads, width, head_dim]).
    decode_ids: token_ids (int32 [batch]), positions (int32 [batch]: how many tokens stand before),
        keys_i and values_i (as above, of any width from `positions` on) -> logits after the token,
        and its own keys_i and values_i (float32 [batch, kv_heads, head_dim]), which the caller
        writes into its cache at `positions`.
    sample: logits, step (int32 [batch]: tokens generated before), temperature, top_k, top_p and
        seed -> token_ids (int32 [batch]): those that generate would choose.
    log_probabilities_ids: token_ids as for prefill_ids -> log_probabilities (float32 [batch,
        width]) of each token given those before it, the first 0; likeliest_ids (int32) and
        likeliest_log_probabilities (float32), [batch, width, MOST_LIKELIEST], best first.

Logits are over all rows of the embedding, as training's likelihood is.
"""

from __future__ import annotations

import inspect
from typing import Any

import tensorflow as tf

from tokenmill.export.decoder_signatures import ServedDecoder
from tokenmill.export.sampler import SamplerConfig, check_sampling, choose, require, uniforms
from tokenmill.model.generation import LayerCache, decode_beside, prefill
from tokenmill.model.shape import ModelShape

MOST_LIKELIEST = 20
"""Likeliest tokens that log_probabilities_ids names, as many as OpenAI's API may ask for."""


def cache_names(layers: int) -> list[str]:
    """Return the names of a cache's tensors: keys_0, values_0, keys_1, .."""
    return [f"{part}_{layer}" for layer in range(layers) for part in ("keys", "values")]


class StepSignatures:
    """The functions of a decoder that takes and gives its cache.

    Args:
        served: The decoder.
        check_ids: Makes an operation that fails on ids that are none of the vocabulary.
    """

    def __init__(self, served: ServedDecoder, check_ids: Any):
        self._served, self._check_ids = served, check_ids
        self._shape: ModelShape = served.decoder.shape_config

    def signatures(self) -> dict[str, Any]:
        """Make the functions to save, by name."""
        shape = self._shape
        ids = tf.TensorSpec([None, None], tf.int32, name="token_ids")
        each = {
            name: tf.TensorSpec([None], dtype, name=name)
            for name, dtype in (
                ("token_ids", tf.int32),
                ("positions", tf.int32),
                ("step", tf.int32),
                ("temperature", tf.float32),
                ("top_k", tf.int32),
                ("top_p", tf.float32),
                ("seed", tf.int32),
            )
        }
        heads, width = shape.key_value_heads, shape.head_width
        caches = [
            tf.TensorSpec([None, heads, None, width], tf.float32, name=name)
            for name in cache_names(shape.layers)
        ]
        logits = tf.TensorSpec([None, shape.vocab_size], tf.float32, name="logits")
        options = [each[name] for name in ("step", "temperature", "top_k", "top_p", "seed")]
        return {
            "prefill_ids": _function(self._prefill, [ids]),
            "decode_ids": _function(self._decode, [each["token_ids"], each["positions"], *caches]),
            "sample": _function(self._sample, [logits, *options]),
            "log_probabilities_ids": _function(self._log_probabilities, [ids]),
        }

    def _texts(self, token_ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Check texts; return ids that an embedding has, and how many each text has."""
        served = self._served
        is_token = token_ids != served.padding
        if served.padding >= 0:  # padding may stand within a text that begins with it, nowhere else
            is_token = tf.reverse(
                tf.cumsum(tf.cast(tf.reverse(is_token, [1]), tf.int32), axis=1), [1]
            )
            is_token = is_token > 0
        counts = tf.reduce_sum(tf.cast(is_token, tf.int32), axis=1)
        longest = served.context_length
        checks = [
            self._check_ids(token_ids),
            require(counts > 0, "token_ids must have at least one token in each row"),
            require(
                tf.shape(token_ids)[1] <= longest,
                f"token_ids may have {longest} tokens at most, as the context has",
            ),
        ]
        with tf.control_dependencies(checks):
            return tf.maximum(token_ids, 0), tf.identity(counts)

    def _prefill(self, token_ids: tf.Tensor) -> dict[str, tf.Tensor]:
        served = self._served
        token_ids, counts = self._texts(token_ids)
        with served.weights_in_use():
            hidden, caches = prefill(served.decoder, token_ids)
            last = tf.gather(hidden, counts - 1, axis=1, batch_dims=1)
            logits = served.decoder.logits(last)
        return {"logits": tf.cast(logits, tf.float32), **_named(caches)}

    def _decode(
        self, token_ids: tf.Tensor, positions: tf.Tensor, *tensors: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        served = self._served
        slots = tf.shape(tensors[0])[2]
        checks = [
            self._check_ids(token_ids),
            require(token_ids >= 0, "token_ids must be tokens"),
            require(
                (positions >= 0) & (positions <= slots) & (positions < served.context_length),
                "positions must be from 0 to the width of keys_0, and below "
                f"{served.context_length}, the context",
            ),
        ]
        with tf.control_dependencies(checks):
            token_ids = tf.identity(token_ids)
        dtype = served.decoder.compute_dtype
        caches = [
            LayerCache(tf.cast(keys, dtype), tf.cast(values, dtype))
            for keys, values in zip(tensors[::2], tensors[1::2], strict=True)
        ]
        with served.weights_in_use():
            hidden, rows = decode_beside(served.decoder, token_ids, positions, caches)
            logits = served.decoder.logits(hidden)
        own = [LayerCache(row.keys[:, :, 0], row.values[:, :, 0]) for row in rows]
        return {"logits": tf.cast(logits, tf.float32), **_named(own)}

    def _sample(
        self,
        logits: tf.Tensor,
        step: tf.Tensor,
        temperature: tf.Tensor,
        top_k: tf.Tensor,
        top_p: tf.Tensor,
        seed: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        served = self._served
        sampling = SamplerConfig(temperature, top_k, top_p, seed)
        length = served.context_length
        in_context = require((step >= 0) & (step < length), f"step must be from 0 to {length - 1}")
        with tf.control_dependencies([in_context, *check_sampling(sampling)]):
            logits = tf.identity(logits)
        uniform = tf.cond(
            tf.reduce_any(temperature > 0),
            lambda: tf.gather(uniforms(seed, length), step, axis=1, batch_dims=1),
            lambda: tf.zeros_like(temperature),
        )
        tokens = choose(logits[:, : served.tokens], sampling, uniform, served.control_ids)
        return {"token_ids": tokens}

    def _log_probabilities(self, token_ids: tf.Tensor) -> dict[str, tf.Tensor]:
        served = self._served
        named = min(MOST_LIKELIEST, served.tokens)
        token_ids, _ = self._texts(token_ids)

        def of_row(row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            logits = served.decoder.logits(prefill(served.decoder, row[None])[0])[0]
            logits = tf.cast(logits, tf.float32)
            total = tf.reduce_logsumexp(logits, axis=-1, keepdims=True)
            chosen = tf.gather(logits[:-1], row[1:], batch_dims=1) - total[:-1, 0]
            best, ids = tf.math.top_k(logits[:-1, : served.tokens], named)
            # The likeliest in the place of a token follow from what stands before it.
            return (
                tf.pad(chosen, [[1, 0]]),
                tf.pad(ids, [[1, 0], [0, 0]]),
                tf.pad(best - total[:-1], [[1, 0], [0, 0]]),
            )

        with served.weights_in_use():
            chosen, ids, best = tf.map_fn(
                of_row,
                token_ids,
                fn_output_signature=(tf.float32, tf.int32, tf.float32),
                parallel_iterations=1,  # one row's logits at a time: bounds the memory
            )
        width, rest = tf.shape(token_ids)[1], [[0, 0], [0, 0], [0, MOST_LIKELIEST - named]]
        shape = [-1, width, named]  # of no rows, what is stacked has no shape
        return {
            "log_probabilities": tf.reshape(chosen, [-1, width]),
            "likeliest_ids": tf.pad(tf.reshape(ids, shape), rest, constant_values=-1),
            "likeliest_log_probabilities": tf.pad(
                tf.reshape(best, shape), rest, constant_values=float("-inf")
            ),
        }


def _named(caches: list[LayerCache]) -> dict[str, tf.Tensor]:
    tensors = [tf.cast(tensor, tf.float32) for cache in caches for tensor in cache]
    return dict(zip(cache_names(len(caches)), tensors, strict=True))


def _function(compute: Any, specs: list[tf.TensorSpec]) -> Any:
    """Make a function of a signature whose inputs are named as the specs are."""

    def function(*inputs):
        return compute(*inputs)

    # What is saved calls its inputs by the parameters' names, and *inputs has none.
    parameters = [
        inspect.Parameter(spec.name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for spec in specs
    ]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return tf.function(function, input_signature=specs, autograph=False)
