"""The table of runs that run.sh left: held-out accuracy over steps, tokens and cost.

python benchmarks/adapt/table.py OUT
"""

import json
import pathlib
import statistics
import sys

STARTS = ("checkpoint", "scratch")


def one(directory: pathlib.Path, pattern: str) -> pathlib.Path:
    """Return the only file that matches."""
    (found,) = directory.glob(pattern)
    return found


def points(run: pathlib.Path) -> dict[int, dict[str, float]]:
    """Return by step the held-out accuracy, and tokens and dollars spent up to there."""
    text = one(run, "artifacts/Trainer/model_run/*/metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    report = json.loads(one(run, "logs/*/report.json").read_text())
    quality, training = report["cost_report"]["quality"], report["ledger"]["training"]
    last = training["steps"]
    accuracy = {x["step"]: x["eval_accuracy"] for x in lines if x.get("event") == "evaluation"}
    accuracy = {0: quality["eval_before"]["accuracy"]} | accuracy
    accuracy[last] = quality["eval_after"]["accuracy"]
    spent = {x["step"]: x["cost_usd"] for x in lines if "cost_usd" in x}
    return {
        step: {
            "accuracy": accuracy[step],
            "tokens": training["loss_tokens"] * step / last,
            "usd": spent.get(step, 0.0),
        }
        for step in sorted(accuracy)
    }


def spread(values: list[float], scale: float, digits: int) -> str:
    """Write a mean with the least and the largest value."""
    low, mean, high = (f(values) * scale for f in (min, statistics.mean, max))
    return f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def main(out: pathlib.Path) -> None:
    """Print one table over steps, and one of the finished models."""
    runs = {start: sorted(out.glob(f"{start}-[0-9]*/")) for start in STARTS}
    print(
        "| start | step | tokens | accuracy, % | cost, 1/1000 $ |\n| --- | --- | --- | --- | --- |"
    )
    for start in STARTS:
        of_seeds = [points(run) for run in runs[start]]
        for step in of_seeds[0]:
            here = [of_seed[step] for of_seed in of_seeds]
            accuracy = spread([x["accuracy"] for x in here], 100, 1)
            usd = spread([x["usd"] for x in here], 1000, 1)
            print(f"| {start} | {step} | {here[0]['tokens']:,.0f} | {accuracy} | {usd} |")
    print("\n| start | accuracy, % | macro F1 | log loss | FLOPs | cost, 1/1000 $ | CPU-seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for start in STARTS:
        reports = [json.loads(one(run, "logs/*/report.json").read_text()) for run in runs[start]]
        costs = [report["cost_report"] for report in reports]
        totals = [cost["quality"]["evaluation"]["total"] for cost in costs]
        actual = [cost["actual"] for cost in costs]
        files = [one(run, "artifacts/Trainer/model_run/*/telemetry.json") for run in runs[start]]
        cpu = [sum(json.loads(path.read_text())["cpu_seconds"].values()) for path in files]
        cells = [
            spread([x["accuracy"] for x in totals], 100, 1),
            spread([x["macro_f1"] for x in totals], 1, 3),
            spread([x["log_loss"] for x in totals], 1, 2),
            f"{actual[0]['total_flops']:.3g}",
            spread([x["compute_usd"] for x in actual], 1000, 1),
            spread(cpu, 1, 0),
        ]
        print(f"| {start} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
