"""Gradients in a few flat buckets: a collective costs as much to start as to sum a small tensor.

TensorFlow packs them itself only for NCCL (tf.distribute's CommunicationOptions.bytes_per_pack).
"""

from collections.abc import Sequence

import tensorflow as tf

_BUCKET_BYTES = 64 << 20


def to_buckets(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Concatenate tensors of static shapes, in order, into vectors of about 64 MiB.

    A bucket has one dtype.
    """
    return [
        tf.concat([tf.reshape(tensors[i], [-1]) for i in bucket], 0) for bucket in _plan(tensors)
    ]


def from_buckets(
    buckets: Sequence[tf.Tensor], like: Sequence[tf.Tensor | tf.TensorSpec]
) -> list[tf.Tensor]:
    """Split the buckets into their tensors again.

    Args:
        buckets: As `to_buckets(like)` shapes them.
        like: Shapes and dtypes to give, as `to_buckets` took them.
    """
    tensors = []
    for bucket, members in zip(buckets, _plan(like), strict=True):
        shapes = [like[i].shape for i in members]
        parts = tf.split(bucket, [shape.num_elements() for shape in shapes])
        tensors += [tf.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True)]
    return tensors


def _plan(tensors: Sequence[tf.Tensor | tf.TensorSpec]) -> list[list[int]]:
    """Consecutive indices, a list for each bucket."""
    buckets: list[list[int]] = []
    size, dtype = 0, None
    for i, tensor in enumerate(tensors):
        bytes_here = tensor.shape.num_elements() * tf.as_dtype(tensor.dtype).size
        if not buckets or tensor.dtype != dtype or size + bytes_here > _BUCKET_BYTES:
            buckets.append([])
            size, dtype = 0, tensor.dtype
        buckets[-1].append(i)
        size += bytes_here
    return buckets
