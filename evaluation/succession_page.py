"""The comparison report of a study on a new extract: what changed in the cohort, what in the figures, who is champion.

In go frames and plain values, out come one self-contained page and the same as Markdown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from evaluation import pages, wording

HEADERS = ("Arm", "Risk", "Measure", "n", "Positive", "Before", "Now", "Difference [95 % interval]", "p")


@dataclass(frozen=True)
class Page:
    """What the page is made of.

    Attributes:
        study, created: as text.
        extract: where the new records lie, as text.
        verdict: on the champion, in words.
        rule: by which it was found.
        counts: of stays: old, new, common, added and so on.
        differing: settings and files of the cohorts that differ: name, old, new.
        findings: of the cohorts' comparison: level, what was found, next step.
        shifts: largest shifts: name and numbers as text.
        rows: of `succession.compare`, this study against the last.
        love_plot: SVG of the shifts, made by this project.
        provenance: role, artifact and sha256 of each input.
    """

    study: str
    created: str
    extract: str
    verdict: str
    rule: str
    counts: Mapping[str, int]
    differing: Sequence[tuple[str, str, str]]
    findings: Sequence[tuple[str, str, str]]
    shifts: Sequence[Sequence[str]]
    rows: pl.DataFrame
    love_plot: str = ""
    provenance: Sequence[tuple[str, str, str]] = ()


def render(page: Page) -> str:
    """The page as HTML: nothing is fetched, no script, everything escaped."""
    return pages.render("succession.html", page=page, headers=HEADERS, cells=cells(page.rows),
                        plot=pages.svg(page.love_plot))


def cells(rows: pl.DataFrame) -> list[list[str]]:
    """The figures as text, in the order of HEADERS."""
    return [_cells(row) for row in rows.iter_rows(named=True)]


def markdown(page: Page) -> str:
    """Verdict, counts and figures as Markdown."""
    counts = [[name.replace("_", " "), str(count)] for name, count in page.counts.items()]
    figures = cells(page.rows)
    return "\n\n".join([
        f"# Study {page.study} on a new extract", f"**Champion {page.verdict}**", page.rule, "## Cohort",
        _table(("stays", "count"), counts),
        _table(("finding", "what", "next step"), page.findings) if page.findings else "No finding.",
        "## Figures against the last study", _table(HEADERS, figures) if figures else "No common judged test stays."
    ]) + "\n"


def _cells(row: Mapping[str, Any]) -> list[str]:
    gap = f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]".replace("-", "−")
    return [row["arm"], row["reading"], row["measure"], str(row["stays"]), str(row["positives"]), f"{row['old']:.3f}",
            f"{row['new']:.3f}", gap, wording.p_value(row["p"])]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
