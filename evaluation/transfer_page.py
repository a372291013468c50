"""The page of the transfer experiment, and the same as Markdown. In goes a `Page`; the page fetches nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from evaluation import pages, transfer, wording


@dataclass(frozen=True)
class Page:
    """What the page is made of.

    Attributes:
        source, target: names of the studies.
        created, outcome: as text.
        table: of `transfer.results`.
        features: the shared features: fields of `prompts.shared.Shared`, and the shares of stays with a measurement in
            the source's training split and the target's test split.
        known: number of features of each catalogue, source first.
        written_by: the study whose prompts say how a stay is written.
        sites: heads and rows of what the two cohorts are.
        without: policy arms that the target has not judged itself.
        warnings: validity of the target's cohort: level, value, rule, next_step.
        settings: dotted names and values.
        provenance: rows with the same keys.
    """

    source: str
    target: str
    created: str
    outcome: str
    table: pl.DataFrame
    features: Sequence[Mapping[str, Any]]
    known: tuple[int, int]
    written_by: str
    sites: wording.Grid
    without: Sequence[str] = ()
    warnings: Sequence[Mapping[str, Any]] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    provenance: Sequence[Mapping[str, str]] = ()


def shared_grid(page: Page) -> wording.Grid:
    """The shared features as heads and rows."""
    heads = [f"In {page.source}", "Unit", f"In {page.target}", "Unit", "Factor", f"Measured, {page.source} training",
             f"Measured, {page.target} test"]
    return heads, [[one["source"], one["source_unit"] or wording.NONE, one["target"],
                    one["target_unit"] or wording.NONE, f"{one['factor']:.4g}", f"{100 * one['measured_source']:.0f} %",
                    f"{100 * one['measured_target']:.0f} %"] for one in page.features]


def notes(page: Page) -> list[str]:
    """How to read the table, in sentences."""
    shown = len(page.features)
    sentences = [
        f"{page.source} knows {page.known[0]} features, {page.target} {page.known[1]}; {shown} of them "
        f"{'is' if shown == 1 else 'are'} the same and measured in both. Models without language read these alone, and "
        "age and sex, with the source's statistics.",
        f"Language-model arms read every feature that a prompt of {page.target} shows; what {page.source} also knows "
        f"stands under its name and in its unit there (“shared words”), the rest under {page.target}'s own name. "
        f"How many visits and digits they read, and whether with units, is as in {page.written_by}'s prompts."]
    if page.without:
        sentences.append(f"{page.target} has not judged {', '.join(page.without)} itself with its prompts on these "
                         "stays, so there is no difference to the arm trained there: run that study, or set "
                         "transfer.train_target=true.")
    return sentences


def markdown(page: Page) -> str:
    """Headline, table, shared features, sites and warnings."""
    parts = [f"# {page.source} on {page.target}", f"Outcome: {page.outcome}. Made {page.created}.",
             *transfer.headline(page.table), "## Results", transfer.markdown(page.table), *notes(page),
             "## Shared features", wording.markdown(shared_grid(page)), "## Sites", wording.markdown(page.sites)]
    if page.warnings:
        found = [f"- {one['level']}: {one['value']}. Next: {one['next_step']}." for one in page.warnings]
        parts += ["## Validity of the target's cohort", "\n".join(found)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def render(page: Page) -> str:
    """The page as HTML: no script, everything escaped."""
    return pages.render(
        "transfer.html", page=page, drawn=pages.svg(transfer.picture(page.table)), headers=transfer.HEADERS,
        rows=transfer.cells(page.table), headline=transfer.headline(page.table), notes=notes(page),
        shared=shared_grid(page),
        provenance=(list(page.provenance[0]) if page.provenance else [],
                    [list(one.values()) for one in page.provenance]),
        stays=page.table["n"][0], positives=page.table["positives"][0], resamples=page.table["resamples"][0],
        redrawn=page.table["redrawn"][0])
