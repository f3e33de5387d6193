"""Runs tokenmill's ingest and Curator on the benchmark corpus and prints what they found.

    PYTHONPATH=. python benchmarks/languages/run.py WORK_DIR [SET ...]
    PYTHONPATH=. python benchmarks/languages/run.py WORK_DIR --peer FOUND.json

With `--peer` the tables are those of peer_datatrove.py's output, and nothing is run.

WORK_DIR/planted.jsonl is corpus.py's. For each rule set (all of SETS that there are, unless named)
one run over clean documents and noise, without a search for copies; one run over clean documents
and copies without rules; and, by the function that the Curator calls, what `curate.languages`
keeps. Tables:

- clean documents kept, and for each language the rules that took the most of them;
- noise found by kind: dropped for any reason, or repaired to the original by ingest;
- copies found (one of the two is dropped as a copy), and clean documents dropped as copies of
  something that they are no planted copy of;
- documents of the other twelve languages dropped as wrong_language, and clean ones kept.
"""

import json
import os
import shutil
import sys
from collections import ChainMap, Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, get_args

from benchmarks.curation.ours import curate, ingest
from benchmarks.languages.corpus import COPIES, MOJIBAKE, NOISE
from benchmarks.languages.sources import LANGUAGES
from components.curate.config import CurateConfig
from components.curate.decision import judge_texts
from components.ingest.manifest import list_inputs, write_manifest
from pipeline.dag import create_components
from pipeline.loader import load_config
from tokenmill.contracts.curation import read_dropped
from tokenmill.files import list_files
from tokenmill.records.documents import read_documents
from tokenmill.records.splits import SPLITS, split_directory
from tokenmill.text.normalize import normalize

SETS = tuple(
    name
    for name in ("technical-prose", "web", "fineweb-2")
    if name in get_args(CurateConfig.model_fields["rules"].annotation)
)
NO_COPIES = ("curate.exact_duplicates=keep", "curate.near_duplicates=keep")
OTHER_LANGUAGE = 25


class Outcome(NamedTuple):
    """What a run left and why the rest went.

    Attributes:
        ingested: Text by id, as ingest gave it.
        kept: Ids of the documents that stay.
        dropped: (reason, id of the copy that stays) by id.
        held_out: Ids of the documents that ingest held out.
    """

    ingested: dict[str, str]
    kept: set[str]
    dropped: dict[str, tuple[str, str]]
    held_out: frozenset[str] = frozenset()


def read_planted(work: str, name: str = "planted") -> list[dict[str, str]]:
    """Read the benchmark corpus, or another of its form."""
    with open(os.path.join(work, f"{name}.jsonl"), encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def kind_of(doc_id: str) -> str:
    """Return the kind of a document: clean, one of NOISE or one of COPIES."""
    return doc_id.split("/")[1]


def run(documents: Iterable[Mapping[str, str]], work: str, settings: Sequence[str]) -> Outcome:
    """Ingest and curate documents in `work`, which is emptied first."""
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    path = os.path.join(work, "in.jsonl")
    with open(path, "w", encoding="utf-8") as out:
        for document in documents:
            fields = {name: document[name] for name in ("id", "source", "text")}
            out.write(json.dumps(fields, ensure_ascii=False) + "\n")
    config = load_config(
        overrides=[
            "curate.max_drop_fraction=1",
            "corpus.shards=2",
            "corpus.id_field=id",
            "corpus.source_field=source",
            *settings,
        ]
    )
    manifest = write_manifest(list_inputs([path]), work)
    steps = {step.id: step for step in create_components(config, manifest)}
    ingest(work, 1, dict(steps["CorpusExampleGen"].exec_properties))
    curator = dict(steps["Curator"].exec_properties)
    curate(os.path.join(work, "examples"), work, 1, curator)
    dropped = {
        record.doc_id.decode(): (record.reason, record.kept_copy.decode())
        for record in read_dropped(os.path.join(work, "dropped"))
    }
    kept = [set(read_texts(os.path.join(work, "curated"), split)) for split in SPLITS]
    ingested = [read_texts(os.path.join(work, "examples"), split) for split in SPLITS]
    held_out = frozenset(ingested[SPLITS.index("eval")])
    return Outcome(dict(ChainMap(*ingested)), set().union(*kept), dropped, held_out)


def read_texts(uri: str, split: str) -> dict[str, str]:
    """Read the texts of a split of an Examples artifact, by id."""
    texts = {}
    for name in list_files(split_directory(uri, split), "*"):
        for batch in read_documents(name):
            columns = batch.to_pydict()
            for doc_id, text in zip(columns["doc_id"], columns["text"], strict=True):
                texts[doc_id.decode()] = text.decode()
    return texts


def noise_found(document: Mapping[str, str], outcome: Outcome) -> bool:
    """Say whether noise was dropped or, mojibake, undone."""
    if document["id"] not in outcome.kept:
        return True
    is_mojibake = kind_of(document["id"]) in MOJIBAKE
    return is_mojibake and outcome.ingested[document["id"]] == document["original"]


def shares(found: Iterable[tuple[str, str, bool]]) -> dict[tuple[str, str], float]:
    """Return the share that is true by (language, kind)."""
    counts: Counter[tuple[str, str]] = Counter()
    true: Counter[tuple[str, str]] = Counter()
    for language, kind, is_true in found:
        counts[language, kind] += 1
        true[language, kind] += is_true
    return {key: true[key] / count for key, count in counts.items()}


def table(title: str, columns: Sequence[str], values: Mapping[tuple[str, str], Any]) -> None:
    """Print a table of a row a language; shares in percent, "-" where there is no value."""
    print(f"\n{title}\n\n| | {' | '.join(columns)} |\n|{' --- |' * (len(columns) + 1)}")
    for language in LANGUAGES:
        cells = [_cell(values.get((language, column), "-")) for column in columns]
        if set(cells) != {"-"}:
            print(f"| {language} | {' | '.join(cells)} |")


def _cell(value: Any) -> str:
    return f"{100 * value:.0f}" if isinstance(value, float) else str(value)


def measure_rules(
    documents: Sequence[Mapping[str, str]], work: str, name: str, settings: Sequence[str] = ()
) -> None:
    """Print what a rule set keeps of clean documents and finds of noise."""
    given = [d for d in documents if kind_of(d["id"]) not in COPIES]
    settings = [f"curate.rules={name}", "curate.decontaminate=off", *NO_COPIES, *settings]
    print_rules(given, run(given, work, settings), name)


def print_rules(given: Sequence[Mapping[str, str]], outcome: Outcome, name: str) -> None:
    """Print the tables of clean documents kept and noise found."""
    values: dict[tuple[str, str], Any] = dict(
        shares(
            (d["id"][:2], kind_of(d["id"]), noise_found(d, outcome))
            for d in given
            if kind_of(d["id"]) != "clean"
        )
    )
    clean = [d["id"] for d in given if kind_of(d["id"]) == "clean"]
    values.update(shares((doc_id[:2], "clean kept", doc_id in outcome.kept) for doc_id in clean))
    for language in sorted({doc_id[:2] for doc_id in clean}):
        mine = [doc_id for doc_id in clean if doc_id.startswith(language)]
        reasons = Counter(outcome.dropped[i][0] for i in mine if i in outcome.dropped)
        values[language, "clean lost by"] = ", ".join(
            f"{reason} {count}" for reason, count in reasons.most_common(4)
        )
    table(f"{name}: % of clean documents kept, % of noise found", ("clean kept", *NOISE), values)
    table(f"{name}: clean documents dropped of 300", ("clean lost by",), values)


def measure_copies(documents: Sequence[Mapping[str, str]], work: str) -> None:
    """Print which planted copies are found, and false ones."""
    given = [d for d in documents if kind_of(d["id"]) not in NOISE]
    outcome = run(given, work, ["curate.rules=none", "curate.decontaminate=off"])
    print_copies(given, outcome)


def print_copies(given: Sequence[Mapping[str, str]], outcome: Outcome) -> None:
    """Print the table of copies."""
    pairs = {d["id"]: d["copy_of"] for d in given if "copy_of" in d}
    partner = {**pairs, **{base: copy for copy, base in pairs.items()}}
    values: dict[tuple[str, str], Any] = dict(
        shares(
            (copy[:2], kind_of(copy), copy in outcome.dropped or base in outcome.dropped)
            for copy, base in pairs.items()
        )
    )
    false = Counter(
        doc_id[:2]
        for doc_id, (_, kept_copy) in outcome.dropped.items()
        if doc_id not in partner or kept_copy not in ("", partner[doc_id])
    )
    values.update({(language, "false"): false[language] for language, _ in tuple(values)})
    table("% of copies found; false copies", (*COPIES, "false"), values)


def measure_languages(documents: Sequence[Mapping[str, str]]) -> None:
    """Print what `curate.languages` drops of other languages and keeps of its own."""
    clean: dict[str, list[str]] = {language: [] for language in LANGUAGES}
    for d in documents:
        if kind_of(d["id"]) == "clean":
            clean[d["id"][:2]].append(normalize(d["text"]))
    values: dict[tuple[str, str], Any] = {}
    for language in LANGUAGES:
        config = CurateConfig(rules="none", languages=(language,))
        others = [
            t for code, texts in clean.items() for t in texts[:OTHER_LANGUAGE] if code != language
        ]
        for column, texts, is_kept in (
            ("found", others, False),
            ("clean kept", clean[language], True),
        ):
            dropped = len(judge_texts(texts, config).dropped)
            values[language, column] = (len(texts) - dropped if is_kept else dropped) / len(texts)
    table("curate.languages: % of other languages found", ("found", "clean kept"), values)


def print_peer(documents: Sequence[Mapping[str, str]], path: str) -> None:
    """Print the tables of what another system found."""
    with open(path, encoding="utf-8") as found:
        peer = json.load(found)
    ingested = {d["id"]: d["text"] for d in documents} | peer["repaired"]
    for name, reasons in peer["filters"].items():
        dropped = {doc_id: (reason, "") for doc_id, reason in reasons.items()}
        given = [d for d in documents if d["id"][:2] in peer["languages"]]
        given = [d for d in given if kind_of(d["id"]) not in COPIES]
        kept = {d["id"] for d in given} - dropped.keys()
        print_rules(given, Outcome(ingested, kept, dropped), name)
    given = [d for d in documents if d["id"][:2] in peer["languages"]]
    given = [d for d in given if kind_of(d["id"]) not in NOISE]
    copies = {doc_id: ("near_duplicate", "") for doc_id in peer["copies"]}
    print_copies(given, Outcome(ingested, {d["id"] for d in given} - copies.keys(), copies))


def main() -> None:
    """Print the tables."""
    work, *names = sys.argv[1:]
    documents = read_planted(work)
    if names[:1] == ["--peer"]:
        print_peer(documents, names[1])
        return
    for name in names or SETS:
        measure_rules(documents, os.path.join(work, "run"), name)
    measure_copies(documents, os.path.join(work, "run"))
    measure_languages(documents)


if __name__ == "__main__":
    main()
