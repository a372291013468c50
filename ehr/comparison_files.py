"""A `Comparison` as files: JSON, a Markdown table, the stays that differ, and a love plot of the shifts.

In: a `Comparison` and a folder. Out: comparison.json, comparison.md, changed_stays.csv (opaque identifiers, no values),
love_plot.svg and love_plot.png. The same comparison gives the same bytes.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from contracts.errors import StorageError
from ehr.compare import SHIFTED, Comparison, as_dict

FILES = ("comparison.json", "comparison.md", "changed_stays.csv", "love_plot.svg", "love_plot.png")
# Beyond this a difference is drawn at the edge: one broken unit would otherwise squeeze all others to a line.
_WIDEST = 2.0
_NONE = ["none"]
_STYLE: dict[Any, Any] = {"svg.hashsalt": "eag-rl", "svg.fonttype": "none", "font.size": 9.0,
                          "axes.spines.top": False, "axes.spines.right": False, "text.parse_math": False}


def write(comparison: Comparison, folder: Path) -> list[Path]:
    """Writes all files; returns their paths.

    Raises:
        StorageError: the folder cannot be written.
    """
    paths = [folder / name for name in FILES]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths[0].write_text(json.dumps(as_dict(comparison), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
                            encoding="utf-8")
        paths[1].write_text(markdown(comparison), encoding="utf-8")
        comparison.stays.write_csv(paths[2])
        draw(comparison.shifts, paths[3], paths[4])
    except OSError as error:
        raise StorageError(f"cannot write the comparison to {folder}: {error}", "a writable folder with free space",
                           "give another folder") from error
    return paths


def markdown(comparison: Comparison) -> str:
    """Counts, differing settings, findings and the shifts, as Markdown."""
    shifts = [[_cell(value) for value in row] for row in by_size(comparison.shifts).iter_rows()]
    return "\n\n".join([
        "# Comparison of two cohorts",
        _table(["stays", "count"], [[name.replace("_", " "), str(count)] for name, count in comparison.counts.items()]),
        _table(["setting", "old", "new"], [[key, *map(str, pair)] for key, pair in comparison.settings.items()]),
        _table(["finding", "what was found", "next step"],
               [[found.level, found.value, found.next_step] for found in comparison.findings]),
        _table([name.replace("_", " ") for name in comparison.shifts.columns], shifts),
        "smd: standardised mean difference, new - old; ks: Kolmogorov-Smirnov; last: last visit after LOCF; all: all "
        "visits as measured; missing: share of visits.\n"])


def by_size(shifts: pl.DataFrame) -> pl.DataFrame:
    """The shifts, largest difference on the last visit first, those without one at the end."""
    return shifts.sort(pl.col("smd_last").abs(), "name", descending=[True, False], nulls_last=True)


def draw(shifts: pl.DataFrame, svg: Path, png: Path) -> None:
    """The love plot: absolute differences of each feature, sorted, with a line at the threshold."""
    # Imported here: drawing is seconds of loading that reading and comparing need not wait for.
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = by_size(shifts)
    places = np.arange(rows.height)
    with rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 1.3 + 0.18 * rows.height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for column, mark, words in (("smd_all", "x", "all visits"), ("smd_last", "o", "last visit")):
            sizes = np.abs(rows[column].cast(pl.Float64).fill_null(math.nan).to_numpy())
            axes.plot(np.minimum(sizes, _WIDEST), places, mark, markersize=4.5, linestyle="none", label=words)
        axes.axvline(SHIFTED, color="0.4", linewidth=1.0, linestyle="--", label=f"threshold {SHIFTED}")
        axes.set_yticks(places, rows["name"].to_list())
        axes.set(ylim=(rows.height - 0.5, -0.5), xlabel=f"|SMD|, larger than {_WIDEST:g} drawn at {_WIDEST:g}")
        axes.set_xlim(left=-0.01)
        axes.grid(axis="y", linewidth=0.4, color="0.85")
        axes.set_axisbelow(True)
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        figure.savefig(png, format="png", dpi=150, metadata={"Software": None})


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows or [_NONE])]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
