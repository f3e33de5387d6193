"""A Transformer that sees both sides: BERT (Devlin et al. 2018), post- or pre-norm.

Shape suffixes: B rows, T tokens of a row, N = B * T, D model width, V vocabulary, C classes.
"""

from typing import Any

from keras import ops

from tokenmill.model.backbone import Backbone
from tokenmill.model.lora import LoraConfig
from tokenmill.model.shape import ModelShape


class Encoder(Backbone):
    """Token ids, segments and positions in; logits over the vocabulary or over classes out.

    The head of masked language modeling is BERT's: a dense layer with GELU, a norm, the token
    embedding as the output matrix, an output bias. The classifier's is BERT's pooler (a dense
    layer with tanh) and a dense layer; it is computed for every token, and the targets say that
    the first of each document counts.

    Args:
        shape: Sizes and options; not causal.
        seed: Seed of the initial weights.
        dtype: A Keras dtype policy.
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
        super().__init__(shape, seed, dtype, dropout, rematerialize, lora, spread, name="encoder")
        build, mlm, classifies = self.builder, shape.head == "mlm", shape.head == "classifier"
        d = shape.d_model
        self.head_dense = build.dense(d, "head_dense", use_bias=True) if mlm else None
        self.head_norm = build.norm("head_norm") if mlm else None
        self.output_layer = (
            None
            if shape.tie_embeddings or classifies
            else build.dense(shape.vocab_size, "output_layer", use_bias=False)
        )
        self.pooler = build.dense(d, "pooler", use_bias=True, is_new=True) if classifies else None
        self.classifier = (
            build.dense(shape.classes, "classifier", use_bias=True, is_new=True)
            if classifies
            else None
        )
        if not self.built:
            self.build(None)

    def build(self, input_shape):
        """Create all weights."""
        super().build(input_shape)
        for layer in (
            self.head_dense,
            self.head_norm,
            self.output_layer,
            self.pooler,
            self.classifier,
        ):
            if layer is not None:
                layer.build((None, self.shape_config.d_model))
        self.output_bias = (
            self.add_weight(
                shape=(self.shape_config.vocab_size,),
                initializer="zeros",
                trainable=self.builder.trains_base,
                name="output_bias",
            )
            if self.shape_config.head == "mlm"
            else None
        )

    def head(self, x_ND):
        """Return what makes the logits.

        [N, D] -> features [N, D], output matrix [V or C, D], output bias or None.
        """
        if self.pooler is not None and self.classifier is not None:
            features = ops.tanh(self.pooler(x_ND))
            return features, ops.transpose(self.classifier.kernel), self.classifier.bias
        if self.head_dense is not None and self.head_norm is not None:
            x_ND = self.head_norm(self.builder.gelu(self.head_dense(x_ND)))
        if self.output_layer is not None:
            return x_ND, ops.transpose(self.output_layer.kernel), self.output_bias
        return x_ND, ops.convert_to_tensor(self.token_embedding.embeddings), self.output_bias

    def logits(self, hidden):
        """Compute the logits of hidden vectors: [..., D] -> float32 [..., V or C]."""
        x_ND = ops.reshape(hidden, (-1, self.shape_config.d_model))
        features, table, bias = self.head(x_ND)
        logits = ops.matmul(features, ops.transpose(ops.cast(table, features.dtype)))
        logits = ops.cast(logits, "float32")
        if bias is not None:
            logits = logits + ops.cast(bias, "float32")
        return ops.reshape(logits, (*ops.shape(hidden)[:-1], table.shape[0]))

    def call(self, inputs_BT, segment_ids_BT, positions_BT):
        """Compute the logits of rows: int32 [B, T] three times -> float32 [B, T, V or C]."""
        return self.logits(self.hidden(inputs_BT, segment_ids_BT, positions_BT))
