"""Jinja2 as the page uses it: everything escaped, and no control character passes."""

import functools
import re
from typing import Any

import jinja2
from jinja2.filters import do_mark_safe

from tokenmill.visible import visible_lines

_MOST_CHARACTERS = 2_000
# Characters that XML, and so a page that is checked by its rules, cannot hold at all.
_NO_CHARACTERS = re.compile("[\ufffe\uffff]")


def render(template: str, **values: Any) -> str:
    """Fill a template of this package; what is not markup is escaped and its controls are shown."""
    return do_mark_safe(_environment().get_template(template).render(**values))


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline.report.page"),
        autoescape=True,
        finalize=_show,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["coordinate"] = _coordinate
    return environment


def _show(value: Any) -> Any:
    """Make a value of a template safe, before it is escaped: no template can forget it."""
    if not isinstance(value, str) or hasattr(value, "__html__"):  # markup of ours
        return value
    if len(value) > _MOST_CHARACTERS:
        value = f"{value[:_MOST_CHARACTERS]}… ({len(value):,} characters)"
    return _NO_CHARACTERS.sub("\ufffd", visible_lines(value))


def _coordinate(number: float) -> str:
    """Format a coordinate: a tenth of a pixel is enough, and the same on every machine."""
    return f"{number:.1f}".rstrip("0").rstrip(".")
