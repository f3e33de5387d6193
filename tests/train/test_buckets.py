"""Gradients in flat buckets and back."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from components.train.distributed import buckets

SHAPES = st.lists(st.lists(st.integers(0, 4), max_size=3), min_size=1, max_size=8)


@settings(deadline=None, max_examples=40)
@given(shapes=SHAPES, limit=st.integers(1, 200))
def test_taking_apart_gives_what_was_put_in(shapes, limit):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buckets, "_BUCKET_BYTES", limit)
        rng = np.random.default_rng(0)
        dtypes = [tf.float32 if i % 3 else tf.bfloat16 for i in range(len(shapes))]
        tensors = [tf.cast(rng.standard_normal(s), d) for s, d in zip(shapes, dtypes, strict=True)]
        flat = buckets.to_buckets(tensors)
        for bucket in flat:
            members = [t for t in tensors if t.dtype == bucket.dtype]
            largest = max(t.shape.num_elements() for t in members) * bucket.dtype.size
            assert bucket.shape.num_elements() * bucket.dtype.size <= max(limit, largest)
        back = buckets.from_buckets(flat, tensors)
    for ours, theirs in zip(back, tensors, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(tf.cast(ours, tf.float32), tf.cast(theirs, tf.float32))


def test_small_tensors_share_a_bucket():
    assert len(buckets.to_buckets([tf.zeros([8, 8])] * 50)) == 1
