"""Prints every command, flag and configuration key: docs/interface.txt, which a test holds equal.

A change of the interface is then seen in review. To accept one:

    .venv/bin/python tools/interface.py > docs/interface.txt
"""

import json
import pathlib
import sys
from collections.abc import Iterator

import click

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from pipeline.cli import cli
from pipeline.config import Config, StepResources


def commands(command: click.Command, path: str = "tokenmill") -> Iterator[str]:
    """Yield a line for each command, and below it one for each of its parameters."""
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from commands(command.commands[name], f"{path} {name}")
        return
    yield path
    for parameter in command.params:
        names = "/".join([*parameter.opts, *parameter.secondary_opts])
        if isinstance(parameter, click.Argument):
            names = parameter.human_readable_name
        marks = [
            word
            for word, holds in (
                ("required", parameter.required),
                ("repeatable", getattr(parameter, "multiple", False) or parameter.nargs == -1),
            )
            if holds
        ]
        yield f"    {names}{' (' + ', '.join(marks) + ')' if marks else ''}"


def keys() -> Iterator[str]:
    """Yield a line for each key of the configuration, with its default as JSON."""
    for section, values in Config().model_dump(mode="json", by_alias=True).items():
        for key, value in values.items():
            if (section, key) == ("curate", "quality"):
                for name, of_quality in value.items():
                    yield f"curate.quality.{name} = {json.dumps(of_quality)}"
            else:
                yield f"{section}.{key} = {json.dumps(value)}"
    for key, value in StepResources().model_dump(mode="json").items():
        yield f"engine.resources.NODE.{key} = {json.dumps(value)}"


def interface() -> str:
    """Return the whole text."""
    return "\n".join(["# Commands", *commands(cli), "", "# Configuration", *keys(), ""])


if __name__ == "__main__":
    sys.stdout.write(interface())
