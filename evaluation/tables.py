"""The results table: one row for each arm and reading of its risk.

In go verdicts of several arms on the same stays, out comes a frame, and its cells as text for Markdown, the terminal
and the page. CSV is the frame itself (`write_csv`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from contracts.errors import DataError
from contracts.frames import VERDICTS
from evaluation import metrics, statistics
from evaluation.metrics import MEASURES, Floats
from evaluation.paper_figures import Figures

REFERENCE = "decomposition"
# The method itself: what headline, case study and calibration are about, whatever its figures are.
METHOD = "stage1+2"
READINGS_OF_RISK = {"stated": "probability", "tokens": "token_probability"}
HEADERS = ("Arm", "Risk", "n", "Parsed", "AUROC", "AUPRC", "Brier", "AUROC vs reference", "AUPRC vs reference")
_STATISTICS = ("point", "mean", "sd", "low", "high")
_GAP = ("point", "low", "high", "p")
COMPARED = ("auroc", "auprc")
SCHEMA: dict[str, Any] = {
    "arm": pl.String, "reading": pl.String, "n": pl.Int64, "positives": pl.Int64, "parse_rate": pl.Float64,
    "well_formed_rate": pl.Float64, "truncated": pl.Int64, "stated_instead": pl.Int64, "ece": pl.Float64,
    **{f"{name}_{what}": pl.Float64 for name in MEASURES for what in _STATISTICS},
    **{f"{name}_gap_{what}": pl.Float64 for name in COMPARED for what in _GAP},
    **{f"paper_{name}": pl.Float64 for name in COMPARED},
    "resamples": pl.Int64, "redrawn": pl.Int64}


def results(verdicts: pl.DataFrame, bootstraps: int, seed: int, reference: str = REFERENCE,
            patients: Mapping[str, str] | None = None, paper: Figures | None = None) -> pl.DataFrame:
    """Measures every arm, with each reading of its risk, on the same resamples.

    Args:
        verdicts: contract VERDICTS and the columns `verdicts.EXTRAS`; every arm judged the same stays.
        bootstraps: B.
        seed: of the resamples.
        reference: arm that the others are compared with, each reading with the same reading; an arm without language
            is compared with the reference's stated number. If it is not among the arms there are no differences.
        patients: stay to patient, where a patient may have several stays.
        paper: figures of the paper, beside.

    Returns:
        Rows in order of the arms' appearance, columns `SCHEMA`: shares, not percent; `stated_instead` counts answers
        whose tokens did not tell the risk, so that the stated number stands in.

    Raises:
        ContractError: the verdicts break their contract.
        DataError: arms judged other stays or labels, or a class is missing.
    """
    arms = _arms(VERDICTS.check(verdicts))
    first = next(iter(arms.values()))
    members = None if patients is None else [patients[stay] for stay in first["stay_id"]]
    drawn = statistics.resample(first["label"].to_numpy(), bootstraps, seed, members)
    measured = {(arm, reading): _measured(arms[arm][column], arms[arm]["label"], drawn)
                for arm in arms for reading, column in _readings(arms[arm]).items()}
    rows = []
    for (arm, reading), values in measured.items():
        other = None if arm == reference else measured.get((reference, "stated" if reading == "model" else reading))
        rows.append({**_counts(arms[arm], arm, reading), **_spread(values), **_gaps(values, other),
                     **_beside(arm, paper), "resamples": bootstraps, "redrawn": drawn.redrawn})
    return pl.DataFrame(rows, schema=SCHEMA)


def _arms(verdicts: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Verdicts of each arm, sorted by stay, in order of appearance."""
    parts = {str(name[0]): part.sort("stay_id") for name, part in verdicts.group_by("arm", maintain_order=True)}
    if not parts:
        raise DataError("no verdicts", "at least one arm", "judge at least one arm")
    first_name, first = next(iter(parts.items()))
    for name, part in parts.items():
        if not part.select("stay_id", "label").equals(first.select("stay_id", "label")):
            raise DataError(f"arm {name!r} judged {part.height} stays, arm {first_name!r} {first.height}, and they are "
                            "not the same with the same labels", "all arms judge the same test stays",
                            "judge the arms again on one list of stays")
    return parts


def _readings(part: pl.DataFrame) -> dict[str, str]:
    return {"model": "probability"} if (part["reading"] == "model").all() else READINGS_OF_RISK


@dataclass(frozen=True)
class _Measured:
    """One arm under one reading: each measure on all stays and on each resample, and the calibration error."""

    whole: dict[str, float]
    resampled: dict[str, Floats]
    ece: float


def _measured(risks: pl.Series, labels: pl.Series, drawn: statistics.Resamples) -> _Measured:
    truth, risk = labels.to_numpy(), risks.to_numpy()
    whole = {"auroc": metrics.auroc(truth, risk), "auprc": metrics.auprc(truth, risk),
             "brier": metrics.brier(truth, risk)}
    return _Measured(whole, {name: statistics.measure(name, truth, risk, drawn) for name in MEASURES},
                     metrics.ece(truth, risk))


def _counts(part: pl.DataFrame, arm: str, reading: str) -> dict[str, Any]:
    return {"arm": arm, "reading": reading, "n": part.height, "positives": int(part["label"].cast(pl.Int64).sum()),
            "parse_rate": metrics.parse_rate(part), "well_formed_rate": int(part["well_formed"].sum()) / part.height,
            "truncated": int(part["truncated"].sum()),
            "stated_instead": int((part["reading"] == "stated").sum()) if reading == "tokens" else 0}


def _spread(found: _Measured) -> dict[str, float]:
    cells = {"ece": found.ece}
    for name, point in found.whole.items():
        spread = statistics.summary(point, found.resampled[name])
        cells |= {f"{name}_{what}": getattr(spread, what) for what in _STATISTICS}
    return cells


def _gaps(found: _Measured, other: _Measured | None) -> dict[str, float | None]:
    if other is None:
        return {f"{name}_gap_{what}": None for name in COMPARED for what in _GAP}
    cells: dict[str, float | None] = {}
    for name in COMPARED:
        gap = statistics.difference(found.whole[name] - other.whole[name], found.resampled[name], other.resampled[name])
        cells |= {f"{name}_gap_{what}": getattr(gap, what) for what in _GAP}
    return cells


def _beside(arm: str, paper: Figures | None) -> dict[str, float | None]:
    found = (paper or {}).get(arm)
    return {"paper_auroc": found[0] if found else None, "paper_auprc": found[1] if found else None}


def headers(table: pl.DataFrame) -> list[str]:
    """Column heads of `cells`."""
    return [*HEADERS, "Paper AUROC / AUPRC"] if _has_paper(table) else list(HEADERS)


def cells(table: pl.DataFrame) -> list[list[str]]:
    """The table as text, AUROC and AUPRC in percent: "value on all stays (mean ± sd of the resamples)"."""
    rows = []
    for row in table.iter_rows(named=True):
        texts = [row["arm"], row["reading"], str(row["n"]),
                 "–" if row["reading"] == "model" else f"{100 * row['parse_rate']:.0f} %",
                 _percent(row, "auroc"), _percent(row, "auprc"),
                 f"{row['brier_point']:.3f} ({row['brier_mean']:.3f} ± {row['brier_sd']:.3f})",
                 _gap(row, "auroc"), _gap(row, "auprc")]
        if _has_paper(table):
            texts.append("–" if row["paper_auroc"] is None
                         else f"{100 * row['paper_auroc']:.2f} / {100 * row['paper_auprc']:.2f}")
        rows.append(texts)
    return rows


def markdown(table: pl.DataFrame) -> str:
    """The table in Markdown."""
    lines = [headers(table), ["---"] * len(headers(table)), *cells(table)]
    return "".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |\n" for line in lines)


def best(table: pl.DataFrame, arms: Sequence[str]) -> dict[str, Any] | None:
    """The row with the largest AUROC among some arms, None where none of them is there."""
    found = table.filter(pl.col("arm").is_in(list(arms))).sort("auroc_point", descending=True, maintain_order=True)
    return found.row(0, named=True) if found.height else None


def policy_arms(frame: pl.DataFrame) -> list[str]:
    """Arms with language among verdicts, or among rows of the table, in order of appearance."""
    return frame.filter(pl.col("reading") != "model")["arm"].unique(maintain_order=True).to_list()


def main_arm(frame: pl.DataFrame) -> list[str]:
    """The arm of the method; where it is not there, the last policy arm; empty without any. Never picked by figures."""
    arms = policy_arms(frame)
    return [METHOD] if METHOD in arms else arms[-1:]


def _has_paper(table: pl.DataFrame) -> bool:
    return table["paper_auroc"].null_count() < table.height


def _percent(row: Mapping[str, Any], name: str) -> str:
    return f"{100 * row[f'{name}_point']:.1f} ({100 * row[f'{name}_mean']:.1f} ± {100 * row[f'{name}_sd']:.1f})"


def _gap(row: Mapping[str, Any], name: str) -> str:
    if row[f"{name}_gap_point"] is None:
        return "–"
    point, low, high = (100 * row[f"{name}_gap_{what}"] for what in ("point", "low", "high"))
    return f"{point:+.1f} [{low:+.1f}, {high:+.1f}], p = {row[f'{name}_gap_p']:.3f}".replace("-", "−")
