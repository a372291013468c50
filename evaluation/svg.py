"""A matplotlib figure as inline SVG for the page: deterministic, themed by the page's CSS, and described in words.

Series, text and grid are drawn in marker colours that become CSS variables, so that one picture is readable on a light
and on a dark page and when printed. Identifiers get the picture's name before them, so that many share one page.
Nothing in it points outside: no date, no metadata, no namespace addresses.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

SERIES = 8
LONGEST = 40  # letters of a name in a picture
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
INK, GRID, HEAT = "#fd0001", "#fd0002", "#fd0003"
_VARIABLES = {INK: "currentColor", GRID: "var(--grid)", HEAT: "var(--heat)",
              **{f"#fe00{number:02x}": f"var(--series-{number})" for number in range(1, SERIES + 1)}}
_STYLE: dict[Any, Any] = {"svg.hashsalt": "eag-rl", "svg.fonttype": "none", "font.size": 10.0, "axes.spines.top": False,
          "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True, "grid.linewidth": 0.6,
          "grid.color": GRID, "axes.edgecolor": INK, "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK,
          "ytick.color": INK, "axes.titlesize": 10.5, "axes.titleweight": "bold", "legend.frameon": False,
          "lines.linewidth": 1.8, "figure.constrained_layout.use": True, "text.parse_math": False}
_PROLOG = re.compile(r"^.*?(?=<svg)", re.DOTALL)
_METADATA = re.compile(r"<metadata>.*?</metadata>\s*", re.DOTALL)
_STYLE_SHEET = re.compile(r"<defs>\s*<style.*?</style>\s*</defs>\s*", re.DOTALL)
_FONT = re.compile(r"font-family: [^;\"]+")
_OPENING = re.compile(r"<svg[^>]*viewBox=\"([^\"]+)\"[^>]*>")


def series(number: int) -> str:
    """Marker colour of series `number`, counted from 0; they repeat after `SERIES`."""
    return f"#fe00{number % SERIES + 1:02x}"


@contextmanager
def drawing(width: float, height: float) -> Iterator[Figure]:
    """An empty figure of width x height inches in the page's style; draw and call `inline` inside the block."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height))
        FigureCanvasSVG(figure)
        yield figure


def inline(figure: Figure, name: str, title: str, description: str) -> str:
    """The figure as an `<svg>` element.

    Args:
        name: letters, digits and hyphens; unique on the page.
        title, description: what is drawn and what it shows, for readers who do not see it.
    """
    raw = io.StringIO()
    figure.savefig(raw, format="svg", transparent=True,
                   metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = _STYLE_SHEET.sub("", _METADATA.sub("", _PROLOG.sub("", raw.getvalue())), count=1)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'xlink:href="#', f'href="#{name}-', text)
    text = text.replace("url(#", f"url(#{name}-")
    text = _FONT.sub("font-family: inherit", text)
    for marker, variable in _VARIABLES.items():
        text = text.replace(marker, variable)
    head = (f'<svg viewBox="\\1" role="img" aria-labelledby="{name}-title {name}-description" class="plot" '
            f'style="max-width: {96 * figure.get_figwidth():.0f}px">\n'
            f'<title id="{name}-title">{_literal(title)}</title>\n'
            f'<desc id="{name}-description">{_literal(description)}</desc>')
    return _OPENING.sub(head, text, count=1).strip()


def _literal(text: str) -> str:
    """Text escaped for HTML and for a replacement pattern."""
    return escape(text).replace("\\", "\\\\")


def short(words: str) -> str:
    """A name as it is written in a picture: a long one would squeeze the figure, so its end is left out."""
    return words if len(words) <= LONGEST else f"{words[:LONGEST - 1]}…"


def line(axes: Axes, number: int, across: np.ndarray, up: np.ndarray, label: str, steps: bool = False) -> None:
    """Draws series `number` in its colour and dash."""
    axes.plot(across, up, color=series(number), linestyle=DASHES[number % len(DASHES)], label=label,
              drawstyle="steps-post" if steps else "default")


def square(axes: Axes, across: str, up: str) -> None:
    """Both axes from 0 to 1, equally long, with their names."""
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=across, ylabel=up, aspect="equal")


def legend(figure: Figure, columns: int = 1) -> None:
    """Names of the series below the picture."""
    figure.legend(loc="outside lower center", ncols=columns, fontsize=9, handlelength=3.2)


def bare(axes: Axes) -> None:
    """Takes grid, ticks and spines away."""
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
