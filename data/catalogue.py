"""Chips and published training runs, with the source and date of every number.

The two CSV files beside this module hold facts copied from elsewhere; their ``notes`` columns say
what is doubtful. Nothing is filled in: an unknown number is None. Standard library only.
"""

from __future__ import annotations

import csv
import difflib
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components.ledger.flops import flops_per_token_6n, run_flops
from components.ledger.money import SECONDS_PER_HOUR

HARDWARE_FILE = Path(__file__).with_name("hardware.csv")
PUBLISHED_RUNS_FILE = Path(__file__).with_name("published_runs.csv")

TERA = 1e12
GIGA = 1e9
# Accelerators are labelled in GB but have about that many GiB: an 80GB A100 reports 81,920 MiB.
BYTES_PER_LABELLED_GIB = 2**30
NEAREST_NAMES = 5
# Runs whose notes begin so contradict themselves and must not be tuned on.
OUTLIER_MARK = "OUTLIER"


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One accelerator chip (not a core, a board or a pod), or one vCPU.

    Attributes:
        name: Name in the catalogue.
        slug: Short name for configurations, such as ``rtx-3090``.
        vendor: Maker; empty for a vCPU.
        peak_flops_per_second: Dense (no sparsity) 16-bit tensor peak with float32 accumulation,
            FLOP/s. None where none is stated: measure it.
        float32_flops_per_second: Peak without tensor cores, FLOP/s.
        bfloat16_supported: False for chips whose tensor cores know float16 only.
        memory_bytes: Usable memory, bytes; None for a vCPU.
        memory_bytes_per_second: Memory bandwidth, bytes/s.
        price_usd_per_chip_hour: On-demand price of one chip for one hour, USD.
        price_provider: Who asks that price, and where.
        price_date: When: a year, month or day.
        price_source: Where the price stands.
        spec_source: Where the other numbers stand.
        notes: Other prices, conflicts between sources, cautions.
    """

    name: str
    slug: str
    vendor: str
    peak_flops_per_second: float | None
    float32_flops_per_second: float | None
    bfloat16_supported: bool | None
    memory_bytes: int | None
    memory_bytes_per_second: float | None
    price_usd_per_chip_hour: float
    price_provider: str
    price_date: str
    price_source: str
    spec_source: str
    notes: str


@dataclass(frozen=True, kw_only=True)
class PublishedRun:
    """A training run that its makers, or somebody else, wrote about.

    Attributes:
        name: Name of the model.
        params_total: Parameters.
        params_active: Parameters that each token passes (fewer in a mixture of experts).
        n_layers: Layers.
        d_model: Width.
        n_heads: Query heads.
        d_ff: Inner width of the MLP.
        vocab_size: Rows of the embedding, or entries of the tokenizer: see the notes.
        sequence_length: Tokens in a sequence.
        tokens: Tokens processed.
        hardware: Chip, in the source's words.
        chips: Number of chips.
        chip_hours: Chip-hours.
        wall_days: Days from start to end.
        reported_utilisation: MFU, HFU or TFLOP/s a chip, in words.
        peak_flops_per_second: Dense 16-bit peak of one chip, FLOP/s.
        published_usd: Cost that was published, USD.
        source: Where the facts stand.
        quote: Words of the source.
        chip_hours_basis: How the chip-hours came about.
        source_grade: How far to trust the source.
        notes: What is doubtful.
    """

    name: str
    params_total: int
    params_active: int
    n_layers: int | None
    d_model: int | None
    n_heads: int | None
    d_ff: int | None
    vocab_size: int | None
    sequence_length: int | None
    tokens: int | None
    hardware: str
    chips: int | None
    chip_hours: float | None
    wall_days: float | None
    reported_utilisation: str
    peak_flops_per_second: float | None
    published_usd: float | None
    source: str
    quote: str
    chip_hours_basis: str
    source_grade: str
    notes: str

    @property
    def is_outlier(self) -> bool:
        """Whether the notes warn that the numbers contradict each other."""
        return self.notes.startswith(OUTLIER_MARK)

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


class _Row:
    """One row of a CSV file, whose complaints say where it stands."""

    def __init__(self, file: Path, line: int, cells: dict[str, str]):
        self.file, self.line, self.cells = file, line, cells

    def text(self, column: str) -> str:
        try:
            return (self.cells[column] or "").strip()
        except KeyError:
            raise ValueError(
                f"{self.file.name}: column {column!r} = missing: expected it in the heading; "
                "restore the file from version control."
            ) from None

    def number(self, column: str) -> float | None:
        text = self.text(column)
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 < value < float("inf"):
            raise ValueError(
                f"{self.file.name} line {self.line}: {column} = {text!r}: expected a positive "
                "number, or nothing where it is unknown; correct the file."
            )
        return value

    def needed(self, column: str) -> float:
        value = self.number(column)
        if value is None:
            raise ValueError(
                f"{self.file.name} line {self.line}: {column} = '': expected a positive number; "
                "fill it in with its source."
            )
        return value

    def whole(self, column: str) -> int | None:
        value = self.number(column)
        return None if value is None else int(value)


def _rows(file: Path) -> Iterator[_Row]:
    with file.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        for cells in reader:
            yield _Row(file, reader.line_num, cells)


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _slug(name: str) -> str:
    plain = re.sub(r"\(.*?\)", "", name).strip().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def _bfloat16(text: str) -> bool | None:
    return None if text == "n/a" else text.startswith("yes")


def _memory_bytes(row: _Row) -> int | None:
    # "180 usable / 192 marketed": the usable number comes first.
    column = "memory_gib_as_labelled"
    cells = {column: row.text(column).split(" ", 1)[0]}
    labelled = _Row(row.file, row.line, cells).number(column)
    return None if labelled is None else int(labelled * BYTES_PER_LABELLED_GIB)


@functools.cache
def load_chips() -> tuple[Chip, ...]:
    """Read the catalogue of chips.

    Returns:
        The chips, in the file's order.
    """
    return tuple(
        Chip(
            name=row.text("chip"),
            slug=_slug(row.text("chip")),
            vendor=row.text("vendor"),
            peak_flops_per_second=_times(row.number("peak_dense_bf16_fp16_tensor_tflops"), TERA),
            float32_flops_per_second=_times(row.number("fp32_tflops_non_tensor"), TERA),
            bfloat16_supported=_bfloat16(row.text("bf16_supported")),
            memory_bytes=_memory_bytes(row),
            memory_bytes_per_second=_times(row.number("mem_bw_gbps"), GIGA),
            price_usd_per_chip_hour=row.needed("on_demand_usd_per_chip_hour"),
            price_provider=row.text("price_provider_region"),
            price_date=row.text("price_date"),
            price_source=row.text("price_source"),
            spec_source=row.text("spec_source"),
            notes=row.text("notes"),
        )
        for row in _rows(HARDWARE_FILE)
    )


def find_chip(name: str) -> Chip:
    """Find a chip by its slug or name; case, spaces and dashes do not matter.

    Args:
        name: Such as ``rtx-3090``, ``RTX 3090`` or ``tpu-v4``.

    Returns:
        The chip.

    Raises:
        ValueError: If there is none of that name; the message lists the nearest.
    """
    wanted = _slug(name)
    key = wanted.replace("-", "")
    chips = load_chips()
    for chip in chips:
        if key == chip.slug.replace("-", ""):
            return chip
    slugs = [chip.slug for chip in chips]
    nearest = [slug for slug in slugs if key and key in slug.replace("-", "")]
    nearest += difflib.get_close_matches(wanted, slugs, n=NEAREST_NAMES, cutoff=0.4)
    shown = list(dict.fromkeys(nearest))[:NEAREST_NAMES] or slugs
    raise ValueError(
        f"chip = {name!r}: expected a chip of {HARDWARE_FILE.name}; the nearest are "
        f"{', '.join(shown)}. Choose one, or add a row with its source."
    )


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
            n_layers=row.whole("n_layer"),
            d_model=row.whole("d_model"),
            n_heads=row.whole("n_head"),
            d_ff=row.whole("d_ff"),
            vocab_size=row.whole("vocab"),
            sequence_length=row.whole("seq_len"),
            tokens=row.whole("tokens"),
            hardware=row.text("hardware"),
            chips=row.whole("n_chips"),
            chip_hours=row.number("chip_hours"),
            wall_days=row.number("wall_days"),
            reported_utilisation=row.text("mfu_or_tflops_per_chip"),
            peak_flops_per_second=_times(row.number("peak_tflops_of_chip_bf16_dense"), TERA),
            published_usd=row.number("published_usd"),
            source=row.text("source"),
            quote=row.text("quote"),
            chip_hours_basis=row.text("chip_hours_basis"),
            source_grade=row.text("source_grade"),
            notes=row.text("notes"),
        )
        for row in _rows(PUBLISHED_RUNS_FILE)
    )
