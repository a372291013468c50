"""The pictures of the appraisal as inline SVG: paired differences, reliability, and decision curves.

In go frames of `appraisal`, out come `<svg>` elements (see `svg`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from evaluation.appraisal import TREAT_ALL, TREAT_NONE
from evaluation.risks import MODEL, STATED, TOKENS, Key
from evaluation.svg import GRID, INK, drawing, inline, legend, line, series, short, square

_MARKS = {STATED: "o", TOKENS: "s", MODEL: "D"}
_TITLES = {"auroc": "AUROC", "auprc": "AUPRC"}


def forest(differences: pl.DataFrame, name: str = "forest") -> str | None:
    """Paired differences with their 95 % intervals, a row for each arm and reading; None without differences."""
    if not differences.height:
        return None
    keys = list(differences.select("arm", "reading").unique(maintain_order=True).iter_rows())
    with drawing(8.4, 1.1 + 0.27 * len(keys)) as figure:
        panels = figure.subplots(1, len(_TITLES), sharey=True)
        for axes, measure in zip(panels, _TITLES, strict=True):
            rows = {(row["arm"], row["reading"]): row
                    for row in differences.filter(pl.col("measure") == measure).iter_rows(named=True)}
            axes.axvline(0.0, color=INK, linewidth=1.0)
            for place, key in enumerate(keys):
                row, color = rows[key], series(list(_MARKS).index(key[1]))
                axes.plot([100 * row["low"], 100 * row["high"]], [place, place], color=color, linewidth=2.0)
                axes.plot(100 * row["difference"], place, color=color, marker=_MARKS[key[1]], markersize=5.5)
            axes.set_title(f"{_TITLES[measure]}: difference [points]", loc="left")
            axes.grid(visible=False, axis="y")
            axes.tick_params(axis="y", length=0)
        panels[0].set_yticks(range(len(keys)), [f"{short(arm)}, {reading}" for arm, reading in keys], fontsize=8.5)
        panels[0].set_ylim(len(keys) - 0.4, -0.6)
        return inline(figure, name, "Paired differences to the reference", _told(differences))


def _told(differences: pl.DataFrame) -> str:
    return " ".join(f"{row['arm']}, {row['reading']}, {_TITLES[row['measure']]}: {100 * row['difference']:+.1f} "
                    f"points, from {100 * row['low']:+.1f} to {100 * row['high']:+.1f}."
                    for row in differences.iter_rows(named=True))


def reliability(points: pl.DataFrame, keys: Sequence[Key], bins: str, name: str) -> str:
    """Reliability curves of some arms: observed share against mean risk in each bin; a dot grows with its stays.

    Args:
        points: `appraisal.RELIABILITY`.
        bins: "uniform" or "quantile".
    """
    with drawing(5.0, 4.75 + 0.175 * len(keys)) as figure:
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=GRID, linewidth=1.2)
        for number, (arm, reading) in enumerate(keys):
            part = points.filter((pl.col("arm") == arm) & (pl.col("reading") == reading) & (pl.col("bins") == bins))
            mean, observed, size = (part[column].to_numpy() for column in ("mean_risk", "observed", "n"))
            line(axes, number, mean, observed, _name((short(arm), reading)))
            axes.scatter(mean, observed, s=12 + 160 * size / max(size.sum(), 1), color=series(number), linewidths=0)
        square(axes, "Mean risk in the bin [share]", "Observed outcome in the bin [share]")
        legend(figure)
        kind = "equally wide bins" if bins == "uniform" else "bins of equally many stays"
        return inline(figure, name, f"Reliability curves, {kind}",
                      f"Observed share of the outcome against the mean risk in {kind}; on the diagonal the risk is "
                      "right on average.")


def decision_curve(curves: pl.DataFrame, keys: Sequence[Key], band: Key | None = None, name: str = "decision") -> str:
    """Net benefit against the threshold, with treating all and treating none.

    Args:
        curves: `appraisal.DECISION`.
        keys: arms and readings drawn.
        band: the one whose 95 % interval is shaded.
    """
    with drawing(8.4, 4.2 + 0.175 * len(keys)) as figure:
        axes = figure.add_subplot()
        everyone, nobody = _of(curves, (TREAT_ALL, "–")), _of(curves, (TREAT_NONE, "–"))
        axes.plot(everyone["threshold"], everyone["net_benefit"], color=INK, linewidth=1.0, label=TREAT_ALL)
        axes.plot(nobody["threshold"], nobody["net_benefit"], color=INK, linewidth=1.0, linestyle=(0, (2, 2)),
                  label=TREAT_NONE)
        top = max(float(np.max(everyone["net_benefit"].to_numpy())), 0.05)
        for number, key in enumerate(keys):
            part = _of(curves, key)
            if key == band:
                axes.fill_between(part["threshold"], part["low"], part["high"], color=series(number), alpha=0.18,
                                  linewidth=0)
            line(axes, number, part["threshold"].to_numpy(), part["net_benefit"].to_numpy(),
                 _name((short(key[0]), key[1])))
        axes.set(xlim=(0, 1), ylim=(-0.2 * top, 1.15 * top), xlabel="Threshold: risk at which one would act [share]",
                 ylabel="Net benefit [true positives per stay]")
        legend(figure, columns=2)
        return inline(figure, name, "Decision curves", _worth(curves, keys))


def _worth(curves: pl.DataFrame, keys: Sequence[Key]) -> str:
    shown = [(_name(key), _of(curves, key)) for key in [*keys, (TREAT_ALL, "–")]]
    return "Net benefit at the thresholds 0.1, 0.3 and 0.5: " + "; ".join(
        f"{title} " + ", ".join(f"{part['net_benefit'][round(100 * at) - 1]:.3f}" for at in (0.1, 0.3, 0.5))
        for title, part in shown) + "; treat none 0."


def _of(curves: pl.DataFrame, key: Key) -> pl.DataFrame:
    return curves.filter((pl.col("arm") == key[0]) & (pl.col("reading") == key[1])).sort("threshold")


def _name(key: Key) -> str:
    return key[0] if key[1] in (MODEL, "–") else f"{key[0]}, {key[1]}"
