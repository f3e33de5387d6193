"""The text of a study: the pipeline's own steps up to the packed rows."""

import functools
import os
from dataclasses import dataclass

from pipeline.config import Config
from pipeline.report.console import RunConsole
from pipeline.runners.inputs import prepare_inputs
from tokenmill.contracts.curation import read_curation
from tokenmill.contracts.packed_rows import PackedManifest, read_packed_manifest
from tokenmill.contracts.tokenizer import TOKENIZER_MODEL_NAME
from tokenmill.cost.pricing import SECONDS_PER_HOUR
from tokenmill.metadata.step_records import StepRecord
from tokenmill.timing import STEP_SECONDS, STEP_VCPUS


@dataclass(frozen=True)
class StudyCorpus:
    """Packed rows, and what it took to make them.

    Attributes:
        config: The configuration that they were made with.
        rows_uri: The PackedRows artifact.
        tokenizer_path: The tokenizer's file.
        examples_uri: The documents as they were read.
        curated_uri: The curated documents.
        dropped_uri: The dropped ones, with curation.json.
        rows_by_source: Rows of the train split by source; empty where sources share rows.
        seconds: Wall time of the steps, also where their outputs are an earlier run's.
        core_seconds: The same times the cores of each step, by its name.
        usd_per_core_hour: What a core costs.
    """

    config: Config
    rows_uri: str
    tokenizer_path: str
    examples_uri: str
    curated_uri: str
    dropped_uri: str
    rows_by_source: dict[str, int]
    seconds: float
    core_seconds: dict[str, float]
    usd_per_core_hour: float

    @property
    def usd(self) -> float:
        """Price of the steps' core seconds."""
        return sum(self.core_seconds.values()) / SECONDS_PER_HOUR * self.usd_per_core_hour

    @functools.cached_property
    def train(self) -> PackedManifest:
        """Manifest of the rows that are trained on."""
        return read_packed_manifest(self.rows_uri, "train")

    @property
    def unique_tokens(self) -> int:
        """Loss tokens of one pass over the rows."""
        return self.train.loss_tokens

    @property
    def natural_weights(self) -> dict[str, float]:
        """Weights by which each source is read as often as it has rows; pack.source_weights."""
        if self.config.pack.source_weights:
            return dict(self.config.pack.source_weights)
        return {source: float(rows) for source, rows in self.rows_by_source.items()}


def prepare_corpus(config: Config, screen: RunConsole, *, by_source: bool = True) -> StudyCorpus:
    """Run the pipeline up to the packed rows; what has not changed is taken from the cache.

    Args:
        config: The resolved configuration; its output directory is the studies'.
        screen: Where the steps are shown.
        by_source: Whether each row holds documents of one source, so that sources can be weighed
            without packing anew.

    Raises:
        TokenmillError: A step failed.
    """
    manifest = prepare_inputs(config, screen)
    if by_source and not config.pack.source_weights:
        steps = _run(config, manifest, screen, "Curator")
        curation = read_curation(steps["Curator"].one("dropped").uri)
        sources = sorted(
            {source for split in curation.splits.values() for source in split.by_source}
        )
        # Rows are made by source if there are weights; which ones is said again for each training.
        pack = config.pack.model_copy(update={"source_weights": dict.fromkeys(sources, 1.0)})
        weighted = config.model_copy(update={"pack": pack})
        screen.skips_cached = True  # shown just now
        try:
            steps = _run(weighted, manifest, screen, "Packer")
        finally:
            screen.skips_cached = False
    else:
        steps = _run(config, manifest, screen, "Packer")
    rows_uri = steps["Packer"].one("packed_rows").uri
    rows_by_source: dict[str, int] = {}
    for shard in read_packed_manifest(rows_uri, "train").shards:
        for source, rows in shard.rows_by_source:
            rows_by_source[source] = rows_by_source.get(source, 0) + rows
    seconds, core_seconds = _time_of(steps)
    return StudyCorpus(
        config=config,
        rows_uri=rows_uri,
        tokenizer_path=os.path.join(
            steps["TokenizerTrainer"].one("tokenizer").uri, TOKENIZER_MODEL_NAME
        ),
        examples_uri=steps["CorpusExampleGen"].one("examples").uri,
        curated_uri=steps["Curator"].one("curated_examples").uri,
        dropped_uri=steps["Curator"].one("dropped").uri,
        rows_by_source=dict(sorted(rows_by_source.items())),
        seconds=seconds,
        core_seconds=core_seconds,
        usd_per_core_hour=config.ledger_job().vcpu_price_usd_per_hour,
    )


def _run(
    config: Config, manifest_directory: str, screen: RunConsole, until: str
) -> dict[str, StepRecord]:
    """Run the steps up to one; return their records by name."""
    from pipeline.runners.local import RunOutcome, StepFailedError, run_local

    outcome = RunOutcome()
    try:
        run_local(config, manifest_directory, screen, outcome, until=until)
    except StepFailedError as error:
        raise error.__cause__ or error from None
    return outcome.steps


def _time_of(steps: dict[str, StepRecord]) -> tuple[float, dict[str, float]]:
    """Add up the wall seconds of the steps, and return those of each times its cores."""
    seconds = 0.0
    core_seconds: dict[str, float] = {}
    for name, record in steps.items():
        for artifacts in record.outputs.values():
            properties = artifacts[0].custom_properties if artifacts else {}
            if STEP_SECONDS in properties:
                of_step = properties[STEP_SECONDS].double_value
                seconds += of_step
                core_seconds[name] = of_step * max(1, properties[STEP_VCPUS].int_value)
                break
    return seconds, core_seconds
