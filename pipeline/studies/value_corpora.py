"""What the trainings of `tokenmill value` read: the rows of each variant, and held-out texts.

Held-out texts are what the configuration keeps of its eval split, so that all variants are asked
the same: how well do they serve what is wanted. No variant may have read them: each curates with
these texts as benchmarks, which drops what shares a run of words with one.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.config import Config
from pipeline.report.console import RunConsole
from pipeline.studies.corpus import StudyCorpus, prepare_corpus
from pipeline.studies.held_out import (
    HELD_OUT_BYTES,
    HeldOutSet,
    held_out_of_files,
    held_out_of_split,
)
from pipeline.studies.variants import BASE, Variant
from tokenmill.contracts.packed_rows import SourceCounts
from tokenmill.errors import TokenmillError
from tokenmill.files import write_bytes
from tokenmill.number_format import count
from tokenmill.visible import visible

_READ_AS_LINES = ("auto", "jsonl")


@dataclass(frozen=True)
class VariantCorpus:
    """The rows that a variant trains on.

    Attributes:
        variant: What it is.
        corpus: Rows, tokenizer and cost; those of the base where only the mixture differs.
        source_weights: Share of the rows of each source.
    """

    variant: Variant
    corpus: StudyCorpus
    source_weights: dict[str, float]

    @property
    def counts(self) -> dict[str, SourceCounts]:
        """Counts of the sources that it reads."""
        by_source = self.corpus.train.by_source
        return {
            source: by_source[source]
            for source, weight in self.source_weights.items()
            if weight > 0 and source in by_source
        }

    @property
    def rows(self) -> int:
        """Rows that it reads in a pass."""
        rows = self.corpus.rows_by_source
        return sum(rows[source] for source, weight in self.source_weights.items() if weight > 0)

    @property
    def preparation_share(self) -> float:
        """Share of the corpus' preparation that is its own, by bytes."""
        all_bytes = sum(counts.bytes for counts in self.corpus.train.by_source.values())
        own = sum(counts.bytes for counts in self.counts.values())
        return own / all_bytes if all_bytes else 0.0


@dataclass(frozen=True)
class HeldOutTexts:
    """All held-out sets.

    Attributes:
        deciding: Those that verdicts go by: of the base's eval split, and what the user named.
        others: Of the eval splits of variants that read other files; shown, and no more.
        origins: Where each set comes from, by its name.
    """

    deciding: tuple[HeldOutSet, ...]
    others: tuple[HeldOutSet, ...]
    origins: dict[str, str]

    @property
    def sets(self) -> tuple[HeldOutSet, ...]:
        """All sets."""
        return (*self.deciding, *self.others)


def prepare_variants(
    config: Config, variants: Sequence[Variant], held_out_paths: Sequence[str], screen: RunConsole
) -> tuple[list[VariantCorpus], HeldOutTexts]:
    """Prepare the rows of all variants, and the held-out texts that none of them holds.

    Args:
        config: The base; its output directory is the studies'.
        variants: What is compared.
        held_out_paths: Files of further held-out texts (--held-out).
        screen: Shows the steps of the base, and a line for each other variant.

    Raises:
        TokenmillError: A step failed, there is no held-out text, or a source is not there.
    """
    named = held_out_of_files(held_out_paths, config.corpus.of_texts)
    base = prepare_corpus(config, screen)
    deciding = held_out_of_split(base.curated_uri, HELD_OUT_BYTES)
    origins = {each.name: "eval split" for each in deciding}
    origins |= {each.name: "--held-out" for each in named}
    deciding = _without_copies([*deciding, *named])
    readers = [variant for variant in variants if variant.has_own_input]
    others: list[HeldOutSet] = []
    if readers:
        with _OneLine(screen, "held-out text") as line:
            for variant in readers:
                own = line.prepare(variant.name, variant.config)
                found = held_out_of_split(own.curated_uri, HELD_OUT_BYTES, name=f"{variant.name}/")
                origins |= {each.name: f"eval split of {variant.name}" for each in found}
                others += found
    others = _without_copies([*deciding, *others])[len(deciding) :]
    texts = HeldOutTexts(
        tuple(each for each in deciding if each.texts),
        tuple(each for each in others if each.texts),
        origins,
    )
    guard = _write_guard(config, texts)
    # The guard knows no boilerplate, as decontamination does: all lose by it, or none.
    guards = bool(named or others) or config.curate.decontaminate != "held-out"
    prepared = []
    with _OneLine(screen, "variants") as line:
        if guards or not all(variant.shares_rows for variant in variants):
            base = line.prepare(BASE, _guarded(config, guard, base))
        for variant in variants:
            corpus = base
            if not variant.shares_rows:
                tokenizer_of = None if variant.has_own_tokenizer else base
                changed = _guarded(variant.config, guard, tokenizer_of)
                corpus = line.prepare(variant.name, changed)
            weights = variant.source_weights(corpus.rows_by_source)
            prepared.append(VariantCorpus(variant, corpus, weights))
    return prepared, texts


class _OneLine:
    """Show the steps of several corpora as one line.

    What a step has to say of a variant is in the log: what is compared is a variant as it is.
    """

    def __init__(self, screen: RunConsole, name: str):
        self._screen, self._name = screen, name
        self._quiet: dict[str, RunConsole] = {}

    def __enter__(self) -> _OneLine:
        self._screen.step_started(self._name)
        return self

    def prepare(self, name: str, config: Config) -> StudyCorpus:
        """Prepare a corpus, of which no step is shown; an error says whose it is."""
        self._quiet[name] = RunConsole(io.StringIO(), errors=io.StringIO())
        try:
            return prepare_corpus(config, self._quiet[name])
        except TokenmillError as error:
            error.message = f"variant {visible(name)}: {error.message}"
            raise

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return
        self._screen.stop()
        if not self._quiet:
            return
        steps = [step for screen in self._quiet.values() for step in screen.steps]
        rows = [
            f"{visible(name)}: {step.summary.partition(', ')[0]}"
            for name, screen in self._quiet.items()
            for step in screen.steps
            if step.name == "Packer"
        ]
        self._screen.step_finished(self._name, rows, all(step.cached for step in steps))


def _without_copies(sets: Sequence[HeldOutSet]) -> list[HeldOutSet]:
    """Leave out texts that an earlier set has."""
    seen: set[bytes] = set()
    kept = []
    for each in sets:
        texts = []
        for text in each.texts:
            digest = hashlib.sha256(text).digest()
            if digest not in seen:
                seen.add(digest)
                texts.append(text)
        kept.append(HeldOutSet(each.name, tuple(texts)))
    return kept


def _write_guard(config: Config, texts: HeldOutTexts) -> str:
    """Write all held-out texts into a file that curate.benchmark_files can name."""
    if config.corpus.format not in _READ_AS_LINES:
        raise TokenmillError(
            f'corpus.format = "{config.corpus.format}": held-out texts are kept out of train as '
            'JSON lines, which are read with corpus.format = "auto".',
            "Leave corpus.format out, and name files by their format.",
        )
    lines = []
    for each in texts.sets:
        for text in each.texts:
            value: object = text.decode()
            for name in reversed(config.corpus.text_field.split(".")):
                value = {name: value}
            lines.append(json.dumps(value, ensure_ascii=False))
    content = ("\n".join(lines) + "\n").encode()
    name = f"{hashlib.sha256(content).hexdigest()[:16]}.jsonl"
    path = os.path.join(os.path.abspath(config.output_dir), "held_out", name)
    if not os.path.exists(path):
        write_bytes(path, content)
    return path


def _guarded(config: Config, guard: str, tokenizer_of: StudyCorpus | None) -> Config:
    """Return a configuration that keeps held-out texts out of train.

    Args:
        config: The variant's.
        guard: File of the texts.
        tokenizer_of: Whose tokenizer is taken; None for one of its own.
    """
    files = (*config.curate.benchmark_files, guard)
    update: dict[str, object] = {
        # A variant of bad text is what it is: how much of it is dropped is no reason to stop.
        "curate": config.curate.model_copy(
            update={"benchmark_files": files, "max_drop_fraction": 1.0}
        )
    }
    if tokenizer_of is not None and config.tokenizer.path is None:
        update["tokenizer"] = config.tokenizer.model_copy(
            update={
                "path": tokenizer_of.tokenizer_path,
                "source_weights": {},
                "user_symbols": (),
            }
        )
    return config.model_copy(update=update)


def describe_rows(corpus: VariantCorpus) -> str:
    """Say how much text a variant has."""
    tokens = sum(counts.loss_tokens for counts in corpus.counts.values())
    return f"{count(corpus.rows)} rows, {count(tokens)} loss tokens"
