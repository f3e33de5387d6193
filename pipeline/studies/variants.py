"""Variants of a configuration, as the command line of `tokenmill value` names them.

`base` is the configuration as it is. Others are changes of its keys, a TOML file with changes, a
path of other text, or the same rows with or without a source.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import tomli
import tomli_w

from components.ingest.manifest import list_inputs
from pipeline.config import Config
from pipeline.loader import ConfigError, build_config, dump_config, read_values
from tokenmill.errors import TokenmillError
from tokenmill.visible import visible

BASE = "base"

# Keys that choose among rows and leave the rows as they are.
_OF_MIXTURE = ("pack.source_weights", "pack.max_repetitions")
_NAMED = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9_. -]*):(?!//)(?P<what>.+)", re.DOTALL)
_CHANGE = re.compile(r"[a-z_]+(?:\.[A-Za-z0-9_-]+)+\s*=")
# A comma before the next key parts changes; one within a list or a text does not.
_NEXT_CHANGE = re.compile(rf",\s*(?={_CHANGE.pattern})")
_OF_SOURCE = ("without", "only")
# Sections that a variant may change: what is trained on. The model is the same in all of them.
_SECTIONS = ("corpus", "validate", "curate", "tokenizer", "pack")
_FORMS = (
    "base, key=value[,key=value], a TOML file, a path of text, without:SOURCE or only:SOURCE, "
    "each with NAME: before it if it is to have a name"
)


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to prepare the text.

    Attributes:
        name: What tables call it.
        config: The whole configuration.
        changes: What differs from the base, as for --set.
        without: A source that is left out of the base's rows; None for none.
        only: The one source of the base's rows that is read; None for all.
    """

    name: str
    config: Config
    changes: tuple[str, ...] = ()
    without: str | None = None
    only: str | None = None

    @property
    def shares_rows(self) -> bool:
        """Whether its rows are the base's, and only how often each is read differs."""
        return all(change.partition("=")[0].strip() in _OF_MIXTURE for change in self.changes)

    @property
    def has_own_tokenizer(self) -> bool:
        """Whether it says how text is cut into tokens; else that is done as in the reference."""
        return any(change.startswith("tokenizer.") for change in self.changes)

    @property
    def has_own_input(self) -> bool:
        """Whether it reads other files than the base."""
        return any(change.startswith("corpus.") for change in self.changes)

    def source_weights(self, rows_by_source: Mapping[str, int]) -> dict[str, float]:
        """Return how much each source of the packed rows weighs.

        Args:
            rows_by_source: Rows of each source.

        Raises:
            TokenmillError: There is no such source, or nothing is left.
        """
        weights = self.config.pack.source_weights
        natural = {
            source: weights.get(source, 0.0) if weights else float(rows)
            for source, rows in rows_by_source.items()
        }
        named = self.without if self.only is None else self.only
        if named is None:
            return natural
        if named not in natural:
            sources = ", ".join(visible(source) for source in sorted(natural)[:12])
            raise TokenmillError(
                f"{self.name}: there is no source {visible(named)}.", f"Sources: {sources}."
            )
        left = {
            source: weight if (source == named) == (self.only is not None) else 0.0
            for source, weight in natural.items()
        }
        if not any(left.values()):
            raise TokenmillError(
                f"{self.name}: without the other text nothing is left to read.",
                "Leave out a source of a text that has several.",
            )
        return left


def read_variants(base: Config, described: Sequence[str]) -> list[Variant]:
    """Read the variants of a command line; the first is the reference.

    Args:
        base: The configuration that they differ from.
        described: As given; a single one is compared with the base.

    Raises:
        TokenmillError: One cannot be read, or two have a name.
    """
    texts = list(described)
    if len(texts) == 1 and texts[0] != BASE:
        texts.insert(0, BASE)
    variants = [_read_variant(base, text) for text in texts]
    names = [variant.name for variant in variants]
    for name in names:
        if names.count(name) > 1:
            raise TokenmillError(
                f"two variants are called {visible(name)}.", "Name one: NAME:key=value."
            )
    return variants


def without_each(base: Config, sources: Sequence[str]) -> list[Variant]:
    """Return the base, and a variant without each of these sources."""
    return [Variant(BASE, base)] + [
        Variant(f"without:{source}", base, without=source) for source in sources
    ]


def _read_variant(base: Config, text: str) -> Variant:
    name, what = "", text
    named = _NAMED.fullmatch(text)
    if named and not os.path.exists(text) and named["name"] not in _OF_SOURCE:
        name, what = named["name"].strip(), named["what"].strip()
    if what == BASE:
        return Variant(name or BASE, base)
    kind, _, source = what.partition(":")
    if kind in _OF_SOURCE and source:
        without, only = (source if kind == each else None for each in _OF_SOURCE)
        return Variant(name or what, base, without=without, only=only)
    if _CHANGE.match(what):
        changes = tuple(part.strip() for part in _NEXT_CHANGE.split(what))
        return Variant(name or what, _changed(base, changes, text), changes)
    if what.endswith(".toml"):
        changes = _changes_of_file(what)
        return Variant(name or os.path.basename(what), _changed(base, changes, text), changes)
    if "://" in what or os.path.exists(what) or re.search(r"[*?\[{]", what):
        list_inputs([what], f"variant {text}")
        inputs = tomli_w.dumps({"input": [what]}).strip().replace("\n", "")
        changes = (f"corpus.{inputs.replace('input = ', 'input=')}",)
        return Variant(name or what, _changed(base, changes, text), changes)
    raise TokenmillError(
        f"variant {visible(text)}: nothing is there by this name.", f"Give {_FORMS}."
    )


def _changed(base: Config, changes: Sequence[str], text: str) -> Config:
    """Return the base with changed keys."""
    for change in changes:
        section = change.partition(".")[0]
        if section not in _SECTIONS:
            raise ConfigError(
                f"variant {text}: {change}: a variant differs in what is trained on: expected a "
                f"key of {', '.join(_SECTIONS)}.",
                "Set other keys for all variants alike, with --set or in --config.",
            )
    values = tomli.loads(dump_config(base))
    return build_config(Config, values, f"variant {text}", changes)


def _changes_of_file(path: str) -> tuple[str, ...]:
    """Read a TOML file as changes."""
    values, _ = read_values("", path)
    changes: list[str] = []
    for section, keys in values.items():
        if not isinstance(keys, dict):
            raise ConfigError(f"{path}: {section}: expected a section, such as [curate].")
        changes += [f"{section}.{key}={_as_toml(value)}" for key, value in keys.items()]
    return tuple(changes)


def _as_toml(value: Any) -> str:
    """Write a value on one line, as --set takes it."""
    if isinstance(value, dict):
        inner = ", ".join(f"{_quoted(key)} = {_as_toml(each)}" for key, each in value.items())
        return f"{{{inner}}}"
    if isinstance(value, list):
        return f"[{', '.join(_as_toml(each) for each in value)}]"
    return tomli_w.dumps({"v": value}).strip().partition(" = ")[2]


def _quoted(key: str) -> str:
    return _as_toml(str(key))
