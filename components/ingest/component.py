"""CorpusExampleGen: a TFX ExampleGen for text files."""

import functools
import heapq
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
_SHOWN = 10  # of the bad records, in a message


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
        _check(counted, config, quarantine.uri)


def _check(counts: IngestCounts, config: CorpusConfig, quarantine_uri: str) -> None:
    """Check that not too much was lost, and that both splits hold something.

    Four shares, since each hides what another shows: an archive that is lost is one record, an
    empty one has no bytes, and a text that is too large is one of many files.

    Raises:
        TokenmillError: Too much was lost, or a split is empty.
    """
    read, bad, files = counts.read, counts.quarantined, counts.files
    limit = config.max_quarantine_fraction
    size = read.bytes + bad.bytes
    shares = (
        (bad.documents, read.documents + bad.documents, "{:,} of {:,} records"),
        (bad.bytes, size, f"{{:,}} of {{:,}} bytes ({bad.bytes / max(1, size):.1%})"),
        (files.unreadable, files.files, "{:,} of {:,} files (or not to their end)"),
        (files.unreadable_bytes, files.bytes, "{:,} of {:,} bytes of the files"),
    )
    beyond = [text.format(part, all_) for part, all_, text in shares if part > limit * all_]
    if beyond:
        reasons = ", ".join(f"{amount.documents} {reason}" for reason, amount in
                            bad.by_reason.items())  # fmt: skip
        # TFX removes the outputs of a failed step: what is to be known is said now.
        whole_files_first = heapq.nsmallest(
            _SHOWN, read_quarantine(quarantine_uri), key=lambda record: record.record > 0
        )
        examples = "\n".join(f"  {record}" for record in whole_files_first)
        hint = "Repair the input"
        if "not_utf8" in bad.by_reason and config.encoding is None:
            hint += ", name its encoding by --set corpus.encoding=shift_jis (or another)"
        raise TokenmillError(
            f"{' and '.join(beyond)} could not be read ({reasons}): more than "
            f"corpus.max_quarantine_fraction = {limit}. "
            f"The first:\n{examples}",
            f"{hint}, or raise the limit with --set corpus.max_quarantine_fraction=...",
        )
    if not read.documents:
        raise TokenmillError(
            f"the corpus is empty: {files.files} file(s), no document with text in it.",
            "Give files with text by --input.",
        )
    for split in SPLITS:
        if not counts.splits[split].documents:
            hint = "Give more documents or change corpus.eval_fraction."
            if config.text_unit == "file":
                hint += (
                    " A text file is one document; --set corpus.text_unit=paragraph makes one of "
                    "each paragraph."
                )
            raise TokenmillError(
                f"no document fell into the {split} split ({read.documents} in all).", hint
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
