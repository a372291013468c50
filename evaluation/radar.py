"""Radar: the main arms on several measures at once, each from "no skill" in the middle to "perfect" at the rim.

In go the result table and the mean overlap of each arm with the expert; out come a table of figures and an `<svg>`. A
measure that an arm has no figure for is left out of its outline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from evaluation import tables
from evaluation.baselines import EXPERT
from evaluation.risks import MODEL, STATED
from evaluation.svg import DASHES, GRID, INK, bare, drawing, inline, legend, series, short
from evaluation.wording import NONE, Grid
from prompts.mentions import MentionFinder
from rewards.attention import attention_reward

MOST = 6  # outlines in the picture
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Measure:
    """One spoke.

    Attributes:
        name, middle: what it is, and what its middle means; the rim is always 1 or perfect.
        shown: the figure in the table, from a row of the result table with `overlap`; None: there is none.
        place: that figure on the spoke, 0 to 1 before it is cut.
    """

    name: str
    middle: str
    shown: Callable[[Row], float | None]
    place: Callable[[float, Row], float]


def _as_it_is(value: float, _row: Row) -> float:
    return value


def _brier_skill(row: Row) -> float:
    return 1 - float(row["brier_point"]) / (_prevalence(row) * (1 - _prevalence(row)))


def _prevalence(row: Row) -> float:
    return int(row["positives"]) / int(row["n"])


def _language_only(name: str) -> Callable[[Row], float | None]:
    return lambda row: None if row["reading"] == MODEL else float(row[name])


MEASURES: tuple[Measure, ...] = (
    Measure("AUROC", "0.5, chance", lambda row: row["auroc_point"], lambda value, _: 2 * value - 1),
    Measure("AUPRC", "the prevalence", lambda row: row["auprc_point"],
            lambda value, row: (value - _prevalence(row)) / (1 - _prevalence(row))),
    Measure("Brier skill", "0, saying the prevalence to everybody", _brier_skill, _as_it_is),
    Measure("Calibration (1 − ECE)", "0.5", lambda row: 1 - row["ece"], lambda value, _: 2 * value - 1),
    Measure("Readable answers", "0", _language_only("parse_rate"), _as_it_is),
    Measure("Whole grammar", "0", _language_only("well_formed_rate"), _as_it_is),
    Measure("Overlap with the expert", "0", lambda row: row["overlap"], _as_it_is))


def overlaps(verdicts: pl.DataFrame, expert_features: Mapping[str, Sequence[str]], mentions: MentionFinder
             ) -> dict[str, float]:
    """Mean Jaccard index of named and expert features over all answers, for arms that name any; unread ones count 0.

    Args:
        expert_features: stay to C_exp; holds every judged stay.
    """
    found: dict[str, list[float]] = {}
    for row in verdicts.filter(pl.col("reading") != MODEL).iter_rows(named=True):
        named = mentions.canonical_names(row["features"])
        found.setdefault(row["arm"], []).append(attention_reward(named, expert_features[row["stay_id"]]))
    naming = set(verdicts.filter(pl.col("features").list.len() > 0)["arm"])
    return {arm: float(np.mean(values)) for arm, values in found.items() if arm in naming}


def rows(table: pl.DataFrame, overlap: Mapping[str, float]) -> list[dict[str, Any]]:
    """Rows of the result table, one an arm (its risk from the tokens), with `overlap`."""
    return [{**row, "overlap": overlap.get(row["arm"])} for row in table.iter_rows(named=True)
            if row["reading"] != STATED]


def grid(table: pl.DataFrame, overlap: Mapping[str, float]) -> Grid:
    """The figures of every arm, as text."""
    heads = ["Arm", *(measure.name for measure in MEASURES)]
    return heads, [[row["arm"], *(_text(measure.shown(row)) for measure in MEASURES)] for row in rows(table, overlap)]


def _text(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}".replace("-", "−")


def drawn(table: pl.DataFrame, reference: str) -> list[str]:
    """Arms with an outline: the method, the reference, the last of the other policy arms, and the expert."""
    policy = tables.policy_arms(table)
    wanted = dict.fromkeys([tables.main_arm(table), reference, *reversed(policy)])
    chosen = [arm for arm in wanted if arm in policy][:MOST - 1]
    return [*chosen, *([EXPERT] if (table["arm"] == EXPERT).any() else [])]


def radar(table: pl.DataFrame, overlap: Mapping[str, float], reference: str, name: str = "radar") -> str | None:
    """The picture; None where no arm has an outline."""
    arms = drawn(table, reference)
    if not arms:
        return None
    known = {row["arm"]: row for row in rows(table, overlap)}
    angles = np.pi / 2 - 2 * np.pi * np.arange(len(MEASURES)) / len(MEASURES)
    with drawing(6.4, 4.4 + 0.175 * ((len(arms) + 1) // 2)) as figure:
        axes = figure.add_subplot()
        _web(axes, angles)
        for number, arm in enumerate(arms):
            _outline(axes, number, arm, known[arm], angles)
        axes.set(xlim=(-1.75, 1.75), ylim=(-1.1, 1.2), aspect="equal", xticks=[], yticks=[])
        bare(axes)
        legend(figure, columns=2)
        told = " ".join(f"{arm}: " + ", ".join(f"{measure.name} {_text(measure.shown(known[arm]))}"
                                             for measure in MEASURES) + "." for arm in arms)
        return inline(figure, name, "Radar of the main arms", told)


def _web(axes: Any, angles: np.ndarray) -> None:
    """Rings at each quarter, spokes and their names."""
    closed = np.append(angles, angles[0])
    for ring in (0.25, 0.5, 0.75, 1.0):
        axes.plot(ring * np.cos(closed), ring * np.sin(closed), color=GRID, linewidth=1.2 if ring == 1.0 else 0.7)
    for angle, measure in zip(angles, MEASURES, strict=True):
        across, up = np.cos(angle), np.sin(angle)
        axes.plot([0, across], [0, up], color=GRID, linewidth=0.7)
        side = "center" if abs(across) < 0.2 else "left" if across > 0 else "right"
        axes.text(1.08 * across, 1.08 * up, measure.name, ha=side, va="center", color=INK, fontsize=9.5)


def _outline(axes: Any, number: int, arm: str, row: Row, angles: np.ndarray) -> None:
    """One arm; closed where it has every figure."""
    values = [(angle, measure.shown(row), measure) for angle, measure in zip(angles, MEASURES, strict=True)]
    points = [(min(max(measure.place(value, row), 0.0), 1.0), angle) for angle, value, measure in values
              if value is not None]
    points += points[:1] if len(points) == len(MEASURES) else []
    radius, angle = np.array([point[0] for point in points]), np.array([point[1] for point in points])
    axes.plot(radius * np.cos(angle), radius * np.sin(angle), color=series(number),
              linestyle=DASHES[number % len(DASHES)], marker="o", markersize=4, label=short(arm))
