"""HTML pages from the templates of this room.

In go a template's name and the values it shows, out comes one page. Everything is escaped but our own SVG; a value that
a template names and was not given is an error. What several pages have in common stands in `page_parts.html` (a table,
a picture, a note on what is absent) and in `report_head.html`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_NO_FILTERS: Mapping[str, Callable[..., Any]] = {}


def render(template: str, filters: Mapping[str, Callable[..., Any]] = _NO_FILTERS, **values: Any) -> str:
    """The page of one template.

    Args:
        template: file name in this room.
        filters: name to function, those that the template needs beside jinja's own.
        values: what the template shows, by name.
    """
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True,
                              lstrip_blocks=True, undefined=StrictUndefined, finalize=_printable)
    environment.filters |= filters
    return environment.get_template(template).render(**values)


def svg(drawn: str) -> Markup:
    """A picture that our own code drew, its text escaped, as it may stand in a page."""
    return Markup(_without_control(drawn))  # noqa: S704 - our own SVG


def _printable(value: Any) -> Any:
    return _without_control(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _without_control(text: str) -> str:
    """Control characters, which no page may hold, as the replacement character."""
    return _CONTROL.sub("\ufffd", text)
