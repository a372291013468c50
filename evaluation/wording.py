"""The appraisal in words: its frames as rows of text and sentences, for the page and for Markdown.

In go frames of `appraisal`, out come heads and cells, AUROC and AUPRC in percent or points, a dash for what is not
there. A value with its interval is written here for every table of the room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from evaluation import power
from evaluation.risks import Key

Grid = tuple[list[str], list[list[str]]]  # heads, rows
NONE, HIDDEN = "–", "hidden"
UNHIDDEN = ("Small counts are not hidden in decision curves, ROC curves and precision-recall curves: single patients "
            "can be counted off their steps. They, and decision.csv, are for those who may see the cohort.")


def differences(frame: pl.DataFrame) -> Grid:
    """`appraisal.DIFFERENCES`, one line for each arm and reading."""
    heads = ["Arm", "Risk", "AUROC difference [points]", "p", "p (Holm)", "AUPRC difference [points]", "p", "p (Holm)"]
    lines: dict[Key, list[str]] = {}
    for row in frame.iter_rows(named=True):
        line = lines.setdefault((row["arm"], row["reading"]), [row["arm"], row["reading"]])
        line += [signed(row), p_value(row["p"]), p_value(row["p_holm"])]
    return heads, list(lines.values())


def calibration(frame: pl.DataFrame) -> Grid:
    """`appraisal.CALIBRATION`."""
    heads = ["Arm", "Risk", "Recalibrated", "Mean risk", "Observed", "Brier", "ECE, wide bins", "ECE, equal bins",
             "Intercept", "Slope"]
    rows = [[row["arm"], row["reading"], _method(row), f"{100 * row['mean_risk']:.1f} %",
             f"{100 * row['observed']:.1f} %", f"{row['brier']:.3f}", f"{row['ece_uniform']:.3f}",
             f"{row['ece_quantile']:.3f}", _bounded(row, "intercept"), _bounded(row, "slope")]
            for row in frame.iter_rows(named=True)]
    return heads, rows


def recalibration(frame: pl.DataFrame) -> Grid:
    """Of `appraisal.CALIBRATION` the arms that were recalibrated, one line for each arm and reading: Brier score and
    calibration error as they were and after each method."""
    heads = ["Arm", "Risk", "Validation stays", "Brier", "after Platt", "after isotonic", "ECE", "after Platt",
             "after isotonic"]
    lines: dict[Key, dict[str, Mapping[str, Any]]] = {}
    for row in frame.iter_rows(named=True):
        lines.setdefault((row["arm"], row["reading"]), {})[row["recalibration"]] = row
    return heads, [[*key, str(found["platt"]["validation_stays"]),
                    *(f"{found[method][name]:.3f}" for name in ("brier", "ece_uniform")
                      for method in ("none", "platt", "isotonic"))]
                   for key, found in lines.items() if "platt" in found]


def subgroups(frame: pl.DataFrame, keys: Sequence[Key]) -> Grid:
    """Some arms of `subgroups.SCHEMA`: one line for each group; mean risk is the first arm's."""
    heads = ["Group", "n", "Outcome 1", *(f"AUROC [%]: {', '.join(key)}" for key in keys), "Observed", "Mean risk"]
    rows = []
    for variable, level in frame.select("variable", "level").unique(maintain_order=True).iter_rows():
        group = {(row["arm"], row["reading"]): row for row in frame.iter_rows(named=True)
                 if (row["variable"], row["level"]) == (variable, level)}
        first = group[keys[0]]
        rows.append([f"{variable} {level}", _count(first, "n"), _count(first, "positives"),
                     *(_auroc(group[key]) for key in keys), _share(first, "observed"), _share(first, "mean_risk")])
    return heads, rows


def power_table(frame: pl.DataFrame) -> Grid:
    """`appraisal.POWER`."""
    heads = ["Arm", "Risk", "Sd of the paired difference [points]", "Smallest difference shown [points]"]
    return heads, [[row["arm"], row["reading"], f"{100 * row['sd_of_difference']:.1f}",
                    f"{100 * row['smallest_difference']:.1f}"] for row in frame.iter_rows(named=True)]


def power_note(frame: pl.DataFrame, arm: str | None, stays: int, positives: int) -> list[str]:
    """What the test split could have shown of one arm; no sentence if it is not compared."""
    rows = frame.filter(pl.col("arm") == arm).iter_rows(named=True) if arm else iter(())
    told = [f"{100 * row['smallest_difference']:.1f} points (risk read as {row['reading']}, against "
            f"{row['reference']})" for row in rows]
    if not told:
        return []
    return [f"With these {stays} test stays, {positives} of them with outcome 1, the smallest true difference in AUROC "
            f"that would be found for {arm} with 80 % power at the 5 % level is " + " or ".join(told) + ".",
            "How to read: a smaller true difference would more often than one time in five be missed, so an interval "
            "that holds 0 does not show that two arms are equal.",
            f"Method: {power.METHOD}."]


def markdown(grid: Grid) -> str:
    """A Markdown table."""
    heads, rows = grid
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |\n" for line in lines)


def percent(row: Mapping[str, Any], name: str) -> str:
    """A share with its interval, in percent: columns NAME_point, NAME_low, NAME_high."""
    return _shares(*(row[f"{name}_{what}"] for what in ("point", "low", "high")))


def points(row: Mapping[str, Any], name: str) -> str:
    """A difference with its interval, in points: columns as for `percent`; a dash where nothing was compared."""
    if row[f"{name}_point"] is None:
        return NONE
    return _points(*(row[f"{name}_{what}"] for what in ("point", "low", "high")))


def tested(row: Mapping[str, Any], name: str) -> str:
    """`points`, and its p-values: columns NAME_p and NAME_p_holm."""
    if row[f"{name}_point"] is None:
        return NONE
    return f"{points(row, name)}, {p_is(row[f'{name}_p'])}, Holm {p_value(row[f'{name}_p_holm'])}"


def p_value(value: float) -> str:
    """A p-value with three decimals; one below 0.001 is not 0, so it says that it is below."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def p_is(value: float) -> str:
    """`p_value` in a sentence: "p = 0.042", "p < 0.001"."""
    text = p_value(value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def signed(row: Mapping[str, Any]) -> str:
    """A difference with its interval, in points: columns difference, low, high."""
    return _points(row["difference"], row["low"], row["high"])


def _shares(point: float, low: float, high: float) -> str:
    return f"{100 * point:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _points(point: float, low: float, high: float) -> str:
    return f"{100 * point:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]".replace("-", "−")


def _method(row: Mapping[str, Any]) -> str:
    return "no" if row["recalibration"] == "none" else f"{row['recalibration']}, n = {row['validation_stays']}"


def _bounded(row: Mapping[str, Any], name: str) -> str:
    if row[name] is None:
        return NONE
    if row[f"{name}_low"] is None:
        return _two(row[name])
    return f"{_two(row[name])} [{_two(row[f'{name}_low'])}, {_two(row[f'{name}_high'])}]"


def _two(value: float) -> str:
    """Two decimals, without a minus before nothing."""
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def _count(row: Mapping[str, Any], name: str) -> str:
    return HIDDEN if row[name] is None else str(row[name])


def _share(row: Mapping[str, Any], name: str) -> str:
    return HIDDEN if row[name] is None else f"{100 * row[name]:.1f} %"


def _auroc(row: Mapping[str, Any]) -> str:
    if row["auroc"] is None:
        return HIDDEN if row["hidden"] else NONE
    return _shares(row["auroc"], row["auroc_low"], row["auroc_high"])
