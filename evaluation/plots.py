"""The pictures of the report as inline SVG: ranking of the arms, the RL run, the expert's attention.

In go frames and vectors, out come `<svg>` elements (see `svg`). Series differ by colour and by dash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import precision_recall_curve, roc_curve

from evaluation.metrics import auprc, auroc, checked
from evaluation.svg import DASHES, GRID, HEAT, INK, bare, drawing, inline, legend, line, series, short, square

Curves = Mapping[str, tuple[np.ndarray, np.ndarray]]  # name -> labels (n,), risks (n,)

# Columns of the RL run's frame, one row a step: `step` and any of these.
REWARDS = {"reward": "R (total reward)", "outcome_reward": "R_cls (outcome)", "attention_reward": "R_att (attention)",
           "parse_rate": "parse rate [share]"}
BOUNDS = ("bound_min", "bound_mean", "bound_max")
CLIPPED = {"clipped_above": "tokens clipped above", "clipped_below": "tokens clipped below"}


def roc(curves: Curves, name: str = "roc") -> str:
    """ROC curve of each arm, with its AUROC in the legend."""
    with drawing(5.0, 4.75 + 0.175 * len(curves)) as figure:
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=GRID, linewidth=1.2)
        for number, (arm, (labels, risks)) in enumerate(curves.items()):
            false_positive, true_positive, _ = roc_curve(*checked(labels, risks))
            line(axes, number, false_positive, true_positive, f"{short(arm)}: {100 * auroc(labels, risks):.1f} %")
        square(axes, "False positive rate (1 − specificity) [share]", "True positive rate (sensitivity) [share]")
        legend(figure)
        return inline(figure, name, "ROC curves",
                      _words("AUROC", {arm: auroc(*found) for arm, found in curves.items()}))


def precision_recall(curves: Curves, name: str = "pr") -> str:
    """Precision-recall curve of each arm as steps, with its AUPRC in the legend and the prevalence as a line."""
    with drawing(5.0, 4.75 + 0.175 * len(curves)) as figure:
        axes = figure.add_subplot()
        prevalence = float(np.mean(next(iter(curves.values()))[0]))
        axes.axhline(prevalence, color=GRID, linewidth=1.2)
        for number, (arm, (labels, risks)) in enumerate(curves.items()):
            precision, recall, _ = precision_recall_curve(*checked(labels, risks))
            line(axes, number, recall, precision, f"{short(arm)}: {100 * auprc(labels, risks):.1f} %", steps=True)
        square(axes, "Recall (sensitivity) [share]", "Precision [share]")
        legend(figure)
        return inline(figure, name, "Precision-recall curves",
                      f"Prevalence {100 * prevalence:.1f} percent. "
                      + _words("AUPRC", {arm: auprc(*found) for arm, found in curves.items()}))


def rewards(steps: pl.DataFrame, name: str = "rewards") -> str | None:
    """Rewards and parse rate over the optimiser steps, small multiples; None if there is nothing to draw."""
    shown = [column for column in REWARDS if _drawn(steps, column)]
    if not shown:
        return None
    rows = (len(shown) + 1) // 2
    with drawing(8.4, 2.4 * rows) as figure:
        for number, column in enumerate(shown):
            axes = figure.add_subplot(rows, min(2, len(shown)), number + 1)
            _over_steps(axes, steps, column, number)
            axes.set_title(REWARDS[column], loc="left")
        return inline(figure, name, "Rewards over the RL run", " ".join(_course(steps, column, REWARDS[column])
                                                                      for column in shown))


def clip_bounds(steps: pl.DataFrame, name: str = "bounds") -> str | None:
    """e(tau), smallest, mean and largest of each step, above the share of tokens clipped; None without e(tau)."""
    if not all(_drawn(steps, column) for column in BOUNDS):
        return None
    shares = [column for column in CLIPPED if _drawn(steps, column)]
    with drawing(8.4, 4.6 if shares else 2.6) as figure:
        axes = figure.add_subplot(2 if shares else 1, 1, 1)
        part = steps.drop_nulls(list(BOUNDS))
        axes.fill_between(part["step"], part["bound_min"], part["bound_max"], color=series(0), alpha=0.25, linewidth=0)
        _over_steps(axes, steps, "bound_mean", 0)
        axes.set_title("e(τ): mean, and from smallest to largest", loc="left")
        if shares:
            below = figure.add_subplot(2, 1, 2)
            for number, column in enumerate(shares):
                _over_steps(below, steps, column, number + 1, CLIPPED[column])
            below.set_title("clipped tokens [share]", loc="left")
            below.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, fontsize=9, borderaxespad=0.2)
            below.set_ylim(bottom=0)
        words = [_course(steps, column, column.replace("_", " ")) for column in (*BOUNDS, *shares)]
        return inline(figure, name, "Upper clip bound e(tau) and clipped tokens over the RL run", " ".join(words))


def attention(readings: pl.DataFrame, stay_ids: Sequence[str], tokens: Sequence[str], labels: Sequence[int],
              name: str = "attention") -> str:
    """Heat map of the expert's attention, a row for each token and a column for each stay.

    Args:
        readings: contract READINGS.
        stay_ids: columns, left to right; they are not written (identifiers stay out of the page).
        tokens: rows, from the top.
        labels: outcome of each stay; a line divides the two classes where it changes.
    """
    weights = {(stay, token): weight
               for stay, token, weight in readings.select("stay_id", "feature", "attention").iter_rows()}
    grid = np.array([[weights.get((stay, token), 0.0) for stay in stay_ids] for token in tokens])
    with drawing(8.4, 1.0 + 0.22 * len(tokens)) as figure:
        axes = figure.add_subplot()
        top = _cells(axes, grid)
        axes.set_yticks(np.arange(len(tokens)) + 0.5, [short(token) for token in tokens], fontsize=8.5)
        bounds = [place for place in range(1, len(labels)) if labels[place] != labels[place - 1]]
        for place in bounds:
            axes.axvline(place, color=INK, linewidth=1.4)
        _classes(axes, labels, bounds)
        axes.set_xlabel(f"test stays (one column each); full colour = {100 * top:.0f} % of a stay's attention, "
                        "none = 0 %", fontsize=8.5)
        mean = dict(zip(tokens, grid.mean(axis=1), strict=True))
        return inline(figure, name, "Attention of the expert", _words("Mean attention", mean))


def _cells(axes: Axes, grid: np.ndarray) -> float:
    """Draws the cells with opacity proportional to their value; returns the value at full colour."""
    top = float(grid.max()) or 1.0
    for row, column in np.argwhere(grid > 0.01 * top):
        axes.add_patch(Rectangle((column, row), 1, 1, facecolor=HEAT, alpha=round(float(grid[row, column]) / top, 3),
                                 linewidth=0))
    axes.set_xlim(0, grid.shape[1])
    axes.set_ylim(grid.shape[0], 0)
    bare(axes)
    axes.set_xticks([])
    return top


def _classes(axes: Axes, labels: Sequence[int], bounds: Sequence[int]) -> None:
    """Names the class above each run of equal labels."""
    edges = [0, *bounds, len(labels)]
    for start, end in zip(edges, edges[1:], strict=False):
        axes.text((start + end) / 2, -0.25, f"outcome {labels[start]}" if labels else "", ha="center", va="bottom",
                  fontsize=8.5)


def _over_steps(axes: Axes, steps: pl.DataFrame, column: str, number: int, label: str | None = None) -> None:
    part = steps.drop_nulls(column)
    axes.plot(part["step"].to_numpy(), part[column].to_numpy(), color=series(number), marker="o", markersize=3,
              linestyle=DASHES[number % len(DASHES)] if label else "-", label=label)
    axes.set_xlabel("optimiser step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))


def _drawn(steps: pl.DataFrame, column: str) -> bool:
    return column in steps.columns and steps[column].null_count() < steps.height


def _course(steps: pl.DataFrame, column: str, words: str) -> str:
    values = steps.drop_nulls(column)[column]
    return f"{words}: from {values[0]:.3f} to {values[-1]:.3f} over {len(values)} steps."


def _words(what: str, values: Mapping[str, float]) -> str:
    return f"{what} in percent: " + ", ".join(f"{name} {100 * value:.1f}" for name, value in values.items()) + "."
