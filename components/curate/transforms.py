"""Curation in Beam, from documents as ingested to the ones worth a token.

    normalize, mask -> lines -> language, rules, score -> exact copies -> near copies -> top shares
    -> decontaminate

Every document ends as kept or as dropped for exactly one reason, and is counted as such; the
text that normalization takes away is counted in bytes.

The elements of this pipeline are files to read, ranges of hashes to compare and shards to write:
the texts are staged on disk (tokenmill/records/staging.py) between the first pass and the last, and
no runner has to hold or to shuffle them.
"""

from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.io.fileio import EmptyMatchTreatment, MatchFiles

from components.curate.benchmarks import GuardBenchmarks
from components.curate.boilerplate import frequent_lines, write_line_hashes
from components.curate.clusters import cluster
from components.curate.config import CurateConfig
from components.curate.counts import (
    COUNTS,
    MASKED,
    QUALITY_THRESHOLDS,
    REMOVED_LINES,
    TALLIES,
    add_outcomes,
)
from components.curate.decontaminate import Decontaminate
from components.curate.deduplicate import (
    exact_copies,
    join_dropped,
    propose,
    verify,
)
from components.curate.distributed_clusters import DistributedClusters
from components.curate.first_pass import first_pass
from components.curate.last_pass import count, write_dropped, write_kept
from components.curate.list_entries import NO_LISTS, ListFiles
from components.curate.quality.top_shares import SelectTopShares
from tokenmill.records.documents import DocumentFile
from tokenmill.records.sorted_hashes import BUCKETS
from tokenmill.records.splits import SPLITS, split_directory


class Curate(beam.PTransform):
    """Examples artifact -> curated examples and dropped documents, both written; counts.

    Outputs (a dict): COUNTS (((split, source, outcome), OutcomeCounts)), MASKED ((kind, how many)),
    REMOVED_LINES ((reason, (lines, bytes))), TALLIES ((key, how many)), QUALITY_THRESHOLDS
    ((source, score)); each key once.

    Args:
        settings: What to do.
        benchmarks: Texts that must not occur in train.
        examples_uri: The documents, by split.
        curated_uri: Where the documents that stay go.
        dropped_uri: Where the dropped ones go.
        staging_directory: Where what lies between the passes goes; all workers must see it. It is
            the caller's to remove.
        shards: Files a split, and of dropped documents; also the ranges of hashes in which
            copies are looked for.
        list_files: The lists of hosts, licenses and words that are in use.
        chat_format: JSON of the `ChatFormat` of conversations; empty where documents are texts.
        quality_uri: The QualityModel to score documents with; empty for none.
        cluster_rounds: Rounds in which many workers find the clusters of near duplicates; 0: one
            worker finds the same.
    """

    def __init__(
        self,
        settings: CurateConfig,
        benchmarks: tuple[str, ...],
        examples_uri: str,
        curated_uri: str,
        dropped_uri: str,
        staging_directory: str,
        shards: int,
        list_files: ListFiles = NO_LISTS,
        chat_format: str = "",
        quality_uri: str = "",
        cluster_rounds: int = 0,
    ):
        super().__init__()
        self._cluster_rounds = cluster_rounds
        self._settings, self._benchmarks = settings, benchmarks
        self._list_files, self._chat_format = list_files, chat_format
        self._quality_uri = quality_uri
        self._examples, self._curated, self._dropped = examples_uri, curated_uri, dropped_uri
        self._staging, self._shards = staging_directory, shards
        self._hash_ranges = min(shards, BUCKETS)

    def expand(self, pipeline: beam.Pipeline) -> dict[str, beam.PCollection]:
        """Judge file by file, then look for copies and overlaps, then write."""
        settings, shards = self._settings, self._shards
        files = [
            pipeline | f"Files[{split}]" >> _Files(split, self._examples) for split in SPLITS
        ] | "AllFiles" >> beam.Flatten()
        judged = (
            files
            | "SpreadFiles" >> beam.Reshuffle()
            | "FirstPass"
            >> beam.FlatMap(
                first_pass,
                settings,
                self._staging,
                shards,
                self._frequent_lines(pipeline, files),
                self._list_files,
                self._chat_format,
                self._quality_uri,
            ).with_outputs(COUNTS, MASKED, REMOVED_LINES, TALLIES, main="parts")
        )
        parts = judged.parts
        all_parts = beam.pvalue.AsSingleton(parts | "Parts" >> beam.combiners.ToList())
        dropped = [pipeline | "NoneDropped" >> beam.Create([[]])]
        if settings.exact_duplicates == "drop":
            dropped.append(
                self._ranges(pipeline, "Contents")
                | "ExactCopies" >> beam.FlatMap(exact_copies, all_parts, self._hash_ranges)
                | "AllExactCopies" >> beam.combiners.ToList()
            )
        if settings.near_duplicates == "drop":
            edges = (
                self._ranges(pipeline, "Bands")
                | "Propose"
                >> beam.FlatMap(propose, all_parts, _together(dropped, "Exact"), self._hash_ranges)
                | "ByLeader" >> beam.GroupByKey()
                | "Verify" >> beam.FlatMap(verify, all_parts, settings)
            )
            dropped.append(self._near_copies(edges, all_parts))
        tallies = [judged[TALLIES]]
        thresholds = pipeline | "NoThreshold" >> beam.Create([])
        if settings.quality.selects_share:
            best = parts | "TopShares" >> SelectTopShares(
                settings.quality, all_parts, _together(dropped, "Unique")
            )
            dropped.append(best["dropped"])
            thresholds = best[QUALITY_THRESHOLDS]
        if self._benchmarks:
            guarded = parts | "Benchmarks" >> GuardBenchmarks(
                settings, self._benchmarks, all_parts, _together(dropped, "Copies")
            )
            dropped.append(guarded["dropped"])
            tallies.append(guarded[TALLIES])
        if settings.decontaminate != "off":
            dropped.append(
                parts
                | "Decontaminate"
                >> Decontaminate(settings, all_parts, _together(dropped, "Guarded"))
            )
        sides = (all_parts, _together(dropped, "All"))
        every_shard = [(split, shard) for split in SPLITS for shard in range(shards)]
        (
            pipeline
            | "KeptShards" >> beam.Create(every_shard)
            | "SpreadKept" >> beam.Reshuffle()
            | "WriteKept" >> beam.Map(write_kept, *sides, self._curated, shards)
        )
        (
            pipeline
            | "DroppedShards" >> beam.Create(range(shards))
            | "SpreadDropped" >> beam.Reshuffle()
            | "WriteDropped" >> beam.Map(write_dropped, *sides, self._dropped, shards)
        )
        passed = parts | "SpreadParts" >> beam.Reshuffle() | "Count" >> beam.FlatMap(count, *sides)
        counts = (
            [judged[COUNTS], passed] | "Counts" >> beam.Flatten() | beam.CombinePerKey(add_outcomes)
        )
        return {
            COUNTS: counts,
            MASKED: judged[MASKED] | "Masked" >> beam.CombinePerKey(sum),
            TALLIES: tallies | "AllTallies" >> beam.Flatten() | beam.CombinePerKey(sum),
            QUALITY_THRESHOLDS: thresholds,
            REMOVED_LINES: judged[REMOVED_LINES] | "Lines" >> beam.CombinePerKey(_add_lines),
        }

    def _near_copies(
        self, edges: beam.PCollection, all_parts: beam.pvalue.AsSideInput
    ) -> beam.PCollection:
        if self._cluster_rounds:
            return edges | "Clusters" >> DistributedClusters(
                all_parts, self._settings, self._hash_ranges, self._cluster_rounds
            )
        return (
            edges
            | "Edges" >> beam.combiners.ToList()
            | "Cluster" >> beam.Map(cluster, all_parts, self._settings)
        )

    def _ranges(self, pipeline: beam.Pipeline, label: str) -> beam.PCollection:
        return (
            pipeline
            | f"{label}Ranges" >> beam.Create(range(self._hash_ranges))
            | f"{label}Spread" >> beam.Reshuffle()
        )

    def _frequent_lines(self, pipeline: beam.Pipeline, files: beam.PCollection) -> Any:
        """Return the side input of the lines to remove; None if none are."""
        documents = self._settings.max_line_documents
        if documents == "off":
            return None
        line_files = (
            files
            | "SpreadLines" >> beam.Reshuffle()
            | beam.FlatMap(write_line_hashes, self._staging)
        )
        return beam.pvalue.AsSingleton(
            self._ranges(pipeline, "Lines")
            | "FrequentLines"
            >> beam.Map(
                frequent_lines,
                beam.pvalue.AsSingleton(line_files | "LineFiles" >> beam.combiners.ToList()),
                self._hash_ranges,
                documents,
            )
            | "AllFrequent" >> beam.CombineGlobally(_union)
        )


class _Files(beam.PTransform):
    """Pipeline -> PCollection of the DocumentFiles of a split, none if there are none."""

    def __init__(self, split: str, uri: str):
        super().__init__()
        self._split, self._pattern = split, f"{split_directory(uri, split)}/*"

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Match the files when the pipeline runs."""
        return (
            pipeline
            | MatchFiles(self._pattern, EmptyMatchTreatment.ALLOW)
            | beam.Map(_as_input, self._split)
        )


def _as_input(metadata: Any, split: str) -> DocumentFile:
    return DocumentFile(split, metadata.path)


def _together(dropped: list[beam.PCollection], label: str) -> beam.pvalue.AsSingleton:
    """Return the lists of DroppedGroup as one side input."""
    flat = tuple(dropped) | f"{label}Lists" >> beam.Flatten()
    return beam.pvalue.AsSingleton(flat | f"{label}Dropped" >> beam.CombineGlobally(join_dropped))


def _add_lines(counts: Iterable[tuple[int, int]]) -> tuple[int, int]:
    lines = size = 0
    for more_lines, more_bytes in counts:
        lines += more_lines
        size += more_bytes
    return lines, size


def _union(arrays: Iterable[np.ndarray]) -> np.ndarray:
    return np.unique(np.concatenate([np.zeros(0, np.uint64), *arrays]))
