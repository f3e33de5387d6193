"""Curator: normalizes, filters and deduplicates documents."""

import json

import apache_beam as beam
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.types import Channel, artifact_utils, component_spec

from components.artifacts import DroppedDocuments, Examples, QualityModel
from components.curate.config import CurateConfig
from components.curate.counts import (
    CONTAMINATED,
    COUNTS,
    MASKED,
    QUALITY_THRESHOLDS,
    REMOVED_LINES,
    TALLIES,
    write_report,
)
from components.curate.distributed_clusters import cluster_rounds
from components.curate.list_entries import ListFiles
from components.curate.losses import (
    KEEP_CONTAMINATED,
    check_losses,
    curation_remarks,
    say_overlaps,
    unknown_sources_remark,
)
from components.curate.transforms import Curate
from tokenmill.contracts.curation import Curation, read_curation, write_curation
from tokenmill.errors import TokenmillError
from tokenmill.files import remove_temporary_files
from tokenmill.records.splits import SPLITS, split_directory
from tokenmill.records.staged_run import staged_run
from tokenmill.timing import timed


class CuratorSpec(component_spec.ComponentSpec):
    """Examples in; curated examples and the dropped documents out."""

    PARAMETERS = {
        "config": component_spec.ExecutionParameter(type=str),
        "benchmarks": component_spec.ExecutionParameter(type=str),
        "lists": component_spec.ExecutionParameter(type=str),
        "shards": component_spec.ExecutionParameter(type=int),
        "chat_format": component_spec.ExecutionParameter(type=str, optional=True),
    }
    INPUTS = {
        "examples": component_spec.ChannelParameter(type=Examples),
        "quality_model": component_spec.ChannelParameter(type=QualityModel, optional=True),
    }
    OUTPUTS = {
        "curated_examples": component_spec.ChannelParameter(type=Examples),
        "dropped": component_spec.ChannelParameter(type=DroppedDocuments),
    }


class CuratorExecutor(base_beam_executor.BaseBeamExecutor):
    """Runs `Curate` over both splits."""

    @timed
    def Do(self, input_dict, output_dict, exec_properties) -> None:
        """Write kept and dropped documents; raise TokenmillError if a split ends empty.

        Also if a rule takes more than config.max_drop_fraction of a language, a source or all.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        curated = artifact_utils.get_single_instance(output_dict["curated_examples"])
        dropped = artifact_utils.get_single_instance(output_dict["dropped"])
        config = CurateConfig.from_json(exec_properties["config"])
        benchmarks = tuple(json.loads(exec_properties["benchmarks"]))
        list_files = ListFiles(**json.loads(exec_properties["lists"]))
        shards = exec_properties["shards"]
        quality = input_dict.get("quality_model")
        quality_uri = artifact_utils.get_single_uri(quality) if quality else ""
        curated.split_names = examples.split_names
        for key in ("payload_format", "file_format"):
            curated.set_string_custom_property(key, examples.get_string_custom_property(key))

        with staged_run(self._get_tmp_dir()) as staging, self._make_beam_pipeline() as pipeline:
            result = pipeline | Curate(
                config,
                benchmarks,
                examples.uri,
                curated.uri,
                dropped.uri,
                staging,
                shards,
                list_files,
                exec_properties.get("chat_format") or "",
                quality_uri,
                cluster_rounds(examples.get_int_custom_property("documents"), pipeline.options),
            )
            lists = [
                beam.pvalue.AsSingleton(result[name] | f"List[{name}]" >> beam.combiners.ToList())
                for name in (MASKED, REMOVED_LINES, TALLIES, QUALITY_THRESHOLDS)
            ]
            (
                result[COUNTS]
                | "CountsToList" >> beam.combiners.ToList()
                | "WriteReport" >> beam.Map(write_report, *lists, dropped.uri)
            )

        for split in SPLITS:  # TFX's readers take every file there for data
            remove_temporary_files(split_directory(curated.uri, split))
        curation = read_curation(dropped.uri)
        check_losses(curation, config, dropped.uri)
        _check(curation, dropped.uri)
        remarks = curation_remarks(curation, config.max_drop_fraction)
        remarks += unknown_sources_remark(curation, config.quality.source_top_shares)
        write_curation(dropped.uri, curation.model_copy(update={"remarks": remarks}))
        total = curation.total
        for name in ("documents", "bytes"):
            curated.set_int_custom_property(name, getattr(total.kept, name))
            lost = sum(getattr(amount, name) for amount in total.dropped.values())
            dropped.set_int_custom_property(name, lost)


def _check(curation: Curation, dropped_uri: str) -> None:
    for split in SPLITS:
        sources = curation.splits[split].by_source.values()
        if not sum(source.kept.documents for source in sources):
            lost = curation.dropped_by_reason(split=split)
            dropped = ", ".join(
                f"{lost[reason].documents:,} {reason}"
                for reason in sorted(lost, key=lambda name: -lost[name].documents)
            )
            raise TokenmillError(
                f"curation left no document in the {split} split (dropped: {dropped or 'none'})"
                f"{say_overlaps(dropped_uri, split)}.",
                (KEEP_CONTAMINATED[split] if CONTAMINATED in lost else "")
                + "Loosen the rules of the [curate] section or give more text.",
            )


class Curator(base_beam_component.BaseBeamComponent):
    """Keeps what is worth a token.

    Outputs:
        curated_examples: `Examples` with the features of the input, normalized text.
        dropped: `DroppedDocuments`, one record a document with reason, value and threshold.

    Args:
        examples: Channel of `Examples`.
        config: Rules and thresholds.
        benchmarks: The texts of config.benchmark_files and config.benchmark_tasks, which must not
            occur in train.
        lists: The files of config.lists, as pinned.
        shards: Files per split.
        chat_format: JSON of the `ChatFormat` by which conversations are written; empty where
            documents are texts.
        quality_model: Channel of the `QualityModel` that documents are scored with; None for none.
    """

    SPEC_CLASS = CuratorSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(CuratorExecutor)

    def __init__(
        self,
        examples: Channel,
        config: CurateConfig,
        benchmarks: tuple[str, ...],
        lists: ListFiles,
        shards: int,
        chat_format: str = "",
        quality_model: Channel | None = None,
    ):
        spec = CuratorSpec(
            examples=examples,
            # Of benchmark files and lists their content counts, not where they are.
            config=config.to_json(exclude={"benchmark_files", "benchmark_tasks", *config.lists}),
            benchmarks=json.dumps(benchmarks),
            lists=json.dumps(lists._asdict(), sort_keys=True),
            shards=shards,
            chat_format=chat_format or None,
            quality_model=quality_model,
            curated_examples=Channel(type=Examples),
            dropped=Channel(type=DroppedDocuments),
        )
        super().__init__(spec=spec)
