"""How much is trained and how it is computed: keys of [train] that the cost follows from."""

from typing import Annotated, Literal

from pydantic import Field

from tokenmill.config_model import PositiveInt, Section
from tokenmill.model.lora import LoraConfig, LoraTarget

Spreading = Literal["data", "zero1", "expert"]


def spreading(zero: int, expert_parallel: bool) -> Spreading:
    """Name how a model is spread over devices, as tokenmill/cost/sharding.py does.

    Args:
        zero: train.zero.
        expert_parallel: train.expert_parallel.
    """
    if expert_parallel:
        return "expert"
    return "zero1" if zero else "data"


class TrainingPlan(Section):
    """What the ledger has to know of a training; the section [train] begins with it."""

    strategy: Literal["default", "mirrored", "multi_worker", "tpu"] = "default"
    """The tf.distribute strategy."""
    zero: Literal[0, 1] = 0
    """Stage of ZeRO (Rajbhandari et al. 2020): 1 splits AdamW's moments over the replicas, 0 gives
    each replica all of them. The weights are the same, bit by bit."""
    expert_parallel: bool = False
    """Give each replica an equal part of every layer's experts, to which tokens are sent, instead
    of all of them (with zero = 1, strategy "multi_worker"). The losses are the same to rounding."""
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
    """How often training reads the rows, 0.3 for a part of them; by default once, since repeated
    tokens teach less. max_steps may end it sooner."""
    max_steps: PositiveInt | None = None
    """Stop after this many steps even if `epochs` asks for more."""
    accumulation_steps: PositiveInt = 1
    """Micro-batches a step: less memory, the same update."""
    lora_rank: Annotated[int, Field(ge=0)] = 0
    """Train adapters of this rank beside the frozen weights of model.base_model (LoRA); 0 trains
    all weights. precision "bfloat16" keeps frozen matrices in 16 bits, adapters in 32."""
    lora_alpha: Annotated[float, Field(gt=0)] | None = None
    """What an adapter adds is multiplied by lora_alpha / lora_rank; None is twice the rank."""
    lora_targets: Annotated[tuple[LoraTarget, ...], Field(min_length=1)] | Literal["all-linear"] = (
        "all-linear"
    )
    """Linear layers that have an adapter, such as ["q", "v"]; "all-linear" is all of attention and
    MLP."""

    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Rate at which the inputs of adapters are dropped in training, as PEFT's lora_dropout."""

    @property
    def spreading(self) -> Spreading:
        """How the model is spread over devices, by the names of tokenmill/cost/sharding.py."""
        return spreading(self.zero, self.expert_parallel)

    @property
    def lora(self) -> LoraConfig | None:
        """Adapters to train; None where all weights are trained."""
        if not self.lora_rank:
            return None
        return LoraConfig(
            rank=self.lora_rank,
            alpha=2.0 * self.lora_rank if self.lora_alpha is None else self.lora_alpha,
            targets=None if self.lora_targets == "all-linear" else self.lora_targets,
            dropout=self.lora_dropout,
        )
