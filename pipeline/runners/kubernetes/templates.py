"""The manifests' YAML templates (templates/), filled by Jinja2.

A value of a template is written as YAML that reads back as that very value, whatever characters it
holds; what is not said to be a number or a name of ours goes through one of the filters.
"""

import functools
import math
from typing import Any

import jinja2
import yaml


def render(template: str, **values: Any) -> str:
    """Fill a template of this package; a value that it lacks is an error."""
    return _environment().get_template(template).render(**values)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline.runners.kubernetes"),
        autoescape=False,  # YAML, where the filters quote
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quoted"] = quoted
    environment.filters["block"] = block
    return environment


def quoted(value: str | list[str] | dict[str, str]) -> str:
    """Write a string, or a list or a mapping of strings, on one line in double quotes."""
    text: str = yaml.safe_dump(
        value,
        allow_unicode=True,
        default_flow_style=True,
        default_style='"',
        sort_keys=False,
        width=math.inf,
    )
    return text.rstrip("\n")


def block(text: str) -> str:
    """Write a string as a literal block, indented by two; in quotes, where a block would alter it.

    YAML takes other characters than the newline for line breaks, too, and drops what cannot be
    printed.
    """
    lines = text.removesuffix("\n").split("\n")
    if not lines[0].strip() or lines[0][0] == " " or not lines[-1].strip():
        return quoted(text)
    if not all(line.isprintable() for line in lines):
        return quoted(text)
    sign = "|" if text.endswith("\n") else "|-"
    return "\n".join([sign, *(f"  {line}" if line else "" for line in lines)])
