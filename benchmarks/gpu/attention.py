"""Time and memory of one layer's attention, forward and backward: blocks of scores, and fused.

`blocks` is the formula of tokenmill/model/layers.py written in JAX (eight blocks of queries,
none of which sees keys after its end); `cudnn` is cuDNN's fused attention, which writes no scores,
with a causal mask alone and with documents' masks as well. Run where there is a CUDA GPU and
JAX. It shows what a fused path would save; tokenmill has none.
"""

import argparse
import json
import os
import statistics
import time

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import inputs
import jax
import jax.numpy as jnp
import numpy as np


def blocks(q, k, v, mask, count: int):
    """Attend as the Trainer does: bfloat16 [B, T, H, K] three times -> [B, T, H, K]."""
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
    length, mixed = q.shape[2], []
    size = length // count
    for end in range(size, length + 1, size):
        scores = jnp.einsum("bhtk,bhsk->bhts", q[:, :, end - size : end], k[:, :, :end])
        scores = scores.astype(jnp.float32) / q.shape[-1] ** 0.5
        scores = jnp.where(mask[:, :, end - size : end, :end], scores, -1e9)
        weights = jax.nn.softmax(scores, -1).astype(v.dtype)
        mixed.append(jnp.einsum("bhts,bhsk->bhtk", weights, v[:, :, :end]))
    return jnp.swapaxes(jnp.concatenate(mixed, 2), 1, 2)


def main() -> None:
    """Measure each path at each size; one JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", nargs="+", default=["32x1024", "4x4096"], help="ROWSxLENGTH")
    parser.add_argument("--paths", nargs="+", default=["blocks", "cudnn", "cudnn-documents"])
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    for batch in options.batches:
        rows, length = map(int, batch.split("x"))
        random = np.random.default_rng(0)
        q, k, v, d = (
            jnp.asarray(random.standard_normal((rows, length, 12, 64), np.float32), jnp.bfloat16)
            for _ in range(4)
        )
        segments = jnp.asarray(inputs.batch(rows, length, 1024)[2])
        steps = jnp.arange(length)
        mask = (segments[:, :, None] == segments[:, None, :])[:, None]
        mask &= (steps[:, None] >= steps[None])[None, None]

        def attend(q, k, v, path, mask=mask):
            if path == "blocks":
                return blocks(q, k, v, mask, 8)
            documents = mask if path == "cudnn-documents" else None
            return jax.nn.dot_product_attention(
                q, k, v, mask=documents, is_causal=True, implementation="cudnn"
            )

        results = {}
        for path in options.paths:

            def gradients(q, k, v, d, path=path):
                out, back = jax.vjp(lambda *x: attend(*x, path), q, k, v)
                return out, back(d)

            compiled = jax.jit(gradients).lower(q, k, v, d).compile()
            seconds = []
            for _ in range(options.steps):
                started = time.perf_counter()
                out, _ = jax.block_until_ready(compiled(q, k, v, d))
                seconds.append(time.perf_counter() - started)
            results[path] = np.asarray(out.astype(jnp.float32))
            line = {
                "path": path,
                "rows": rows,
                "length": length,
                "ms": 1e3 * statistics.median(seconds[3:]),
                "temp_bytes": compiled.memory_analysis().temp_size_in_bytes,
            }
            if path == "cudnn-documents" and "blocks" in results:
                difference = results[path] - results["blocks"]
                line["relative_difference_from_blocks"] = float(
                    np.linalg.norm(difference) / np.linalg.norm(results["blocks"])
                )
            print("RESULT", json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
