"""Experts of a model spread over replicas: each has an equal part of them, with their moments.

A weight of experts, [experts, ..] in a model that is whole, is here a variable of a replica's own
part, whose values differ from replica to replica. Replica r has the r-th part of the experts.
"""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from components.train.distributed.collectives import Collectives, replica_number
from components.train.distributed.expert_exchange import exchanged_mlps
from components.train.distributed.strategy import Workers
from tokenmill.errors import TokenmillError


class SpreadVariable:
    """A variable of which each replica has its part, seen as the whole one.

    Args:
        variable: A Keras variable, made under a strategy's scope.
        strategy: That has the replicas.
    """

    def __init__(self, variable: Any, strategy: tf.distribute.Strategy):
        self.variable, self._strategy = variable, strategy
        held, *others = variable.shape
        self.path, self.dtype = variable.path, variable.dtype
        self.shape = (held * strategy.num_replicas_in_sync, *others)
        self._gather: Any = None

    def _local(self) -> tuple[Any, ...]:
        return self._strategy.experimental_local_results(self.variable.value)

    def _gather_over_replicas(self) -> Any:
        def gather() -> tf.Tensor:
            local = self._local()
            return Collectives().all_gather(local[replica_number() % len(local)].read_value())

        return self._strategy.run(gather)

    def numpy(self) -> np.ndarray:
        """Return the whole value; all workers have to call it and wait for the others."""
        if self._gather is None:  # one graph, however often it is gathered
            gather = tf.function(self._gather_over_replicas, autograph=False)
            self._gather = gather.get_concrete_function()
        return self._strategy.experimental_local_results(self._gather())[0].numpy()

    def assign(self, value: Any) -> None:
        """Take each local replica's part of a whole value."""
        local, workers = self._local(), Workers(self._strategy)
        held = self.variable.shape[0]
        first = workers.index * workers.replicas_each
        for number, part in enumerate(local, start=first):
            # A copy: a slice shares the memory of the whole value, which the variable would hold.
            part.assign(np.array(value[number * held : (number + 1) * held]))


class SpreadExperts:
    """What a model is built with whose experts are spread over the replicas of a strategy.

    Args:
        strategy: With several replicas, in processes that see each other by collectives.
        experts: Of a layer.
        jit_compile: Compile with XLA what is between the exchanges.

    Raises:
        TokenmillError: They do not divide over the replicas.
    """

    def __init__(self, strategy: tf.distribute.Strategy, experts: int, jit_compile: bool):
        self._strategy, self._replicas = strategy, strategy.num_replicas_in_sync
        self._jit_compile = jit_compile
        if experts % self._replicas:
            raise TokenmillError(
                f"model.experts = {experts} do not divide over {self._replicas} replicas "
                "(train.expert_parallel = true).",
                f"Take a multiple of {self._replicas}, or leave train.expert_parallel out.",
            )
        self._variables: dict[int, SpreadVariable] = {}
        # Not those of the step, which counts what is known when it is traced.
        self._collectives = Collectives()

    def add_weight(
        self, layer: keras.layers.Layer, shape: tuple[int, ...], initializer: Any, **options: Any
    ) -> Any:
        """Add a layer's weight, of which a replica holds its part only.

        It begins with that part of what the initializer makes of the whole shape.

        Args:
            layer: Being built under the strategy's scope.
            shape: Of the whole weight, [experts, ..].
            initializer: As Keras takes it.
            **options: Of Keras' `add_weight`.
        """
        held = (shape[0] // self._replicas, *shape[1:])
        variable = layer.add_weight(held, "zeros", **options)
        spread = SpreadVariable(variable, self._strategy)
        self._variables[id(variable)] = spread
        spread.assign(keras.initializers.get(initializer)(shape, dtype=variable.dtype))
        return variable

    def mlps(self, x_ND: Any, chosen_NK: Any, weights: Any, activation: Any) -> Any:
        """Compute the chosen experts' MLPs of each token: [N, D], int32 [N, K] -> [N, K, D].

        Args:
            x_ND: Inputs.
            chosen_NK: Numbers of the experts of each token, of all replicas.
            weights: Of this replica's experts.
            activation: Between their matrices.
        """
        return exchanged_mlps(
            x_ND,
            chosen_NK,
            weights,
            activation,
            self._collectives,
            replica_number(),
            self._replicas,
        )

    def island(self, function: Callable[..., Any], recomputed: bool) -> Callable[..., Any]:
        """Return a function without exchanges as a program of its own.

        Args:
            function: Of tensors.
            recomputed: Keep only its inputs for the backward pass. No gradient then reaches tensors
                that it has from elsewhere; variables get theirs.
        """
        if recomputed:
            function = tf.recompute_grad(function)
        if not self._jit_compile:
            return function
        return tf.function(function, jit_compile=True, autograph=False)

    def holds(self, variable: Any) -> bool:
        """Return whether a replica has a part of a Keras variable only."""
        return id(variable) in self._variables

    def whole(self, named: Mapping[str, Any], optimizer: Any) -> dict[str, Any]:
        """Return variables by name, with those that are spread seen as the whole ones.

        Args:
            named: Keras variables of a model and its optimizer.
            optimizer: Keras' Adam, built for the model's trained variables.
        """
        moments: dict[int, SpreadVariable] = {}
        for variable in self._variables.values():
            index = optimizer._get_variable_index(variable.variable)
            for moment in (optimizer._momentums[index], optimizer._velocities[index]):
                moments[id(moment)] = SpreadVariable(moment, self._strategy)
        spread = self._variables | moments
        return {name: spread.get(id(variable), variable) for name, variable in named.items()}
