"""The section [pack]."""

from typing import Annotated, Literal

from pydantic import Field

from tokenmill.config_model import PositiveInt, Section


class PackConfig(Section):
    """Packing into fixed-length rows."""

    shards: PositiveInt | Literal["auto"] = "auto"
    """Files per split; a worker packs one shard in memory (docs/packing.md says how much). auto:
    one for each 8 million tokens, at least 1,000 rows each."""
    overlap_tokens: Annotated[int, Field(ge=0)] = 0
    """Context repeated, without a loss, before a part that does not begin its document."""
    mask_rate: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.15
    """Share of the tokens that masked-lm hides and asks for."""
    whole_word: bool = False
    """Hide all tokens of a word together; masked-lm."""
    source_weights: dict[str, Annotated[float, Field(ge=0)]] = {}
    """Share of the rows of each source, relative to each other; without it, sources share rows
    and weigh as much as they have. A source with weight 0 is left out."""
    quality_weighting: Annotated[float, Field(ge=0, le=16)] = 0.0
    """How much better text of a source is read more often, by the score of curate.quality: rows
    weigh their bucket's mean score to this power. 0: not at all."""
    max_repetitions: PositiveInt | None = None
    """How often a row is read at most; a source that comes to it leaves the mixture."""
