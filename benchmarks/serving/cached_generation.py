"""Generation with cached keys against computing the whole text anew for each token.

python benchmarks/serving/cached_generation.py [NEW_TOKENS ...]
"""

import json
import sys
import time

import tensorflow as tf

from tokenmill.export.decoder_signatures import ServedDecoder
from tokenmill.export.sampler import SamplerConfig
from tokenmill.model.decoder import Decoder
from tokenmill.model.generation import prefill
from tokenmill.model.shape import ModelShape

PROMPT_TOKENS = 16


def main() -> None:
    sizes = [int(x) for x in sys.argv[1:]] or [32, 64, 128, 256]
    shape = ModelShape(
        layers=4, d_model=256, heads=4, d_ff=1024, vocab_size=4096, sequence_length=512,
        positions="rope", norm="layer", use_bias=True, mlp="gelu", tie_embeddings=True,
    )  # fmt: skip
    decoder = Decoder(shape, 1)
    served = ServedDecoder(decoder, None, "float32")
    prompt = tf.range(4, 4 + PROMPT_TOKENS, dtype=tf.int32)[None]

    @tf.function
    def cached(new):
        greedy = SamplerConfig(
            tf.zeros([1]), tf.zeros([1], tf.int32), tf.ones([1]), tf.zeros([1], tf.int32)
        )
        ids = tf.RaggedTensor.from_tensor(prompt)
        return served.generate(ids, new[None], greedy, tf.constant([False]))["token_ids"]

    @tf.function(reduce_retracing=True)
    def anew(new):
        """As short a way as there is without a cache: the text so far, once for each token."""

        def extend(step, tokens):
            hidden, _ = prefill(decoder, tokens)
            token = tf.argmax(decoder.logits(hidden[:, -1]), -1, tf.int32)
            return step + 1, tf.concat([tokens, token[:, None]], 1)

        start = tf.concat([[[2]], prompt], 1)
        return tf.while_loop(
            lambda step, tokens: step < new,
            extend,
            [0, start],
            shape_invariants=[tf.TensorShape([]), tf.TensorShape([1, None])],
        )[1]

    for new in sizes:
        count = tf.constant(new)
        seconds = {}
        for name, function in (("cached", cached), ("anew", anew)):
            result = function(count)  # compiles, warms up
            times = []
            for _ in range(3):
                started = time.perf_counter()
                result = function(count)
                times.append(time.perf_counter() - started)
            seconds[name] = min(times)
        made = int(result.shape[1]) - PROMPT_TOKENS - 1
        print(
            json.dumps(
                {
                    "new_tokens": made,
                    "cached_seconds": round(seconds["cached"], 4),
                    "anew_seconds": round(seconds["anew"], 4),
                    "cached_ms_per_token": round(seconds["cached"] / new * 1e3, 3),
                    "anew_ms_per_token": round(seconds["anew"] / new * 1e3, 3),
                    "ratio": round(seconds["anew"] / seconds["cached"], 2),
                }
            ),
            flush=True,
        )


main()
