"""Chips and their prices, with the source and date of every number.

The CSV files beside this module hold facts copied from elsewhere; their ``notes`` and caveat
columns say what is doubtful. Nothing is filled in: an unknown number is None. A chip has any number
of prices (``prices.csv``), the first of which is taken unless told otherwise. Standard library
only.
"""

from __future__ import annotations

import difflib
import functools
import re
from dataclasses import dataclass
from pathlib import Path

from data.catalog.rows import Row, read_rows, slug_of, times

HARDWARE_FILE = Path(__file__).with_name("hardware.csv")
PRICES_FILE = Path(__file__).with_name("prices.csv")

TERA = 1e12
GIGA = 1e9
# Accelerators are labeled in GB but have about that many GiB: an 80GB A100 reports 81,920 MiB.
BYTES_PER_LABELLED_GIB = 2**30
NEAREST_NAMES = 5
# People write them or not; no name in the catalog begins so.
_MAKER = re.compile(r"^((nvidia|amd|intel|google|cloud|tesla|geforce|instinct)-)+")
# Cloud TPU's accelerator types, such as v3-8 and v5litepod-16 (v5e).
_SLICE = re.compile(r"^(?:tpu-)?(v\d[ep]?)-?(\d+)$")


@dataclass(frozen=True, kw_only=True)
class Price:
    """Price of one chip for one hour, and who asks it.

    Attributes:
        usd_per_chip_hour: USD for one chip (never a board or a pod) for one hour.
        provider: Who asks it.
        date: When: a year, month or day; empty if the source does not say.
        source: Where the price stands.
        region: Where; empty if the source does not say.
        notes: How it was derived, cautions.
    """

    usd_per_chip_hour: float
    provider: str
    date: str
    source: str
    region: str = ""
    notes: str = ""

    @property
    def label(self) -> str:
        """Provider, region and date for a person; a missing date is said."""
        place = f"{self.provider} {self.region}".strip()
        return f"{place}, {self.date or 'no date'}"


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One accelerator chip (not a core, a board or a pod), or one vCPU.

    Attributes:
        name: Name in the catalog.
        slug: Short name for configurations, such as ``rtx-3090``.
        vendor: Maker; empty for a vCPU.
        family: Chips of one generation, whose utilization is comparable.
        aliases: Other slugs that mean this chip.
        peak_flops_per_second: Dense (no sparsity) 16-bit tensor peak with float32 accumulation,
            FLOP/s. None where none is stated: measure it.
        float32_flops_per_second: Peak without tensor cores, FLOP/s.
        bfloat16_supported: False for chips whose tensor cores know float16 only.
        memory_bytes: Usable memory, bytes; None for a vCPU.
        memory_bytes_per_second: Memory bandwidth, bytes/s.
        interconnect_bytes_per_second: From one chip to others of its machine or pod, one way,
            bytes/s; None where none was found.
        chips_per_machine: Chips that the interconnect joins: of the maker's own machine, of TPUs
            of a pod; None where none was found.
        network_bytes_per_second: From one chip to those of other machines, one way, bytes/s: its
            share of the network of the maker's own machine; None where none was found.
        prices: On-demand prices; the first is the default. Empty where none was found.
        spec_source: Where the other numbers stand.
        notes: Conflicts between sources, cautions.
    """

    name: str
    slug: str
    vendor: str
    family: str
    aliases: tuple[str, ...]
    peak_flops_per_second: float | None
    float32_flops_per_second: float | None
    bfloat16_supported: bool | None
    memory_bytes: int | None
    memory_bytes_per_second: float | None
    interconnect_bytes_per_second: float | None
    chips_per_machine: int | None
    network_bytes_per_second: float | None
    prices: tuple[Price, ...]
    spec_source: str
    notes: str

    def peak_for(self, precision: str) -> float | None:
        """Return the dense peak in a precision, FLOP/s: float32 has no use of 16-bit units.

        Args:
            precision: `train.precision`.

        Returns:
            FLOP/s; the 16-bit peak where no other is known, None where none is.
        """
        if precision == "float32" and self.float32_flops_per_second is not None:
            return self.float32_flops_per_second
        return self.peak_flops_per_second

    @property
    def price_usd_per_chip_hour(self) -> float | None:
        """Default price of one chip for one hour, USD; None where none was found."""
        return self.prices[0].usd_per_chip_hour if self.prices else None


def _bfloat16(text: str) -> bool | None:
    return None if text == "n/a" else text.startswith("yes")


def _memory_bytes(row: Row) -> int | None:
    # "180 usable / 192 marketed": the usable number comes first.
    column = "memory_gib_as_labeled"
    cells = {column: row.text(column).split(" ", 1)[0]}
    labeled = Row(row.file, row.line, cells).number(column)
    return None if labeled is None else int(labeled * BYTES_PER_LABELLED_GIB)


@functools.cache
def load_chips() -> tuple[Chip, ...]:
    """Read the catalog of chips and their prices.

    Returns:
        The chips, in the file's order.

    Raises:
        ValueError: A cell cannot be read, or a price is of an unknown chip.
    """
    prices: dict[str, list[Price]] = {}
    lines: dict[str, int] = {}
    for row in read_rows(PRICES_FILE):
        name = row.text("chip")
        lines.setdefault(name, row.line)
        prices.setdefault(name, []).append(
            Price(
                usd_per_chip_hour=row.needed("usd_per_chip_hour"),
                provider=row.text("provider"),
                region=row.text("region"),
                date=row.text("date"),
                source=row.text("source"),
                notes=row.text("notes"),
            )
        )
    chips = tuple(
        Chip(
            name=row.text("chip"),
            slug=slug_of(row.text("chip")),
            vendor=row.text("vendor"),
            family=row.text("family"),
            aliases=tuple(row.text("aliases").split()),
            peak_flops_per_second=times(row.number("peak_dense_bf16_fp16_tensor_tflops"), TERA),
            float32_flops_per_second=times(row.number("fp32_tflops_non_tensor"), TERA),
            bfloat16_supported=_bfloat16(row.text("bf16_supported")),
            memory_bytes=_memory_bytes(row),
            memory_bytes_per_second=times(row.number("mem_bw_gbps"), GIGA),
            interconnect_bytes_per_second=times(row.number("interconnect_gbyte_per_s"), GIGA),
            chips_per_machine=row.whole("chips_per_machine"),
            network_bytes_per_second=times(row.number("network_gbyte_per_s"), GIGA),
            prices=tuple(prices.pop(row.text("chip"), ())),
            spec_source=row.text("spec_source"),
            notes=row.text("notes"),
        )
        for row in read_rows(HARDWARE_FILE)
    )
    for name in prices:
        raise ValueError(
            f"{PRICES_FILE.name} line {lines[name]}: chip = {name!r}: expected a chip of "
            f"{HARDWARE_FILE.name}; correct the name, or add the chip with its source."
        )
    return chips


def find_chip(name: str) -> Chip:
    """Find a chip by its slug, name or alias; case, spaces, dashes and maker do not matter.

    Args:
        name: Such as ``rtx-3090``, ``RTX 3090`` or ``tpu-v4``.

    Returns:
        The chip.

    Raises:
        ValueError: If there is none of that name; the message lists the nearest.
    """
    wanted = _MAKER.sub("", slug_of(name))
    key = wanted.replace("-", "")
    chips = load_chips()
    names = {name: chip for chip in chips for name in (chip.slug, *chip.aliases)}
    for known, chip in names.items():
        if key == known.replace("-", ""):
            return chip
    if (found := _SLICE.match(wanted)) and f"tpu-{found[1]}" in names:
        # Of these generations a slice's name counts cores, two a chip; of the others chips.
        count = int(found[2]) // (2 if found[1] in ("v2", "v3", "v4", "v5p") else 1)
        raise ValueError(
            f"chip = {name!r}: that is a slice of {max(1, count)} chips of tpu-{found[1]}. Choose "
            f"tpu-{found[1]}, and {max(1, count)} as the number of chips."
        )
    slugs = [chip.slug for chip in chips]
    near = difflib.get_close_matches(wanted, names, n=NEAREST_NAMES, cutoff=0.4)
    nearest = [slug for slug in slugs if key and key in slug.replace("-", "")]
    nearest += [names[name].slug for name in near]
    shown = list(dict.fromkeys(nearest))[:NEAREST_NAMES] or slugs
    raise ValueError(
        f"chip = {name!r}: expected a chip of {HARDWARE_FILE.name}; the nearest are "
        f"{', '.join(shown)}. Choose one, or add a row with its source."
    )
