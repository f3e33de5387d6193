"""Published training runs, with the source of every number.

``published_runs.csv`` holds facts copied from elsewhere; its notes and caveat columns say what is
doubtful. Nothing is filled in: an unknown number is None. Standard library only.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from data.catalog.chips import TERA
from data.catalog.rows import Row, catalog_file, read_rows, slug_of, times
from tokenmill.cost.flops import flops_per_token, flops_per_token_6n, run_flops
from tokenmill.cost.pricing import SECONDS_PER_HOUR
from tokenmill.model.typical_shape import PlannedShape

PUBLISHED_RUNS_FILE = catalog_file("published_runs.csv")

# Runs whose notes begin so contradict themselves and must not be tuned on.
OUTLIER_MARK = "OUTLIER"


@dataclass(frozen=True, kw_only=True)
class PublishedRun:
    """A training run that somebody has published numbers of.

    Attributes:
        name: Name of the model.
        params_total: Parameters.
        params_active: Parameters that each token passes (fewer in a mixture of experts).
        layers: Layers.
        d_model: Width.
        heads: Query heads.
        d_ff: Inner width of the MLP.
        vocab_size: Rows of the embedding, or entries of the tokenizer: see the notes.
        sequence_length: Tokens in a sequence.
        tokens: Tokens processed.
        hardware: Chip, in the source's words.
        chips: Number of chips.
        chip_hours: Chip-hours.
        wall_days: Days from start to end.
        reported_utilization: MFU, HFU or TFLOP/s a chip, in words.
        peak_flops_per_second: Dense 16-bit peak of one chip, FLOP/s.
        published_usd: Cost that was published, USD.
        source: Where the facts stand.
        quote: Words of the source.
        chip_hours_basis: How the chip-hours came about.
        source_grade: How far to trust the source.
        notes: What is doubtful.
        chip: Slug of the catalog's chip; empty if it is not known.
        shape: The architecture where the row describes one, else None.
        shape_caveat: Why its parameters do not follow from the shape within 1 %; empty if they do.
        utilization_caveat: Why its utilization must not guide a forecast; empty if it may.
    """

    name: str
    params_total: int
    params_active: int
    layers: int | None
    d_model: int | None
    heads: int | None
    d_ff: int | None
    vocab_size: int | None
    sequence_length: int | None
    tokens: int | None
    hardware: str
    chips: int | None
    chip_hours: float | None
    wall_days: float | None
    reported_utilization: str
    peak_flops_per_second: float | None
    published_usd: float | None
    source: str
    quote: str
    chip_hours_basis: str
    source_grade: str
    notes: str
    chip: str
    shape: PlannedShape | None
    shape_caveat: str
    utilization_caveat: str

    @property
    def is_outlier(self) -> bool:
        """Return whether the notes warn that the numbers contradict each other."""
        return self.notes.startswith(OUTLIER_MARK)

    @property
    def is_sparse(self) -> bool:
        """Return whether it is a mixture of experts: a token passes a part of the parameters."""
        return self.params_active < self.params_total

    @property
    def implied_mfu(self) -> float | None:
        """MFU by the rule 6·N: 6·N·D / (chip-hours · 3600 · peak), a fraction.

        N is the active parameters. Chip-hours often include restarts, so this is MFU times
        goodput. None where a number is missing.
        """
        if self.tokens is None or self.chip_hours is None or self.peak_flops_per_second is None:
            return None
        flops = run_flops(flops_per_token_6n(self.params_active), self.tokens)
        return flops / (self.chip_hours * SECONDS_PER_HOUR * self.peak_flops_per_second)

    @property
    def flops_per_token(self) -> float:
        """Training FLOPs per token: the exact count of the shape, or 6·N of the active part."""
        if self.shape is None:
            return flops_per_token_6n(self.params_active)
        return flops_per_token(self.shape).training

    @property
    def achieved_utilization(self) -> float | None:
        """MFU times goodput of the whole bill, a fraction; None where a number is missing.

        As ``implied_mfu``, but by the exact count of products where the shape is known.
        """
        if self.tokens is None or self.chip_hours is None or self.peak_flops_per_second is None:
            return None
        flops = run_flops(self.flops_per_token, self.tokens)
        return flops / (self.chip_hours * SECONDS_PER_HOUR * self.peak_flops_per_second)


def _run_shape(row: Row) -> PlannedShape | None:
    """Return the shape that a row describes; None if it lacks a part."""
    sizes = {
        "layers": row.whole("n_layer"),
        "d_model": row.whole("d_model"),
        "heads": row.whole("n_head"),
        "d_ff": row.whole("d_ff"),
        "vocab_size": row.whole("vocab"),
        "sequence_length": row.whole("seq_len"),
    }
    positions = row.text("positions")
    if not positions or None in sizes.values():
        return None
    fields: dict[str, Any] = dict(
        sizes,
        kv_heads=row.whole("kv_heads"),
        head_dim=row.whole("head_dim"),
        encoder_layers=row.whole("encoder_layers") or 0,
        experts=row.whole("experts") or 1,
        experts_per_token=row.whole("experts_per_token") or 1,
        shared_experts=row.whole("shared_experts") or 0,
        expert_d_ff=row.whole("expert_d_ff"),
        first_dense_layers=row.whole("first_dense_layers") or 0,
        moe_every=row.whole("moe_every") or 1,
        # ALiBi, like rope, has no parameters.
        positions="learned" if positions == "learned" else "rope",
        relative_positions=positions == "relative",
        norm=row.text("norm"),
        mlp=row.text("mlp"),
        use_bias=row.text("use_bias") == "yes",
        tie_embeddings=row.text("tied") == "yes",
        causal=row.text("causal") == "yes",
    )
    return PlannedShape(**fields)


@functools.cache
def load_published_runs() -> tuple[PublishedRun, ...]:
    """Read the published runs.

    Returns:
        The runs, in the file's order.
    """
    return tuple(
        PublishedRun(
            name=row.text("run"),
            params_total=int(row.needed("params_total")),
            params_active=int(row.needed("params_active")),
            layers=row.whole("n_layer"),
            d_model=row.whole("d_model"),
            heads=row.whole("n_head"),
            d_ff=row.whole("d_ff"),
            vocab_size=row.whole("vocab"),
            sequence_length=row.whole("seq_len"),
            tokens=row.whole("tokens"),
            hardware=row.text("hardware"),
            chips=row.whole("n_chips"),
            chip_hours=row.number("chip_hours"),
            wall_days=row.number("wall_days"),
            reported_utilization=row.text("mfu_or_tflops_per_chip"),
            peak_flops_per_second=times(row.number("peak_tflops_of_chip_bf16_dense"), TERA),
            published_usd=row.number("published_usd"),
            source=row.text("source"),
            quote=row.text("quote"),
            chip_hours_basis=row.text("chip_hours_basis"),
            source_grade=row.text("source_grade"),
            notes=row.text("notes"),
            chip=slug_of(row.text("chip")),
            shape=_run_shape(row),
            shape_caveat=row.text("shape_caveat"),
            utilization_caveat=row.text("utilization_caveat"),
        )
        for row in read_rows(PUBLISHED_RUNS_FILE)
    )
