"""Runs Curate on documents in memory and hands back all that it gave."""

import dataclasses
import itertools
import pathlib
import pickle
from typing import NamedTuple

import apache_beam as beam
import hypothesis
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from components.curate.config import CurateConfig
from components.curate.counts import COUNTS, MASKED, REMOVED_LINES, TALLIES, summarize
from components.curate.list_entries import NO_LISTS
from components.curate.transforms import Curate
from tokenmill.beam_arguments import beam_arguments
from tokenmill.contracts.curation import read_dropped
from tokenmill.records.documents import document_batch, encode_documents, read_documents
from tokenmill.records.splits import SPLITS, split_directory
from tokenmill.records.tfrecord import write_tfrecords

# The first example pays for the table of character classes, and machines are shared.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")


class Asked(NamedTuple):
    """What Curate is told beside where files are."""

    config: CurateConfig
    benchmarks: tuple[str, ...]
    partitions: int


def make_settings(thresholds=None, benchmarks=(), partitions=2, **changed) -> Asked:
    """Exact copies only, unless told otherwise."""
    values = {"rules": "none", "near_duplicates": "keep", "decontaminate": "off"}
    config = CurateConfig(**{**values, **(thresholds or {}), **changed})
    return Asked(config, tuple(benchmarks), partitions)


@dataclasses.dataclass
class Curated:
    """What Curate gave, in an order of its own.

    `kept` is (split, doc_id, source, text, byte_count) of each.
    """

    kept: list
    dropped: list
    counts: list
    masked: dict
    removed_lines: dict
    tallies: dict

    @property
    def report(self):
        return self.curation.to_json()

    @property
    def curation(self):
        return summarize(
            self.counts, self.masked.items(), self.removed_lines.items(), self.tallies.items()
        )

    def ids(self, split):
        return [doc_id for s, doc_id, *_ in self.kept if s == split]

    def reasons(self):
        return {r.doc_id: r.reason for r in self.dropped}


def _write_examples(uri, documents, size):
    """Files of `size` documents each, in the order given."""
    for split in SPLITS:
        mine = [d[1:] for d in documents if d[0] == split]
        for i in range(0, len(mine), size):
            batch = document_batch(*zip(*mine[i : i + size], strict=True))
            path = f"{split_directory(uri, split)}/{i:05d}.gz"
            write_tfrecords(path, [record for _, record in encode_documents(batch)], gzip=True)


def _kept(uri):
    for split in SPLITS:
        for path in sorted(pathlib.Path(split_directory(uri, split)).glob("documents-*")):
            for batch in read_documents(str(path)):
                names = (n for n in batch.schema.names if n not in ("messages", "quality_score"))
                columns = (batch.column(name).to_pylist() for name in names)
                yield from ((split, *row) for row in zip(*columns, strict=True))


@pytest.fixture
def curate(tmp_path):
    """(documents as (split, id, source, text), settings, file size, workers) -> Curated."""
    runs = itertools.count()

    def run(documents, settings, size=50, workers=1, list_files=NO_LISTS, cluster_rounds=0):
        home = tmp_path / f"run-{next(runs)}"
        home.mkdir()
        uris = {name: str(home / name) for name in ("examples", "curated", "dropped", "staging")}
        _write_examples(uris["examples"], documents, size)
        options = PipelineOptions(beam_arguments([f"--direct_num_workers={workers}"]))
        with beam.Pipeline(options=options) as pipeline:
            for name, output in (
                pipeline
                | Curate(
                    settings.config,
                    settings.benchmarks,
                    *uris.values(),
                    settings.partitions,
                    list_files,
                    cluster_rounds=cluster_rounds,
                )
            ).items():
                path = str(home / f"{name}.pickle")
                (
                    output
                    | f"{name} list" >> beam.combiners.ToList()
                    | f"{name} dump" >> beam.Map(_dump, path)
                )
        found = {
            name: pickle.loads((home / f"{name}.pickle").read_bytes())
            for name in (COUNTS, MASKED, REMOVED_LINES, TALLIES)
        }
        return Curated(
            kept=sorted(_kept(uris["curated"])),
            dropped=sorted(read_dropped(uris["dropped"])),
            counts=sorted(found[COUNTS]),
            masked=dict(found[MASKED]),
            removed_lines=dict(found[REMOVED_LINES]),
            tallies=dict(found[TALLIES]),
        )

    run.settings = make_settings
    return run


def _dump(values, path):
    pathlib.Path(path).write_bytes(pickle.dumps(values))
