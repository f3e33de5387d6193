"""The Transformers that tokenmill trains: layers, backbone, decoder, encoder, losses.

`build_model` and `loss_sums` are all that a training loop needs: every task is a matter of the
shape's head and of which targets of a batch count.
"""

from tokenmill.model.decoder import Decoder
from tokenmill.model.encoder import Encoder
from tokenmill.model.losses import LossSums, dropout_seed, loss_sums
from tokenmill.model.shape import ModelShape

__all__ = ["Decoder", "Encoder", "LossSums", "build_model", "dropout_seed", "loss_sums"]


def build_model(
    shape: ModelShape,
    seed: int,
    precision: str = "float32",
    dropout: float = 0.0,
    rematerialize: bool = False,
) -> Decoder | Encoder:
    """Build a decoder if the shape is causal, else an encoder with the shape's head.

    Args:
        shape: Sizes and options.
        seed: Seed of the initial weights.
        precision: A Keras dtype policy: float32, bfloat16, mixed_bfloat16 or mixed_float16.
        dropout: Dropout rate; used in the steps that give a dropout seed.
        rematerialize: Keep only each layer's input for the backward pass.
    """
    kind = Decoder if shape.causal else Encoder
    return kind(shape, seed, precision, dropout, rematerialize)
