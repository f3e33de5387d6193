"""One step: the gradients of the global batch's mean loss, and the update if they are finite."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from components.train.distributed.buckets import (
    BUCKET_BYTES,
    join,
    plan_groups,
    split_bucket,
)
from components.train.distributed.collectives import Collectives
from components.train.distributed.cpu_parallelism import replica_parallelism, split
from components.train.optimizer import (
    clip_mean_gradients,
    clip_to_norm,
    mean_of_sums,
    norm_of_halves,
    scale_loss,
)
from components.train.pruning import Pruner
from tokenmill.model.backbone import Backbone
from tokenmill.model.build import dropout_seed, loss_sums
from tokenmill.rows.packed_split import Batch


class StepResult(NamedTuple):
    """Scalars of one step over the global batch; tensors until they are read.

    Attributes:
        nll: Summed negative log-likelihood in nats, float32.
        weight: Targets, float32.
        norm: Global norm of the mean gradient before clipping, float32.
        refused: Whether the update was left out because something was not finite, bool.
        stop: Workers that ask to stop after this step, float32.
        save: Workers that ask to save after this step, float32.
        gradients: Mean gradients after clipping, one a variable; empty unless asked for.
        part_square: Mean over the parts of the batch of the squared norm of a part's own mean
            gradient, float32; -1 where there is one part, None unless asked for.
    """

    nll: Any
    weight: Any
    norm: Any
    refused: Any
    stop: Any
    save: Any
    gradients: Any
    part_square: Any = None


def nll_and_weight(model: Backbone, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the summed negative log-likelihood (nats) and weight of a batch, float32 scalars."""
    sums = loss_sums(model, batch)
    return sums.nll, sums.weight


def class_sums(model: Any, batch: Batch) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return summed nll (nats), weight and hits of a classifier's batch, float32 scalars."""
    hidden = model.hidden(batch.inputs, batch.segment_ids, batch.positions)
    logits = model.logits(hidden[:, 0])
    labels, weights = batch.targets[:, 0], batch.loss_weights[:, 0]
    nll = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    hits = tf.cast(tf.argmax(logits, -1, tf.int32) == labels, tf.float32)
    return tf.reduce_sum(weights * nll), tf.reduce_sum(weights), tf.reduce_sum(weights * hits)


def make_train_step(
    strategy: tf.distribute.Strategy,
    model: Backbone,
    optimizer: keras.optimizers.Optimizer,
    *,
    clip_norm: float,
    jit_compile: bool,
    seed: int,
    z_loss: float = 0.0,
    accumulation_steps: int = 1,
    measure_noise: bool = False,
    pruner: Pruner | None = None,
    collectives: Collectives | None = None,
    bucket_bytes: int = BUCKET_BYTES,
) -> Callable[..., StepResult]:
    """Return a function that trains one step: (batch, stop, with_gradients, save, number).

    It gives a StepResult. Pruning alone needs `number`: how many steps are done with this one, an
    int32 scalar.

    A step whose loss or clipped gradient is not finite changes nothing, nor does any step after
    it: the loop reads results a step late. An overflow of float16 gradients is the loss-scaling
    optimizer's to handle.

    Args:
        strategy: Where the replicas are.
        model: Built under the strategy's scope.
        optimizer: Built under the strategy's scope.
        clip_norm: The mean gradient is scaled to at most this global norm.
        jit_compile: Compile with XLA: forward and backward pass, clipping, and on one device
            the update.
        seed: Of dropout, together with the optimizer's step, the replica, the stream and the
            micro-batch.
        z_loss: Weight of the squared log-partition in the loss.
        accumulation_steps: Micro-batches, one after the other, whose gradients are summed.
        measure_noise: Whether `part_square` is computed, on one replica: how much the gradients of
            the parts that are computed side by side differ.
        pruner: Sets weights to 0 behind each update; None leaves them as they are.
        collectives: What sums over the replicas and counts it, the optimizer's gathers included.
        bucket_bytes: Of gradients that are summed over the replicas at once.
    """
    over_replicas = Collectives() if collectives is None else collectives
    replicas = strategy.num_replicas_in_sync
    variables = model.trainable_variables
    scales_loss = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    spread = model.builder.spread
    # Replicas wait for each other in a layer whose experts are spread: parts could not overlap.
    parallelism = 1 if spread is not None else replica_parallelism(strategy)
    # Gradients of experts that are here only are whole: all tokens that passed them came here.
    local = [i for i, v in enumerate(variables) if spread is not None and spread.holds(v)]
    shared = [i for i in range(len(variables)) if i not in local]
    sizes = [tf.float32.size * variables[i].shape.num_elements() for i in shared]
    groups = [[shared[i] for i in group] for group in plan_groups(sizes, bucket_bytes)]
    groups += [[i] for i in local]
    shapes_of_groups = [[tuple(variables[i].shape) for i in group] for group in groups]
    with strategy.scope():
        alone = not tf.distribute.has_strategy()
        halted = tf.Variable(
            False, trainable=False, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
        )

    # XLA compiles what has no collectives and no merging of replicas in it, and each part of the
    # batch by itself.
    @tf.function(jit_compile=jit_compile and spread is None, autograph=False)
    def gradients_of_sum(batch: Batch, dropout):
        with tf.GradientTape() as tape:
            sums = loss_sums(model, batch, dropout, z_loss)
            scaled = scale_loss(optimizer, sums.objective)
        gradients = tape.gradient(scaled, variables)
        # Sums of 16-bit numbers would lose what each part, micro-batch and replica adds.
        wide = [tf.cast(tf.convert_to_tensor(g), tf.float32) for g in gradients]
        return sums.nll, sums.weight, wide

    def accumulate(batch: Batch, first):
        """Sum over a part's micro-batches, whose dropout is numbered from `first`."""

        def dropout_of(number):
            return dropout_seed(seed, optimizer.iterations, number)

        if accumulation_steps == 1:
            return gradients_of_sum(batch, dropout_of(first))
        rows = batch.inputs.shape[0] // accumulation_steps

        def add_micro_batch(i, sums):
            # A slice of static size: XLA takes no other.
            part = Batch(*(tf.slice(x, [i * rows, 0], [rows, x.shape[1]]) for x in batch))
            more = tf.nest.flatten(gradients_of_sum(part, dropout_of(first + i)))
            return i + 1, [a + b for a, b in zip(sums, more, strict=True)]

        zeros = [tf.zeros([]), tf.zeros([])]
        zeros += [tf.zeros(v.shape) for v in variables]
        # One at a time: what accumulation saves is the activations of the others.
        _, (nll, weight, *gradients) = tf.while_loop(
            lambda i, _: i < accumulation_steps,
            add_micro_batch,
            (tf.constant(0), zeros),
            parallel_iterations=1,
        )
        return nll, weight, gradients

    def finite(nll, norm, clipped_norm):
        # What is applied is looked at, squares included: the second moment is made of them.
        found = tf.math.is_finite(nll)
        if not scales_loss:
            found &= tf.math.is_finite(norm) & tf.math.is_finite(clipped_norm)
        return found

    def summed(sums_of_streams):
        return tf.nest.map_structure(lambda *each: tf.add_n(each), *sums_of_streams)

    @tf.function(jit_compile=jit_compile, autograph=False)
    def packed(parts_of_streams):
        return join([tf.add_n(each) for each in zip(*parts_of_streams, strict=True)])

    @tf.function(jit_compile=jit_compile, autograph=False)
    def mean_bucket(bucket, weight, shapes):
        (mean,) = mean_of_sums(optimizer, [bucket], weight)
        return mean, [tf.nn.l2_loss(g) for g in split_bucket(mean, shapes)]

    @tf.function(jit_compile=jit_compile, autograph=False)
    def clipped_bucket(bucket, norm, shapes):
        clipped = clip_to_norm(optimizer, split_bucket(bucket, shapes), norm, clip_norm)
        return clipped, [tf.nn.l2_loss(g) for g in clipped]

    @tf.function(jit_compile=jit_compile, autograph=False)
    def mean_gradients(sums):
        # The mean over all targets of the batch.
        nll, weight, gradients = summed(sums)
        clipped, norm = clip_mean_gradients(optimizer, gradients, weight, clip_norm)
        return nll, weight, clipped, norm, finite(nll, norm, tf.linalg.global_norm(clipped))

    def mean_over_replicas(sums, asks):
        """Sum over the replicas, take the mean over all targets of the global batch, and clip.

        One bucket after the other, so that there are never two copies of all gradients.
        """
        own = [tf.add_n(each) for each in zip(*(s[:2] for s in sums), strict=True)]
        (scalars,) = over_replicas.all_reduce_sum([tf.stack([*own, *asks])])
        nll, weight, *asks = tf.unstack(scalars)
        means, halves = [], []
        done: list[Any] = []
        for group, shapes in zip(groups, shapes_of_groups, strict=True):
            with tf.control_dependencies(done):
                bucket = packed([[gradients[i] for i in group] for _, _, gradients in sums])
            if group[0] not in local:
                (bucket,) = over_replicas.all_reduce_sum([bucket])
            mean, more = mean_bucket(bucket, weight, shapes)
            means.append(mean)
            halves += more
            done = [mean]
        norm = norm_of_halves(of_all_replicas(halves))
        clipped, halves = [], []
        for mean, shapes in zip(means, shapes_of_groups, strict=True):
            with tf.control_dependencies(done):
                parts, more = clipped_bucket(mean, norm, shapes)
            clipped += parts
            halves += more
            done = parts[:1]
        by_index = dict(zip([*shared, *local], clipped, strict=True))
        clipped = [by_index[i] for i in range(len(variables))]
        clipped_norm = norm_of_halves(of_all_replicas(halves))
        return nll, weight, asks, clipped, norm, finite(nll, norm, clipped_norm)

    def of_all_replicas(halves):
        """Add up what each replica has of its own experts, which come last."""
        if not local:
            return halves
        (others,) = over_replicas.all_reduce_sum([tf.add_n(halves[len(shared) :])])
        return [*halves[: len(shared)], others]

    @tf.function(jit_compile=jit_compile, autograph=False)
    def mean_square(sums_of_parts):
        squares = [
            tf.square(tf.linalg.global_norm(gradients) / (tf.maximum(weight, 1.0)))
            for _, weight, gradients in sums_of_parts
        ]
        scale = scale_loss(optimizer, tf.ones([]))
        return tf.add_n(squares) / (len(squares) * tf.square(scale))

    def compute(batch: Batch, asks):
        parts = split(batch, parallelism, accumulation_steps)
        context = tf.distribute.get_replica_context()
        number = context.replica_id_in_sync_group * len(parts)
        sums = [
            accumulate(part, tf.convert_to_tensor((number + i) * accumulation_steps))
            for i, part in enumerate(parts)
        ]
        part_square = mean_square(sums) if measure_noise and len(sums) > 1 else tf.constant(-1.0)
        # On this replica's device, from where they can be summed.
        asks = [tf.identity(ask) for ask in asks]
        if replicas > 1:
            nll, weight, asks, gradients, norm, fine = mean_over_replicas(sums, asks)
        else:
            nll, weight, gradients, norm, fine = mean_gradients(sums)
        return nll, weight, *asks, norm, fine, part_square, gradients

    def apply(gradients) -> None:
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    if alone:
        accumulate = tf.function(accumulate, jit_compile=jit_compile, autograph=False)
        apply = tf.function(apply, jit_compile=jit_compile, autograph=False)

    @tf.function(autograph=False)
    def step(batch: Batch, stop, with_gradients: bool, save=None, number=None):
        over_replicas.start()
        asks = (stop, tf.zeros([]) if save is None else save)
        *results, gradients = strategy.run(compute, args=(batch, asks))
        nll, weight, stop, save, norm, fine, part_square = (
            strategy.experimental_local_results(r)[0] for r in results
        )
        refused = tf.logical_or(halted, tf.logical_not(fine))
        halted.assign(refused)

        def update():
            kept = [] if pruner is None else pruner.kept(number)
            strategy.run(apply, args=(gradients,))
            if pruner is not None:
                pruner.prune(kept, number)
            return tf.constant(True)

        tf.cond(refused, lambda: tf.constant(False), update)
        shown = ()
        if with_gradients:
            shown = tuple(strategy.experimental_local_results(g)[0] for g in gradients)
        return StepResult(
            nll, weight, norm, refused, stop, save, shown, part_square if measure_noise else None
        )

    return step


def make_eval_step(
    strategy: tf.distribute.Strategy, model: Backbone, jit_compile: bool
) -> Callable[[Any], tuple[tf.Tensor, ...]]:
    """Return a function of a batch: summed nll in nats and loss tokens of the global batch.

    Of a classifier, how many targets the likeliest class hits is the third.
    """
    sums_of = class_sums if model.shape_config.head == "classifier" else nll_and_weight
    is_spread = model.builder.spread is not None
    parallelism = 1 if is_spread else replica_parallelism(strategy)
    compiled = tf.function(
        lambda batch: sums_of(model, batch),
        jit_compile=jit_compile and not is_spread,
        autograph=False,
    )

    def sums_of_replica(batch: Batch):
        parts = [compiled(part) for part in split(batch, parallelism)]
        return tuple(tf.add_n(each) for each in zip(*parts, strict=True))

    @tf.function(autograph=False)
    def step(batch: Batch):
        sums = strategy.run(sums_of_replica, args=(batch,))
        return tuple(strategy.reduce(tf.distribute.ReduceOp.SUM, s, axis=None) for s in sums)

    return step
