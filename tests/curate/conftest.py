"""Runs Curate on documents in memory and hands back all that it gave."""

import dataclasses
import pathlib
import pickle

import apache_beam as beam
import hypothesis
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from components.curate.account import summarise
from components.curate.near_duplicates import NearDuplicateSettings
from components.curate.transforms import COUNTS, MASKED, REJECTED, Curate, CurateSettings
from components.documents import SPLITS, document_batch

# The first example pays for the table of character classes, and machines are shared.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

OUTPUTS = (*SPLITS, REJECTED, COUNTS, MASKED)
NEAR = NearDuplicateSettings(min_jaccard=0.8, ngram_words=5, bands=14, rows=8)


def make_settings(**changed) -> CurateSettings:
    """Exact copies only, unless told otherwise."""
    values = {
        "thresholds": {},
        "languages": (),
        "min_language_score": 0.65,
        "mask": (),
        "exact_duplicates": "drop",
        "near_duplicates": None,
        "decontaminate": "off",
        "decontaminate_ngram_words": 13,
        "benchmarks": (),
        "partitions": 2,
    }
    return CurateSettings(**{**values, **changed})


@dataclasses.dataclass
class Curated:
    """What Curate gave, in an order of its own.

    `kept` is (split, doc_id, source, text, byte_count) of each.
    """

    kept: list
    rejected: list
    counts: list
    masked: dict

    @property
    def report(self):
        return summarise(self.counts, self.masked.items())

    def ids(self, split):
        return [doc_id for s, doc_id, *_ in self.kept if s == split]

    def reasons(self):
        return {r.doc_id: r.reason for r in self.rejected}


def _batches(documents, split, size):
    mine = [d[1:] for d in documents if d[0] == split]
    for i in range(0, len(mine), size):
        yield document_batch(*zip(*mine[i : i + size], strict=True))


def _rows(split, batches):
    for batch in batches:
        columns = (column.to_pylist() for column in batch.columns)
        yield from ((split, *row) for row in zip(*columns, strict=True))


@pytest.fixture
def curate(tmp_path):
    """(documents as (split, id, source, text), settings, batch size, workers) -> Curated."""

    def run(documents, settings, size=50, workers=1):
        options = PipelineOptions(
            ["--direct_running_mode=in_memory", f"--direct_num_workers={workers}"]
        )
        with beam.Pipeline(options=options) as pipeline:
            inputs = {
                split: pipeline | split >> beam.Create(list(_batches(documents, split, size)))
                for split in SPLITS
            }
            for name, output in (inputs | Curate(settings)).items():
                path = str(tmp_path / name)
                (
                    output
                    | f"{name} list" >> beam.combiners.ToList()
                    | f"{name} dump" >> beam.Map(_dump, path)
                )
        found = {name: pickle.loads((tmp_path / name).read_bytes()) for name in OUTPUTS}
        return Curated(
            kept=sorted(row for split in SPLITS for row in _rows(split, found[split])),
            rejected=sorted(r for group in found[REJECTED] for r in group),
            counts=sorted(found[COUNTS]),
            masked=dict(found[MASKED]),
        )

    run.settings = make_settings
    run.near = NEAR
    return run


def _dump(values, path):
    pathlib.Path(path).write_bytes(pickle.dumps(values))
