"""How busy the experts of a mixture are on the first held-out rows, and how sure the routers."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tokenmill.contracts.training import ExpertLoad
from tokenmill.model.backbone import Backbone
from tokenmill.rows.packed_split import PackedSplit

PROBE_ROWS = 8
# An expert that gets less than this share of the mean load learns next to nothing.
_DEAD_SHARE = 0.01


def describe_load(layer: int, load: Sequence[float], entropy: float) -> ExpertLoad:
    """Return what is told of one layer's experts.

    Args:
        layer: Its number, from 0.
        load: Tokens that each expert was sent.
        entropy: Mean of the router's distributions, in nats.
    """
    shares = np.asarray(load, np.float64) / max(float(np.sum(load)), 1.0)
    means = shares * len(shares)
    return ExpertLoad(
        layer=layer,
        load_shares=[round(float(share), 6) for share in shares],
        max_load=round(float(means.max()), 4),
        dead_experts=np.flatnonzero(means < _DEAD_SHARE).tolist(),
        router_entropy_nats=round(max(float(entropy), 0.0), 5),
    )


def expert_load_meter(
    model: Backbone, eval_rows: PackedSplit
) -> Callable[[], list[ExpertLoad] | None] | None:
    """Return a function that measures the experts of each layer when it is called.

    Args:
        model: Being trained.
        eval_rows: Whose first rows are routed.

    Returns:
        A function that returns `describe_load` of each layer that has experts, or None where a
        router is not finite; None for a dense model, and where experts are spread: the chief alone
        cannot run them.
    """
    shape = model.shape_config
    if shape.experts == 1 or model.builder.spread is not None:
        return None
    batch = eval_rows.read(np.arange(min(PROBE_ROWS, eval_rows.rows)))

    @tf.function(autograph=False)
    def count(inputs, segment_ids, positions, weights):
        return model.encode_and_count(inputs, segment_ids, positions, None, weights)[1]

    def measure() -> list[ExpertLoad] | None:
        given = (batch.inputs, batch.segment_ids, batch.positions, batch.loss_weights)
        layers = list(zip(shape.moe_layers, count(*map(tf.constant, given)), strict=True))
        if not all(math.isfinite(float(sums.entropy)) for _, sums in layers):
            return None
        return [
            describe_load(i, sums.load_E.numpy(), float(sums.entropy) / max(float(sums.tokens), 1))
            for i, sums in layers
        ]

    return measure
