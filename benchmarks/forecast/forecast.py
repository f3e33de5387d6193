"""The default-MFU forecast against published chip-hours: every row, each left out of its own range.

    python benchmarks/forecast/forecast.py > benchmarks/forecast/results-<date>.md
    python benchmarks/forecast/forecast.py --plot benchmarks/forecast/forecast.png

Nothing is run: the arithmetic is tokenmill's, the facts are data/catalog/published_runs.csv.
"""

import argparse
import math
import statistics

from data.catalog.chips import find_chip
from tokenmill.cost.pricing import chip_hours
from tokenmill.cost.published_runs import PublishedRun, load_published_runs
from tokenmill.cost.utilization import utilization_range


def forecast(run: PublishedRun) -> dict:
    """Forecast chip-hours by the median, and by the ends, of the other runs' utilization."""
    chip = find_chip(run.chip)
    found = utilization_range(chip, run.params_active, without=run.name, sparse=run.is_sparse)
    hours = [
        chip_hours(
            total_flops=run.flops_per_token * run.tokens,
            peak_flops_per_second=run.peak_flops_per_second,
            mfu=mfu,
        )
        for mfu in (found.high, found.median, found.low)
    ]
    return {
        "run": run,
        "low": hours[0],
        "likely": hours[1],
        "high": hours[2],
        "n": len(found.runs),
        "basis": found.basis,
        "ratio": hours[1] / run.chip_hours,
        "inside": hours[0] <= run.chip_hours <= hours[2],
    }


def quantile(values: list[float], share: float) -> float:
    """Return a quantile, linear between order statistics."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def spread(rows: list[dict]) -> str:
    errors = [abs(row["ratio"] - 1) for row in rows]
    factors = [max(row["ratio"], 1 / row["ratio"]) for row in rows]
    inside = sum(row["inside"] for row in rows)
    return (
        f"n = {len(rows)}; |forecast / published - 1|: median {statistics.median(errors):.0%}, "
        f"90th percentile {quantile(errors, 0.9):.0%}; factor between the two: median "
        f"{statistics.median(factors):.2f}, 90th percentile {quantile(factors, 0.9):.2f}; "
        f"published hours inside the range: {inside} of {len(rows)}"
    )


def write_plot(rows: list[dict], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 5.5))
    families = sorted({find_chip(row["run"].chip).family for row in rows})
    for family in families:
        own = [row for row in rows if find_chip(row["run"].chip).family == family]
        axes.errorbar(
            [row["run"].chip_hours for row in own],
            [row["likely"] for row in own],
            yerr=[
                [row["likely"] - row["low"] for row in own],
                [row["high"] - row["likely"] for row in own],
            ],
            fmt="o",
            markersize=5,
            linewidth=0.7,
            label=family,
        )
    ends = [5, 1e8]
    axes.plot(ends, ends, "k-", linewidth=0.8)
    for factor in (0.5, 2):
        axes.plot(ends, [factor * end for end in ends], "k:", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(ends)
    axes.set_ylim(ends)
    axes.set_xlabel("published chip-hours")
    axes.set_ylabel("forecast chip-hours, median and range")
    axes.set_title("Default MFU, each run left out (dotted: factor 2)", fontsize=10)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plot", metavar="FILE.png")
    arguments = parser.parse_args()
    runs = [run for run in load_published_runs() if run.chip_hours and run.tokens and run.chip]
    rows = sorted((forecast(run) for run in runs), key=lambda row: row["run"].params_active)
    if arguments.plot:
        write_plot(rows, arguments.plot)
        return
    clean = [row for row in rows if not row["run"].utilization_caveat]
    print(f"All rows with chip-hours and tokens: {spread(rows)}.\n")
    print(f"Without the rows marked *: {spread(clean)}.\n")
    for family in sorted({find_chip(row["run"].chip).family for row in clean}):
        own = [row for row in clean if find_chip(row["run"].chip).family == family]
        print(f"- {family}: {spread(own)}")
    print(
        "\n| run | chip | published chip-hours | forecast | range | forecast / published "
        "| n | from |\n| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |"
    )
    for row in rows:
        run = row["run"]
        mark = " *" if run.utilization_caveat else ""
        print(
            f"| {run.name}{mark} | {run.chip} | {run.chip_hours:,.4g} | {row['likely']:,.4g} "
            f"| {row['low']:,.3g} - {row['high']:,.3g} | {row['ratio']:.2f} | {row['n']} "
            f"| {row['basis']} |"
        )
    left = [run.name for run in load_published_runs() if run not in runs]
    print(f"\nNot in the table, for lack of chip-hours or tokens: {', '.join(left)}.")
    marked = [f"{r['run'].name} ({r['run'].utilization_caveat})" for r in rows if r not in clean]
    print(f"\n\\* {'; '.join(marked)}.")


if __name__ == "__main__":
    main()
