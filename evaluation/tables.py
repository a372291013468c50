"""The results table: one row for each arm and reading of its risk.

In go verdicts of several arms on the same stays, out comes a frame, and its cells as text for Markdown, the terminal
and the page. CSV is the frame itself (`write_csv`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from evaluation import metrics, statistics, wording
from evaluation.calibration import ece
from evaluation.metrics import MEASURES, Floats, Ints
from evaluation.paper_figures import Figures
from evaluation.risks import FIRST, REFERENCE, Judged, arms_of, counterpart, judged

# The method itself: what headline, case study and calibration are about, whatever its figures are.
METHOD = "stage1+2"
HEADERS = ("Arm", "Risk", "n", "Parsed", "AUROC", "AUPRC", "Brier", "AUROC vs reference", "AUPRC vs reference")
_STATISTICS = ("point", "mean", "sd", "low", "high")
_GAP = ("point", "low", "high", "p")
COMPARED = ("auroc", "auprc")
SCHEMA: dict[str, Any] = {
    "arm": pl.String, "reading": pl.String, "n": pl.Int64, "positives": pl.Int64, "parse_rate": pl.Float64,
    "well_formed_rate": pl.Float64, "truncated": pl.Int64, "stated_instead": pl.Int64, "ece": pl.Float64,
    **{f"{name}_{what}": pl.Float64 for name in MEASURES for what in _STATISTICS},
    **{f"{name}_gap_{what}": pl.Float64 for name in COMPARED for what in (*_GAP, "p_holm")},
    **{f"paper_{name}": pl.Float64 for name in COMPARED},
    "resamples": pl.Int64, "interval_resamples": pl.Int64, "redrawn": pl.Int64}


def results(verdicts: pl.DataFrame, bootstraps: int, seed: int, reference: str = REFERENCE,
            patients: Mapping[str, str] | None = None, paper: Figures | None = None,
            interval_bootstraps: int = 1000) -> pl.DataFrame:
    """Measures every arm, with each reading of its risk, on the same resamples.

    Args:
        verdicts: contract VERDICTS and the columns `verdicts.EXTRAS`; every arm judged the same stays.
        bootstraps: resamples of mean and standard deviation, as in the paper.
        seed: of the resamples.
        reference: arm that the others are compared with, each reading with the same reading; an arm without language
            is compared with the reference's stated number. If it is not among the arms there are no differences.
        patients: stay to patient, where a patient may have several stays.
        paper: figures of the paper, beside.
        interval_bootstraps: resamples of intervals, differences and p-values; the first of them are those above.

    Returns:
        Rows in order of the arms' appearance, columns `SCHEMA`: shares, not percent; `stated_instead` counts answers
        whose tokens did not tell the risk, so that the stated number stands in; `gap_p_holm` is `gap_p` corrected over
        the arms of the same reading, for each measure (Holm 1979).

    Raises:
        ContractError: the verdicts break their contract.
        DataError: arms judged other stays or labels, or a class is missing.
    """
    arms, found = arms_of(verdicts), judged(verdicts)
    drawn = drawn_of(found, max(bootstraps, interval_bootstraps), seed, patients)
    measured = {key: _measured(risks, found.labels, drawn) for key, risks in found.risks.items()}
    rows = []
    for (arm, reading), values in measured.items():
        other = counterpart((arm, reading), measured, reference)
        rows.append({**_counts(arms[arm], arm, reading), **_spread(values, bootstraps, interval_bootstraps),
                     **_gaps(values, measured[other] if other else None, interval_bootstraps), **_beside(arm, paper),
                     "resamples": bootstraps, "interval_resamples": interval_bootstraps, "redrawn": drawn.redrawn})
    return _corrected(pl.DataFrame(rows, schema=SCHEMA))


def drawn_of(found: Judged, count: int, seed: int, patients: Mapping[str, str] | None) -> statistics.Resamples:
    """The resamples of the judged stays' patients: the same for the same seed, whatever is measured on them."""
    members = None if patients is None else [patients[stay] for stay in found.stay_ids]
    return statistics.resample(found.labels, count, seed, members)


@dataclass(frozen=True)
class _Measured:
    """One arm under one reading: each measure on all stays and on each resample, and the calibration error."""

    whole: dict[str, float]
    resampled: dict[str, Floats]
    ece: float


def _measured(risk: Floats, truth: Ints, drawn: statistics.Resamples) -> _Measured:
    whole = {"auroc": metrics.auroc(truth, risk), "auprc": metrics.auprc(truth, risk),
             "brier": metrics.brier(truth, risk)}
    return _Measured(whole, {name: statistics.measure(name, truth, risk, drawn) for name in MEASURES},
                     ece(truth, risk))


def _counts(part: pl.DataFrame, arm: str, reading: str) -> dict[str, Any]:
    return {"arm": arm, "reading": reading, "n": part.height, "positives": int(part["label"].cast(pl.Int64).sum()),
            "parse_rate": metrics.parse_rate(part), "well_formed_rate": int(part["well_formed"].sum()) / part.height,
            "truncated": int(part["truncated"].sum()),
            "stated_instead": int((part["reading"] == "stated").sum()) if reading == "tokens" else 0}


def _spread(found: _Measured, bootstraps: int, intervals: int) -> dict[str, float]:
    """Value, mean and sd over the first `bootstraps` resamples, interval over the first `intervals`."""
    cells = {"ece": found.ece}
    for name, point in found.whole.items():
        spread = statistics.summary(point, found.resampled[name][:bootstraps])
        low, high = statistics.interval(found.resampled[name][:intervals])
        cells |= {f"{name}_{what}": value for what, value in
                  zip(_STATISTICS, (point, spread.mean, spread.sd, low, high), strict=True)}
    return cells


def _gaps(found: _Measured, other: _Measured | None, intervals: int) -> dict[str, float | None]:
    if other is None:
        return {f"{name}_gap_{what}": None for name in COMPARED for what in _GAP}
    cells: dict[str, float | None] = {}
    for name in COMPARED:
        gap = statistics.difference(found.whole[name] - other.whole[name], found.resampled[name][:intervals],
                                    other.resampled[name][:intervals])
        cells |= {f"{name}_gap_{what}": getattr(gap, what) for what in _GAP}
    return cells


def _corrected(table: pl.DataFrame) -> pl.DataFrame:
    """Holm's correction over the arms, for each reading and measure."""
    for name in COMPARED:
        values: list[float | None] = [None] * table.height
        for reading in table["reading"].unique():
            rows = [number for number, row in enumerate(table.iter_rows(named=True))
                    if row["reading"] == reading and row[f"{name}_gap_p"] is not None]
            for number, value in zip(rows, statistics.holm(table[f"{name}_gap_p"].gather(rows)), strict=True):
                values[number] = float(value)
        table = table.with_columns(pl.Series(f"{name}_gap_p_holm", values, pl.Float64))
    return table


def _beside(arm: str, paper: Figures | None) -> dict[str, float | None]:
    found = (paper or {}).get(arm)
    return {"paper_auroc": found[0] if found else None, "paper_auprc": found[1] if found else None}


def headers(table: pl.DataFrame) -> list[str]:
    """Column heads of `cells`."""
    return [*HEADERS, "Paper AUROC / AUPRC"] if _has_paper(table) else list(HEADERS)


def cells(table: pl.DataFrame) -> list[list[str]]:
    """The table as text, AUROC and AUPRC in percent: "value on all stays [95 % interval] (mean ± sd)"."""
    rows = []
    for row in table.iter_rows(named=True):
        texts = [row["arm"], row["reading"], str(row["n"]),
                 "–" if row["reading"] == "model" else f"{100 * row['parse_rate']:.0f} %",
                 _percent(row, "auroc"), _percent(row, "auprc"),
                 f"{row['brier_point']:.3f} [{row['brier_low']:.3f}, {row['brier_high']:.3f}] "
                 f"({row['brier_mean']:.3f} ± {row['brier_sd']:.3f})",
                 _gap(row, "auroc"), _gap(row, "auprc")]
        if _has_paper(table):
            texts.append("–" if row["paper_auroc"] is None
                         else f"{100 * row['paper_auroc']:.2f} / {100 * row['paper_auprc']:.2f}")
        rows.append(texts)
    return rows


def markdown(table: pl.DataFrame) -> str:
    """The table in Markdown."""
    return wording.markdown((headers(table), cells(table)))


def best(table: pl.DataFrame, arms: Sequence[str]) -> dict[str, Any] | None:
    """The row with the largest AUROC among some arms, None where none of them is there."""
    found = table.filter(pl.col("arm").is_in(list(arms))).sort("auroc_point", descending=True, maintain_order=True)
    return found.row(0, named=True) if found.height else None


def policy_arms(frame: pl.DataFrame) -> list[str]:
    """Arms with language among verdicts, or among rows of the table, in order of appearance."""
    return frame.filter(pl.col("reading") != "model")["arm"].unique(maintain_order=True).to_list()


def main_arm(frame: pl.DataFrame) -> str | None:
    """The arm of the method; where it is not there, the last policy arm; None without any. Never picked by figures."""
    arms = [arm for arm in policy_arms(frame) if not arm.endswith(FIRST)]
    return METHOD if METHOD in arms else next(reversed(arms), None)


def _has_paper(table: pl.DataFrame) -> bool:
    return table["paper_auroc"].null_count() < table.height


def _percent(row: Mapping[str, Any], name: str) -> str:
    point, low, high, mean, sd = (100 * row[f"{name}_{what}"] for what in ("point", "low", "high", "mean", "sd"))
    return f"{point:.1f} [{low:.1f}, {high:.1f}] ({mean:.1f} ± {sd:.1f})"


def _gap(row: Mapping[str, Any], name: str) -> str:
    if row[f"{name}_gap_point"] is None:
        return "–"
    point, low, high = (100 * row[f"{name}_gap_{what}"] for what in ("point", "low", "high"))
    return (f"{point:+.1f} [{low:+.1f}, {high:+.1f}], p = {row[f'{name}_gap_p']:.3f}, "
            f"Holm {row[f'{name}_gap_p_holm']:.3f}").replace("-", "−")
