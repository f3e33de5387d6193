"""The demo dense beside the demo with 8 experts, 2 a token, at equal training FLOPs.

    benchmarks/sparse/quality.py DIRECTORY [SEED ..]

An expert is half as wide as the dense MLP, so that a token passes as many weights of MLPs; steps
are fewer by what routers take. Each run is the whole pipeline; what does not depend on the model
is taken from the runs before. Results are appended to DIRECTORY/results.jsonl; a run that stands
there is not run again.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

from pipeline.loader import load_config
from tokenmill.cost.flops import flops_per_token

SEEDS = (1, 2, 3)
KINDS = {
    "dense": [],
    "experts": ["model.experts=8", "model.experts_per_token=2", "model.expert_d_ff=512"],
}


def training_flops(keys: list[str]) -> float:
    """Return the training FLOPs of a token."""
    shape = load_config("demo", None, keys).shape()
    return flops_per_token(shape, causal_half=True).training


def run(directory: Path, kind: str, seed: int, epochs: float) -> dict:
    """Run the pipeline; return what came out."""
    keys = [*KINDS[kind], f"run.seed={seed}", f"train.epochs={epochs}"]
    keys += [f"run.output_dir={directory / 'runs'}", "evaluate.max_bits_per_byte=8"]
    command = ["tokenmill", "run", "--json", *(word for key in keys for word in ("--set", key))]
    told = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    numbers = told["numbers"]
    actual = numbers["actual"]
    return {
        "kind": kind,
        "seed": seed,
        "params_total": numbers["params_total"],
        "flops": actual["total_flops"],
        "bits_per_byte": numbers["quality"]["bits_per_byte"],
        "tokens_per_second": actual["slots"] / actual["training_seconds"],
    }


def main() -> None:
    """Train what is missing, and print the comparison."""
    directory = Path(sys.argv[1]).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    results = directory / "results.jsonl"
    found = []
    if results.exists():
        found = [json.loads(line) for line in results.read_text().splitlines()]
    dense, experts = (training_flops(keys) for keys in KINDS.values())
    epochs = load_config("demo", None, []).train.epochs
    for seed in [int(word) for word in sys.argv[2:]] or SEEDS:
        for kind in KINDS:
            if not any((r["kind"], r["seed"]) == (kind, seed) for r in found):
                share = 1 if kind == "dense" else dense / experts
                found.append(run(directory, kind, seed, round(epochs * share, 6)))
                with results.open("a") as file:
                    file.write(json.dumps(found[-1]) + "\n")
    for result in found:
        print(result)
    for name in ("bits_per_byte", "tokens_per_second", "flops"):
        values = {k: [r[name] for r in found if r["kind"] == k] for k in KINDS}
        pairs = zip(values["dense"], values["experts"], strict=True)
        ratios = [sparse / plain for plain, sparse in pairs]
        print(name, {k: statistics.mean(v) for k, v in values.items()}, "experts / dense", ratios)


if __name__ == "__main__":
    main()
