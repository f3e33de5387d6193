"""Tensors in flat buckets and back."""

import itertools

import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from components.train.distributed.buckets import join, plan_groups, split_bucket

SHAPES = st.lists(st.lists(st.integers(0, 4), max_size=3), min_size=1, max_size=8)


@settings(deadline=None, max_examples=40)
@given(shapes=SHAPES)
def test_taking_apart_gives_what_was_put_in(shapes):
    rng = np.random.default_rng(0)
    tensors = [tf.constant(rng.standard_normal(shape)) for shape in shapes]
    back = split_bucket(join(tensors), shapes)
    for ours, theirs in zip(back, tensors, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@given(sizes=st.lists(st.integers(0, 300), max_size=20), limit=st.integers(1, 200))
def test_groups_hold_each_tensor_once_in_order_and_are_full(sizes, limit):
    groups = plan_groups(sizes, limit)
    assert [i for group in groups for i in group] == list(range(len(sizes)))
    for group in groups:
        assert len(group) == 1 or sum(sizes[i] for i in group) <= limit
    for group, following in itertools.pairwise(groups):
        assert sum(sizes[i] for i in group) + sizes[following[0]] > limit


def test_small_tensors_share_a_bucket():
    assert len(plan_groups([8 * 8 * 4] * 50)) == 1
