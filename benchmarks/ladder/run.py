"""Does a ladder predict a run of eight times the compute of its largest?

Three corpora (packages of the embedded corpus, dealt out by size) times three seeds. Of each a
ladder is planned whose largest training has at most 1/8 of the target's compute (6 N D), trained
and fitted; then the target itself is trained and evaluated on the same held-out text. WORK keeps
corpora and small trainings, so that a call goes on where the last one ended; RESULTS gets a JSON
line a prediction.

Usage: python benchmarks/ladder/run.py WORK RESULTS [--max-minutes N] [--tokens N] [--width N]
The last prediction that begins within the minutes is finished. With WORK and RESULTS alone a quiet
machine of two cores takes about an hour. `--table RESULTS` prints what RESULTS holds.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections import Counter

EIGHTH = 1 / 8
CORPORA, SEEDS = 3, 3
# Speeds of the plan, the same on each machine: what is trained must not depend on the clock.
FLOPS_PER_SECOND = 5e10


def deal_corpora(work: str) -> list[str]:
    """Write the corpora, each some packages, of about the same size."""
    from pipeline.embedded_corpus import build_embedded_corpus

    with open(build_embedded_corpus().path, encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    sizes: Counter[str] = Counter()
    for record in records:
        sizes[record["source"]] += len(record["text"])
    totals, owner = [0] * CORPORA, {}
    for source, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        owner[source] = totals.index(min(totals))
        totals[owner[source]] += size
    paths = []
    for number in range(CORPORA):
        path = os.path.join(work, f"corpus{number}.jsonl")
        with open(path, "w", encoding="utf-8") as out:
            for record in records:
                if owner[record["source"]] == number:
                    out.write(json.dumps(record) + "\n")
        paths.append(path)
    return paths


def plan_below(target, largest: float):
    """Return the largest plan whose trunks have at most so much compute, and the speed of it."""
    from pipeline.studies.ladder_plan import Speed, Timing, plan_ladder

    speed = Speed(
        timings=(
            Timing(
                params=1_000_000, flops_per_second=FLOPS_PER_SECOND, start_seconds=10,
                evaluate_seconds=2,
            ),
        )
    )  # fmt: skip

    def compute(trunks) -> float:
        return max(
            6 * t.shape.params_in_products * t.steps[-1] * t.train.global_batch_size
            * target.tokens_per_row
            for t in trunks
        )  # fmt: skip

    found, seconds = None, 60.0
    while seconds < 1e5:
        try:
            trunks = plan_ladder(target, seconds, speed)
        except Exception as error:  # too little time for any
            if found is not None or "buy no ladder" not in str(error):
                raise
        else:
            if compute(trunks) > largest:
                break
            found = trunks
        seconds *= 1.03
    assert found is not None, "no ladder has so little compute: raise --tokens"
    return found, speed


def predict(corpus: str, seed: int, work: str, tokens: float, width: int) -> dict:
    from pipeline.loader import load_config
    from pipeline.report.console import RunConsole
    from pipeline.studies.corpus import prepare_corpus
    from pipeline.studies.ladder import LadderStudy
    from pipeline.studies.ladder_plan import rule_of_compute
    from pipeline.studies.proxy_runs import ProxyJob, StudyBudget

    name = os.path.splitext(os.path.basename(corpus))[0]
    overrides = [
        f"run.output_dir={json.dumps(os.path.join(work, name))}", f"run.seed={seed}",
        f"corpus.input=[{json.dumps(corpus)}]", "corpus.source_field=source",
        f"model.d_model={width}", f"model.heads={max(1, width // 64)}", f"model.d_ff={4 * width}",
        "tokenizer.vocab_size=1024", "train.global_batch_size=8", "train.learning_rate=3e-3",
    ]  # fmt: skip
    config = load_config("demo", overrides=overrides)
    screen = RunConsole(sys.stderr)
    prepared = prepare_corpus(config, screen, by_source=False)
    epochs = tokens / prepared.unique_tokens
    train = config.train.model_copy(update={"epochs": epochs})
    config = config.model_copy(update={"train": train})
    study = LadderStudy(config, prepared, os.path.join(work, name, "proxy_runs"), screen)
    target = study.target
    trunks, speed = plan_below(target, target.compute * EIGHTH)
    ladder = study.fit(trunks, StudyBudget(), speed)
    spent = study.runs.seconds
    own = rule_of_compute(target.train, target.compute, target)
    steps = round(target.tokens / (own.global_batch_size * target.tokens_per_row))
    outcome = study.runs.run(ProxyJob(target.shape, own, (steps,), seed))
    measured = outcome.results[0].bits_per_byte()
    found = ladder.prediction.bits_per_byte
    return {
        "corpus": name,
        "seed": seed,
        "params": target.shape.params_in_products,
        "tokens": round(target.tokens),
        "epochs": epochs,
        "times_compute": ladder.prediction.times_compute,
        "points": sum(not point.left_out for point in ladder.points),
        "ladder_seconds": spent,
        "target_seconds": outcome.seconds,
        "predicted": found and found.value,
        "low": found and found.low,
        "high": found and found.high,
        "measured": measured,
        "error": found and found.value / measured - 1,
        "within": found and found.low <= measured <= found.high,
        "published": [law.bits_per_byte for law in ladder.published],
        "problems": ladder.problems,
        "cautions": ladder.cautions,
        "alpha": ladder.fit and ladder.fit.constants.alpha.value,
        "beta": ladder.fit and ladder.fit.constants.beta.value,
        "e": ladder.fit and ladder.fit.constants.e.value,
    }


def table(path: str) -> None:
    with open(path, encoding="utf-8") as lines:
        results = [json.loads(line) for line in lines]
    print("| corpus | seed | times compute | predicted | 90 % | measured | error | within |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for r in results:
        if r["predicted"] is None:
            print(f"| {r['corpus']} | {r['seed']} | | none: {r['problems'][0]} | | "
                  f"{r['measured']:.3f} | | |")  # fmt: skip
            continue
        print(
            f"| {r['corpus']} | {r['seed']} | {r['times_compute']:.1f} | {r['predicted']:.3f} | "
            f"{r['low']:.3f} to {r['high']:.3f} | {r['measured']:.3f} | {r['error']:+.1%} | "
            f"{'yes' if r['within'] else 'no'} |"
        )
    told = [r for r in results if r["predicted"] is not None]
    if told:
        errors = [abs(r["error"]) for r in told]
        width = sum(math.log(r["high"] / r["low"]) / 2 for r in told) / len(told)
        print(
            f"\n{len(told)} of {len(results)} predicted; mean error "
            f"{sum(errors) / len(errors):.1%}, most {max(errors):.1%}; "
            f"{sum(r['within'] for r in told)} within their interval, of ± {width:.1%} on average."
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", nargs="?")
    parser.add_argument("results", nargs="?")
    parser.add_argument("--table", metavar="RESULTS")
    parser.add_argument("--max-minutes", type=float, default=math.inf)
    parser.add_argument("--tokens", type=float, default=3e6)
    parser.add_argument("--width", type=int, default=96)
    given = parser.parse_args()
    if given.table:
        table(given.table)
        return
    from pipeline.studies.session import divide_cores_first

    divide_cores_first()
    work = os.path.abspath(given.work)
    os.makedirs(work, exist_ok=True)
    done = set()
    if os.path.exists(given.results):
        with open(given.results, encoding="utf-8") as lines:
            done = {(r["corpus"], r["seed"]) for r in map(json.loads, lines)}
    started = time.monotonic()
    corpora = deal_corpora(work)
    for seed in range(SEEDS):
        for corpus in corpora:
            name = os.path.splitext(os.path.basename(corpus))[0]
            if (name, seed) in done:
                continue
            if time.monotonic() - started > given.max_minutes * 60:
                return
            result = predict(corpus, seed, work, given.tokens, given.width)
            with open(given.results, "a", encoding="utf-8") as out:
                out.write(json.dumps(result) + "\n")
            print(
                {
                    k: result[k]
                    for k in ("corpus", "seed", "predicted", "measured", "error", "within")
                }
            )
    table(given.results)


if __name__ == "__main__":
    main()
