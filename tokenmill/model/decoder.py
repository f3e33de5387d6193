"""A causal Transformer over packed rows: GPT-2, or with rope, rms and swiglu a small Llama.

Shape suffixes: B rows, T tokens of a row, N = B * T, D model width, V vocabulary.
"""

from typing import Any

from keras import ops

from tokenmill.model.backbone import Backbone
from tokenmill.model.lora import LoraConfig
from tokenmill.model.shape import ModelShape


class Decoder(Backbone):
    """Token ids, segments and positions in; logits out. Parameters exactly as ModelShape counts.

    Args:
        shape: Sizes and options.
        seed: Seed of the initial weights.
        dtype: A Keras dtype policy, such as "float32" or "mixed_bfloat16".
        dropout: Dropout rate; only used where a dropout seed is given.
        rematerialize: Compute layers again in the backward pass.
        lora: Adapters to train beside frozen weights; None trains all weights.
        spread: Experts of which a part is here, as for `Builder`; None where all are.
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
    ):
        super().__init__(shape, seed, dtype, dropout, rematerialize, lora, spread, name="decoder")
        self.output_layer = (
            None
            if shape.tie_embeddings
            else self.builder.dense(shape.vocab_size, "output_layer", use_bias=False)
        )
        if not self.built:
            self.build(None)

    def build(self, input_shape):
        """Create all weights."""
        super().build(input_shape)
        if self.output_layer is not None:
            self.output_layer.build((None, self.shape_config.d_model))

    def head(self, x_ND):
        """Return what makes the logits: [N, D] -> features [N, D], matrix [V, D], no bias."""
        if self.output_layer is not None:
            return x_ND, ops.transpose(self.output_layer.kernel), None
        return x_ND, ops.convert_to_tensor(self.token_embedding.embeddings), None

    def logits(self, hidden):
        """Compute the logits of hidden vectors: [..., D] -> float32 [..., V]."""
        features, table_VD, _ = self.head(hidden)
        table_VD = ops.cast(table_VD, features.dtype)
        return ops.cast(ops.matmul(features, ops.transpose(table_VD)), "float32")

    def call(self, inputs_BT, segment_ids_BT, positions_BT):
        """Compute the logits of rows: int32 [B, T] three times -> float32 [B, T, V]."""
        return self.logits(self.hidden(inputs_BT, segment_ids_BT, positions_BT))
