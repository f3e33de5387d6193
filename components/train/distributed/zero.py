"""ZeRO stage 1: AdamW whose moments are split over the replicas, with the same bits as without.

Rajbhandari et al. 2020 ("ZeRO"), sec. 5.1. The weights are laid end to end in buckets, and of each
bucket a replica holds one equal part of both moments. Every replica has the whole mean gradient
(summed by an all-reduce, as without ZeRO), updates its part of the weights, and gathers those of
the others, one bucket after the other: all at once takes more memory than is saved.

AdamW is element by element, so that a part of a vector moves as the whole would, to the bit.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from components.train.distributed.buckets import BUCKET_BYTES, plan_groups
from components.train.distributed.collectives import Collectives, known_replica_number
from components.train.distributed.spread_experts import SpreadExperts
from components.train.distributed.strategy import Workers
from components.train.optimizer import (
    AdamW,
    balances_experts,
    round_stochastically,
    rounding_noise,
)
from tokenmill.errors import TokenmillError

# Elements: a slice that begins at a multiple of 64 bytes is a view, another would be a copy.
_ALIGNMENT = 64
# As Keras names them: a checkpoint is the same with and without ZeRO.
_MOMENTS = ("momentum", "velocity")


class Piece(NamedTuple):
    """A stretch of one variable, laid flat.

    Attributes:
        variable: Its index among the trained variables.
        start: First element.
        stop: One after the last element.
        place: Where it begins in the replica's part.
    """

    variable: int
    start: int
    stop: int
    place: int


class Bucket(NamedTuple):
    """Variables of one dtype, end to end, each filled up to the alignment.

    Attributes:
        members: Their indices among the trained variables.
        sizes: Elements of each.
        shard: Elements of one replica's part, filled up likewise.
    """

    members: tuple[int, ...]
    sizes: tuple[int, ...]
    shard: int

    def pieces(self, replica: int) -> list[Piece]:
        """Return what a replica's part is made of, in order."""
        first, found, start = replica * self.shard, [], 0
        for member, size in zip(self.members, self.sizes, strict=True):
            low, high = max(first, start), min(first + self.shard, start + size)
            if low < high:
                found.append(Piece(member, low - start, high - start, low - first))
            start += _aligned(size)
        return found

    def apart(self, flat: Any) -> list[Any]:
        """Return each member's elements of a bucket that is whole."""
        found, start = [], 0
        for size in self.sizes:
            found.append(flat[start : start + size])
            start += _aligned(size)
        return found


def plan_buckets(
    shapes_and_dtypes: Sequence[tuple[Sequence[int], str]],
    replicas: int,
    most_bytes: int = BUCKET_BYTES,
) -> list[Bucket]:
    """Divide variables into buckets.

    Args:
        shapes_and_dtypes: Of each trained variable.
        replicas: Parts that each bucket is split into.
        most_bytes: Size of a bucket of several variables at most; a larger variable has its own.

    Returns:
        Buckets, those of one dtype after the other.
    """
    buckets = []
    sizes = [int(np.prod(shape, dtype=np.int64)) for shape, _ in shapes_and_dtypes]
    for dtype in dict.fromkeys(dtype for _, dtype in shapes_and_dtypes):
        indices = [i for i, (_, own) in enumerate(shapes_and_dtypes) if own == dtype]
        groups = plan_groups([sizes[i] * tf.as_dtype(dtype).size for i in indices], most_bytes)
        for group in groups:
            members = tuple(indices[i] for i in group)
            shard = _aligned(-(-sum(_aligned(sizes[i]) for i in members) // replicas))
            buckets.append(Bucket(members, tuple(sizes[i] for i in members), shard))
    return buckets


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


class ShardedAdamW(AdamW):
    """AdamW that keeps a replica's part of the moments on that replica only.

    Build it under a strategy's scope, with several replicas.

    Attributes:
        collectives: What gathers the weights, and counts it.
        spread: Experts of which a replica has its own only, with all of their moments; None where
            there are none. To be set before `build`.
    """

    collectives = Collectives()
    spread: SpreadExperts | None = None

    def build(self, variables: Any) -> None:
        """Make the moments' parts, zeros, for all variables that are trained."""
        if self.built:
            return
        # Not Adam's own, which makes whole moments.
        keras.optimizers.Optimizer.build(self, variables)
        self._strategy = tf.distribute.get_strategy()
        self._replicas = self._strategy.num_replicas_in_sync
        self._names = [v.path.replace("/", "_") for v in variables]
        self._shapes = [tuple(v.shape) for v in variables]
        self._balances = [balances_experts(v.path) for v in variables]
        spread = self.spread
        own = [i for i, v in enumerate(variables) if spread is not None and spread.holds(v)]
        split = [i for i in range(len(variables)) if i not in own]
        buckets = plan_buckets(
            [(self._shapes[i], variables[i].dtype) for i in split], self._replicas
        )
        self._buckets = [b._replace(members=tuple(split[i] for i in b.members)) for b in buckets]
        self._own, self._split = own, split
        # Where Keras has them, by the variable's index.
        for place, moment in zip(("_momentums", "_velocities"), _MOMENTS, strict=True):
            made = {i: self.add_variable_from_reference(variables[i], moment) for i in own}
            setattr(self, place, made)
        self._shards = [
            {
                moment: tf.Variable(
                    tf.zeros([bucket.shard]),
                    trainable=False,
                    name=f"{moment}_of_bucket_{number}",
                    # Each replica writes its own and keeps it.
                    aggregation=tf.VariableAggregation.NONE,
                )
                for moment in _MOMENTS
            }
            for number, bucket in enumerate(self._buckets)
        ]

        # One graph for each part, however often it is gathered.
        self._gather = tf.function(self._gather_over_replicas, autograph=False)

    def moment_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the moments that are split, by their names in a checkpoint."""
        return {
            f"{self.name}/{self._names[i]}_{moment}": self._shapes[i]
            for i in self._split
            for moment in _MOMENTS
        }

    @property
    def shard_bytes(self) -> int:
        """Bytes of the moments that one replica holds."""
        return sum(tf.float32.size * len(_MOMENTS) * bucket.shard for bucket in self._buckets)

    def gather_moments(self, keep: bool) -> dict[str, np.ndarray]:
        """Return the whole moments, by name; all workers have to call it and wait for the others.

        Args:
            keep: Whether this worker wants them; else it gets none, and holds a bucket at a time.
        """
        found: dict[str, np.ndarray] = {}
        for number, bucket in enumerate(self._buckets):
            for moment in _MOMENTS:
                flat = self._whole(number, moment)
                if not keep:
                    continue
                for member, part in zip(bucket.members, bucket.apart(flat), strict=True):
                    name = f"{self.name}/{self._names[member]}_{moment}"
                    found[name] = np.array(part).reshape(self._shapes[member])
        return {name: found[name] for name in self.moment_shapes()} if keep else {}

    def assign_moments(self, values: Mapping[str, np.ndarray]) -> None:
        """Take each local replica's part of whole moments, given by name."""
        first = self._first_local_replica()
        for bucket, shards in zip(self._buckets, self._shards, strict=True):
            for moment, shard in shards.items():
                for local, variable in enumerate(self._local(shard)):
                    flat = np.zeros(bucket.shard, np.float32)
                    for piece in bucket.pieces(first + local):
                        whole = values[f"{self.name}/{self._names[piece.variable]}_{moment}"]
                        stop = piece.place + piece.stop - piece.start
                        flat[piece.place : stop] = whole.reshape(-1)[piece.start : piece.stop]
                    variable.assign(flat)

    def _whole(self, number: int, moment: str) -> np.ndarray:
        local = self._local(self._shards[number][moment])
        if len(local) == self._replicas:
            return np.concatenate([part.numpy() for part in local])

        return self._strategy.experimental_local_results(self._gather(number, moment))[0].numpy()

    def _gather_over_replicas(self, number: int, moment: str) -> Any:
        def gather() -> tf.Tensor:
            local = self._local(self._shards[number][moment])
            part = local[self._replica() % len(local)]
            return Collectives().all_gather(part.read_value())

        return self._strategy.run(gather)

    def _local(self, variable: Any) -> tuple[Any, ...]:
        return self._strategy.experimental_local_results(variable)

    def _first_local_replica(self) -> int:
        workers = Workers(self._strategy)
        return workers.index * workers.replicas_each

    def _replica(self) -> int:
        """Return the number of the replica whose operations are being made."""
        number = known_replica_number()
        if number is None:
            raise TokenmillError(
                "train.zero = 1 splits moments by the replica's number, and replicas of this "
                "strategy share one program.",
                'Set train.zero = 0, or train.strategy to "mirrored" or "multi_worker".',
            )
        return number

    def _apply_weight_decay(self, variables: Any) -> None:
        """Leave it to the update of each part, where there are parts."""
        own = [v for v in variables if self._get_variable_index(v) in self._own]
        super()._apply_weight_decay(own)

    def _backend_update_step(
        self, grads: Any, trainable_variables: Any, learning_rate: Any
    ) -> None:
        """Update this replica's part of every weight, and gather those of the others."""
        replica = self._replica()
        weights = []
        for variable in trainable_variables:
            local = self._local(variable.value)
            weights.append(local[replica % len(local)])
        decays = [self._use_weight_decay(v) for v in trainable_variables]
        assigned: list[Any] = []
        for bucket, shards in zip(self._buckets, self._shards, strict=True):
            with tf.control_dependencies(assigned):  # one bucket in memory at a time
                moments = [
                    self._local(shard)[replica % len(self._local(shard))]
                    for shard in shards.values()
                ]
                pieces = bucket.pieces(replica)
                moved = self._moved(pieces, bucket, grads, weights, decays, moments, learning_rate)
                whole = self.collectives.all_gather(moved)
                assigned = [
                    weights[i].assign(tf.reshape(part, self._shapes[i]), read_value=False)
                    for i, part in zip(bucket.members, bucket.apart(whole), strict=True)
                ]
        if self._own:
            own_grads, own_variables = [
                [each[i] for i in self._own] for each in (grads, trainable_variables)
            ]
            super()._backend_update_step(own_grads, own_variables, learning_rate)

    def _moved(
        self,
        pieces: Sequence[Piece],
        bucket: Bucket,
        gradients: Any,
        weights: Any,
        decays: Sequence[bool],
        moments: Sequence[Any],
        learning_rate: Any,
    ) -> tf.Tensor:
        """Return the new weights of a part, flat, after updating its moments.

        The operations are those of Keras' AdamW (float32) and of `AdamW.update_step` (16 bits, and
        biases that balance experts, which have no moments), in their order.
        """
        narrow = weights[bucket.members[0]].dtype != tf.float32
        momentum, velocity = moments
        moving = [p for p in pieces if not self._balances[p.variable]]
        gradient = _joined(
            [(p.place, _cut(gradients[p.variable], p)) for p in moving], bucket.shard, tf.float32
        )
        means = momentum.assign_add((gradient - momentum) * (1 - self.beta_1))
        squares = velocity.assign_add((tf.square(gradient) - velocity) * (1 - self.beta_2))
        found = []
        for piece in pieces:
            # Scalars anew for each piece, as Keras makes them for each weight: what TensorFlow's
            # graph optimizer makes of a product depends on who else uses its factors.
            rate = tf.cast(learning_rate, tf.float32)
            step = tf.cast(self.iterations + 1, tf.float32)
            alpha = rate * tf.sqrt(1 - tf.pow(tf.cast(self.beta_2, tf.float32), step))
            alpha /= 1 - tf.pow(tf.cast(self.beta_1, tf.float32), step)
            place = slice(piece.place, piece.place + piece.stop - piece.start)
            weight = tf.cast(_cut(weights[piece.variable], piece), tf.float32)
            if self._balances[piece.variable]:
                push = self.balance_step * tf.sign(_cut(gradients[piece.variable], piece))
                found.append((piece.place, weight - push))
                continue
            decay = self.weight_decay if decays[piece.variable] else 0.0
            if narrow:
                weight *= 1 - rate * decay
            elif decay:
                weight -= (
                    weight * tf.cast(decay, tf.float32) * tf.cast(self.learning_rate, "float32")
                )
            moved = weight - means[place] * alpha / (tf.sqrt(squares[place]) + self.epsilon)
            if narrow:
                noise = rounding_noise(
                    self._shapes[piece.variable], piece.variable, self.iterations
                )
                moved = round_stochastically(moved, _cut(noise, piece))
            found.append((piece.place, moved))
        return _joined(found, bucket.shard, weights[bucket.members[0]].dtype)


def _cut(tensor: Any, piece: Piece) -> tf.Tensor:
    return tf.reshape(tensor, [-1])[piece.start : piece.stop]


def _joined(parts: Sequence[tuple[int, tf.Tensor]], size: int, dtype: tf.DType) -> tf.Tensor:
    """Lay parts at their places, and zeros between and after them up to a size."""
    laid, end = [], 0
    for place, part in [*parts, (size, None)]:
        if place > end:
            laid.append(tf.zeros([place - end], dtype))
        if part is not None:
            laid.append(part)
            end = place + part.shape.num_elements()
    return tf.concat(laid, 0)
