"""What decides on the rows: the section [pack], and with it length, vocabulary and task."""

from typing import Annotated, Literal

from pydantic import Field

from components.pack.config import PackConfig
from tokenmill.config_model import PositiveInt
from tokenmill.contracts.packed_rows import RowFormat
from tokenmill.rows.arrays import Layout
from tokenmill.rows.codec import row_dtype
from tokenmill.text.control_ids import TOKENMILL_CONTROL_IDS, ControlIds

SHARD_TOKENS = 8_000_000
"""A worker packs one shard in memory: some 40 bytes for each of its tokens."""
_SHARD_ROWS = 1_000


def shards_for(tokens: int, sequence_length: int) -> int:
    """Return the number of shards: SHARD_TOKENS tokens each, but 1,000 rows or more.

    The last row of a shard is partly empty: with 1,000 rows that is a thousandth at most.
    """
    return max(1, -(-tokens // max(SHARD_TOKENS, _SHARD_ROWS * sequence_length)))


class PackJob(PackConfig):
    """What the Packer does: its section, the rows' length, the vocabulary and the task."""

    sequence_length: PositiveInt
    """Tokens of a row."""
    vocab_size: PositiveInt
    """Ids are below it."""
    task: Literal["causal-lm", "masked-lm", "classification"] = "causal-lm"
    classes: Annotated[int, Field(ge=0)] = 0
    """Labels that there must be, in classification."""
    control_ids: ControlIds = Field(default=TOKENMILL_CONTROL_IDS, exclude=True)
    """Of the vocabulary, which is not there when the pipeline is made: no part of the JSON."""
    conversations: bool = False
    """Documents are conversations: none is cut but at a turn, and answers alone bear a loss."""
    fixed_cuts: bool = False
    """Cut documents where a row is full and nowhere else."""

    @property
    def causal(self) -> bool:
        """Whether targets are the next tokens."""
        return self.task == "causal-lm"

    @property
    def classifies(self) -> bool:
        """Whether a row holds one document, and its class is the target."""
        return self.task == "classification"

    def shards_of(self, tokens: int) -> int:
        """Return the number of shards of a split of so many tokens."""
        if self.shards == "auto":
            return shards_for(tokens, self.sequence_length)
        return self.shards

    def of_split(self, split: str, tokens: int) -> "PackJob":
        """Return the settings of a split of so many tokens; its shards are a number.

        Held-out text is cut as the served model cuts it, so the trainer's held-out loss and the
        Evaluator's from raw text are the same number.
        """
        shards = self.shards_of(tokens)
        if split == "train":
            return self.model_copy(update={"shards": shards})
        whole = {
            "overlap_tokens": 0,
            "source_weights": {},
            "quality_weighting": 0.0,
            "max_repetitions": None,
        }
        return self.model_copy(update={"shards": shards, "fixed_cuts": True, **whole})

    @property
    def layout(self) -> Layout:
        """How parts lie in rows."""
        return Layout(
            self.sequence_length,
            not self.causal,
            self.overlap_tokens,
            self.fixed_cuts or self.conversations,
            self.control_ids,
        )

    @property
    def row_format(self) -> RowFormat:
        """What a record holds."""
        largest = max(self.vocab_size, self.classes)
        dtype = row_dtype(2 * largest if self.conversations else largest)
        of_task = {"answers": True} if self.conversations else {}
        return RowFormat(
            dtype=dtype,
            last_targets=self.causal,
            context=self.overlap_tokens > 0,
            label=self.classifies,
            **of_task,
        )
