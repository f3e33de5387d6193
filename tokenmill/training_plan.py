"""How much is trained and how it is computed: keys of [train] that the cost follows from."""

from typing import Annotated, Literal

from pydantic import Field

from tokenmill.config_model import PositiveInt, Section


class TrainingPlan(Section):
    """What the ledger has to know of a training; the section [train] begins with it."""

    strategy: Literal["default", "mirrored", "multi_worker", "tpu"] = "default"
    """The tf.distribute strategy."""
    precision: Literal["float32", "bfloat16", "mixed_bfloat16", "mixed_float16"] = "float32"
    """mixed_*: 16-bit products, float32 weights; bfloat16: matrices are stored in 16 bits too, norm
    scales, biases, moments and gradients in float32."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Rate after the embeddings, on attention probabilities, and after attention and MLP."""
    rematerialize: bool = False
    """Keep only each layer's input for the backward pass and compute the rest again."""
    global_batch_size: PositiveInt = 16
    """Rows a step, over all replicas."""
    epochs: Annotated[float, Field(gt=0, le=1000)] = 1.0
    max_steps: PositiveInt | None = None
    """Stop after this many steps even if `epochs` asks for more."""
    accumulation_steps: PositiveInt = 1
    """Micro-batches a step: less memory, the same update."""
