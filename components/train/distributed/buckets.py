"""Tensors laid end to end in buckets: a collective costs as much to start as to sum a small tensor.

TensorFlow packs them itself only for NCCL (tf.distribute's CommunicationOptions.bytes_per_pack).
"""

from collections.abc import Sequence

import tensorflow as tf

# What a step holds beside gradients and weights is some copies of a bucket.
BUCKET_BYTES = 16 << 20


def plan_groups(sizes: Sequence[int], most_bytes: int = BUCKET_BYTES) -> list[list[int]]:
    """Divide tensors, in their order, into groups that share a bucket.

    Args:
        sizes: Bytes of each tensor.
        most_bytes: Of a group of several; a larger tensor has its own.

    Returns:
        Consecutive indices, a list for each bucket.
    """
    groups: list[list[int]] = []
    room = 0
    for index, size in enumerate(sizes):
        if not groups or size > room:
            groups.append([])
            room = most_bytes
        groups[-1].append(index)
        room -= size
    return groups


def join(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Concatenate tensors of one dtype, flattened, into a vector."""
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)


def split_bucket(bucket: tf.Tensor, shapes: Sequence[Sequence[int]]) -> list[tf.Tensor]:
    """Split what `join` made of tensors of these shapes into them again."""
    sizes = [tf.TensorShape(shape).num_elements() for shape in shapes]
    parts = tf.split(bucket, sizes)
    return [tf.reshape(flat, shape) for flat, shape in zip(parts, shapes, strict=True)]
