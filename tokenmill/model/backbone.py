"""Embeddings and layers, the part that decoder and encoder share.

Shape suffixes as in layers.py; V vocabulary.
"""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from tokenmill.model.adapter import Adapter
from tokenmill.model.experts import RoutedTokens, RoutingSums
from tokenmill.model.layers import Block, Builder, Dropout, adapter_dropout, segment_mask
from tokenmill.model.lora import LORA_TARGETS, LoraConfig
from tokenmill.model.shape import ModelShape


class Backbone(keras.layers.Layer):
    """Token ids, segments and positions in; a vector for each token out.

    A layer, not a keras.Model: Keras gives each Model in a SavedModel a serving signature of one
    input, which cannot be traced for three.

    Args:
        shape: Sizes and options.
        seed: Seed of the initial weights.
        dtype: A Keras dtype policy, such as "float32" or "mixed_bfloat16"; "bfloat16" is of the
            matrices only.
        dropout: Rate after the embeddings, on attention probabilities, after attention and MLP.
        rematerialize: Keep only each layer's input for the backward pass, and compute the rest
            of the layer again.
        lora: Adapters to train beside frozen weights; None trains all weights.
        spread: Experts of which a part is here, as for `Builder`; None where all are.
        name: The layer's name.
    """

    def __init__(
        self,
        shape: ModelShape,
        seed: int,
        dtype: str = "float32",
        dropout: float = 0.0,
        rematerialize: bool = False,
        lora: LoraConfig | None = None,
        spread: Any = None,
        name: str = "backbone",
    ):
        build = Builder(shape, dtype, seed, lora, spread)
        super().__init__(dtype=build.dtype, name=name)
        self.builder = build
        self.shape_config, self.dropout_rate = shape, dropout
        self._rematerialize = rematerialize
        self.token_embedding = build.embedding(shape.vocab_size, "token_embedding")
        learned = shape.positions == "learned"
        self.position_embedding = (
            build.embedding(shape.sequence_length, "position_embedding") if learned else None
        )
        self.type_embedding = (
            build.embedding(shape.type_vocab_size, "type_embedding")
            if shape.type_vocab_size
            else None
        )
        self.blocks = [
            Block(build, f"layer{i}", has_experts=i in shape.moe_layers)
            for i in range(shape.layers)
        ]
        post = shape.norm_position == "post"
        self.embedding_norm = build.norm("embedding_norm") if post else None
        self.final_norm = None if post else build.norm("final_norm")

    def adapters(self) -> dict[str, Adapter]:
        """Return the adapters of all layers by layer and target, such as layer0/q."""
        return {
            f"layer{i}/{target}": adapter
            for i, block in enumerate(self.blocks)
            for target, adapter in {**block.attention.adapters, **block.mlp.adapters}.items()
        }

    @property
    def base_variables(self) -> list[keras.Variable]:
        """Return all weights but those of the adapters: what a model of this shape always has."""
        added = {id(v) for adapter in self.adapters().values() for v in adapter.variables}
        return [v for v in self.variables if id(v) not in added]

    def parts(self) -> list[keras.layers.Layer]:
        """Return all layers with inputs [N, D] that this shape has."""
        layers = [*self.blocks, self.embedding_norm, self.final_norm]
        return [layer for layer in layers if layer is not None]

    def build(self, input_shape):
        """Create all weights now, so that a checkpoint or an optimizer finds them."""
        for table in (self.token_embedding, self.position_embedding, self.type_embedding):
            if table is not None:
                table.build((None, None))
        for layer in self.parts():
            layer.build((None, self.shape_config.d_model))
        self.built = True

    def embed(self, inputs_BT, positions_BT, dropout):
        """Return the input of the first layer: int32 [B, T] twice -> [N, D]."""
        x_BTD = self.token_embedding(inputs_BT)
        if self.position_embedding is not None:
            x_BTD = x_BTD + self.position_embedding(positions_BT)
        if self.type_embedding is not None:  # packed documents are all of type 0
            x_BTD = x_BTD + ops.cast(self.type_embedding.embeddings[0], x_BTD.dtype)
        x_ND = ops.reshape(x_BTD, (-1, self.shape_config.d_model))
        if self.embedding_norm is not None:
            x_ND = self.embedding_norm(x_ND)
        return dropout.drop(x_ND, dropout.next_seed())

    def encode(self, inputs_BT, segment_ids_BT, positions_BT, dropout_seed=None):
        """Return the output of the last norm: int32 [B, T] three times -> [N, D]."""
        return self.encode_and_count(inputs_BT, segment_ids_BT, positions_BT, dropout_seed)[0]

    def encode_and_count(
        self, inputs_BT, segment_ids_BT, positions_BT, dropout_seed=None, loss_weights_BT=None
    ):
        """Return the output of the last norm [N, D], and what the routers of experts did.

        Args:
            inputs_BT: int32 [B, T].
            segment_ids_BT: int32 [B, T].
            positions_BT: int32 [B, T].
            dropout_seed: int32 [2]; None for no dropout.
            loss_weights_BT: float32 [B, T], to have the `RoutingSums` of each layer that has
                experts; None for none.
        """
        tokens, all_sums = None, []
        if loss_weights_BT is not None:
            tokens = RoutedTokens(
                ops.cast(segment_ids_BT > 0, "float32"),
                tf.reduce_sum(tf.cast(loss_weights_BT, tf.float32), 1),
            )
        dropout = Dropout(self.dropout_rate, dropout_seed)
        lora = self.builder.lora
        of_adapters = adapter_dropout(0.0 if lora is None else lora.dropout, dropout_seed)
        x_ND = self.embed(inputs_BT, positions_BT, dropout)
        mask = segment_mask(segment_ids_BT, self.shape_config.causal)
        for block in self.blocks:
            seeds = [dropout.next_seed() for _ in range(3)]
            adapter_seeds = {target: of_adapters.next_seed() for target in LORA_TARGETS}

            def drop_input(target, x_NM, seeds=adapter_seeds):
                return of_adapters.drop(x_NM, seeds[target])

            counted = {} if tokens is None or not block.has_experts else {"tokens": tokens}

            def run(x, block=block, seeds=seeds, drop_input=drop_input, counted=counted):
                return block(
                    x,
                    mask,
                    positions_BT,
                    dropout=dropout,
                    seeds=seeds,
                    drop_input=drop_input,
                    **counted,
                )

            x_ND = tf.recompute_grad(run)(x_ND) if self._rematerialize else run(x_ND)
            if counted:
                x_ND, sums = x_ND
                all_sums.append(RoutingSums(*sums))
        return x_ND if self.final_norm is None else self.final_norm(x_ND), all_sums

    def hidden(self, inputs_BT, segment_ids_BT, positions_BT):
        """Return the vectors that the head reads: int32 [B, T] three times -> [B, T, D]."""
        x_ND = self.encode(inputs_BT, segment_ids_BT, positions_BT)
        return ops.reshape(x_ND, (*ops.shape(inputs_BT), self.shape_config.d_model))

    def attention_probabilities(self, inputs_BT, segment_ids_BT, positions_BT):
        """Return each layer's attention probabilities, whose rows sum to 1.

        int32 [B, T] three times -> a list of float32 [B, H, T, T].
        """
        no_dropout = Dropout(0.0, None)
        x_ND = self.embed(inputs_BT, positions_BT, no_dropout)
        mask = segment_mask(segment_ids_BT, self.shape_config.causal)
        probabilities = []
        for block in self.blocks:
            probabilities.append(block.probabilities(x_ND, mask, positions_BT))
            x_ND = block(x_ND, mask, positions_BT)
        return probabilities
