"""CorpusExampleGen: a TFX ExampleGen for text files."""

import functools
import importlib.metadata

import apache_beam as beam
from tfx.components.example_gen import base_example_gen_executor, component, utils
from tfx.dsl.components.base import executor_spec
from tfx.proto import example_gen_pb2
from tfx.types import Channel, artifact_utils, component_spec, standard_component_specs

from components.artifacts import Examples, Quarantine
from components.ingest.config import CorpusConfig
from components.ingest.counts import add_counts, count_bad, count_repaired, write_counts
from components.ingest.manifest import MANIFEST_PATTERN, read_manifest
from components.ingest.transforms import BAD_RECORDS, COUNTS, REPAIRED, Ingest
from tokenmill.contracts.ingest import (
    IngestCounts,
    read_ingest_counts,
    read_quarantine,
    write_quarantine,
)
from tokenmill.errors import TokenmillError
from tokenmill.files import remove_temporary_files
from tokenmill.records.splits import SPLITS, split_directory
from tokenmill.records.staged_run import staged_run
from tokenmill.timing import timed

QUARANTINE_KEY = "quarantine"
CONFIG_KEY = "config"


class CorpusExampleGenSpec(standard_component_specs.FileBasedExampleGenSpec):
    """FileBasedExampleGen with a quarantine output and the section [corpus]."""

    PARAMETERS = {
        **standard_component_specs.FileBasedExampleGenSpec.PARAMETERS,
        CONFIG_KEY: component_spec.ExecutionParameter(type=str),
        "release": component_spec.ExecutionParameter(type=str),
    }
    OUTPUTS = {
        **standard_component_specs.FileBasedExampleGenSpec.OUTPUTS,
        QUARANTINE_KEY: component_spec.ChannelParameter(type=Quarantine),
    }


class CorpusExampleGenExecutor(base_example_gen_executor.BaseExampleGenExecutor):
    """Reads the files of a manifest into sorted shards by split."""

    def GetInputSourceToExamplePTransform(self):
        """Unused: documents go to the splits in batches, see `Do`."""
        raise NotImplementedError

    @timed
    def Do(self, input_dict, output_dict, exec_properties) -> None:
        """Read, split and write; raise TokenmillError if too much had to be quarantined.

        TFX's own `Do` shuffles by random keys before it writes, and the files would differ from
        run to run.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        config = CorpusConfig.from_json(exec_properties[CONFIG_KEY])
        files, span = read_manifest(exec_properties[standard_component_specs.INPUT_BASE_KEY])
        examples = artifact_utils.get_single_instance(output_dict["examples"])
        quarantine = artifact_utils.get_single_instance(output_dict[QUARANTINE_KEY])
        examples.split_names = artifact_utils.encode_split_names(list(SPLITS))
        # The driver has set the custom property of that name, which TFX's resolvers look at; the
        # steps that follow take over this one.
        examples.span = span
        formats = {"payload_format": "FORMAT_TF_EXAMPLE", "file_format": "tfrecords_gzip"}
        for key, value in formats.items():
            examples.set_string_custom_property(key, value)

        with staged_run(self._get_tmp_dir()) as staging, self._make_beam_pipeline() as pipeline:
            read = pipeline | Ingest(files, config, examples.uri, staging, config.shards)
            counts = (
                read[COUNTS],
                read[BAD_RECORDS] | "CountBad" >> beam.Map(count_bad),
                read[REPAIRED] | "CountRepaired" >> beam.MapTuple(count_repaired),
            )
            (
                counts
                | beam.Flatten()
                | beam.CombinePerKey(add_counts)
                | "Counts" >> beam.combiners.ToList()
                | "WriteCounts" >> beam.Map(write_counts, quarantine.uri)
            )
            (
                read[BAD_RECORDS]
                | "BadToList" >> beam.combiners.ToList()
                | "WriteBad" >> beam.Map(functools.partial(write_quarantine, quarantine.uri))
            )
        for split in SPLITS:  # TFX's readers take every file there for data
            remove_temporary_files(split_directory(examples.uri, split))
        counted = read_ingest_counts(quarantine.uri)
        for name in ("documents", "bytes"):
            examples.set_int_custom_property(name, getattr(counted.read, name))
        quarantine.set_int_custom_property("records", counted.quarantined.documents)
        _check(counted, len(files), config.max_quarantine_fraction, quarantine.uri)


def _check(counts: IngestCounts, files: int, max_fraction: float, quarantine_uri: str) -> None:
    read, bad = counts.read.documents, counts.quarantined.documents
    reasons = ", ".join(
        f"{amount.documents} {reason}" for reason, amount in counts.quarantined.by_reason.items()
    )
    if bad and bad > max_fraction * (read + bad):
        first = next(read_quarantine(quarantine_uri))  # TFX removes the outputs of a failed step
        raise TokenmillError(
            f"{bad:,} of {read + bad:,} records could not be read ({reasons}): more than "
            f"corpus.max_quarantine_fraction = {max_fraction}. The first: {first}.",
            "Repair the input, or raise the limit with --set corpus.max_quarantine_fraction=...",
        )
    if not read:
        raise TokenmillError(
            f"the corpus is empty: {files} file(s), no document with text in it.",
            "Give files with text by --input.",
        )
    for split in SPLITS:
        if not counts.splits[split].documents:
            raise TokenmillError(
                f"no document fell into the {split} split ({read} in all).",
                "Give more documents or change corpus.eval_fraction.",
            )


class CorpusExampleGen(component.FileBasedExampleGen):
    """Ingests text files as documents.

    Outputs:
        examples: `Examples`, splits train and eval; features text, source, doc_id, byte_count.
        quarantine: `Quarantine`, the records that could not be read, and the counts.

    Args:
        manifest_directory: Holds the manifest of the files to read (components/ingest/manifest.py).
        config: How records become documents.
    """

    SPEC_CLASS = CorpusExampleGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(CorpusExampleGenExecutor)

    def __init__(self, manifest_directory: str, config: CorpusConfig):
        input_config = example_gen_pb2.Input(
            splits=[example_gen_pb2.Input.Split(name="all", pattern=MANIFEST_PATTERN)]
        )
        spec = CorpusExampleGenSpec(
            input_base=manifest_directory,
            input_config=input_config,
            output_config=utils.make_default_output_config(input_config),
            output_data_format=example_gen_pb2.FORMAT_TF_EXAMPLE,
            output_file_format=example_gen_pb2.FORMAT_TFRECORDS_GZIP,
            # Which files are read is the manifest's to say: the same files are the same input.
            config=config.to_json(exclude={"input", "span"}),
            # TFX's cache knows nothing of code: a new release ingests anew, and so all runs anew.
            release=importlib.metadata.version("tokenmill"),
            examples=Channel(type=Examples),
            quarantine=Channel(type=Quarantine),
        )
        super(component.FileBasedExampleGen, self).__init__(spec=spec)
