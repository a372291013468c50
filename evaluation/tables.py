"""The results table: one row for each arm and reading of its risk.

In go verdicts of several arms on the same stays, out comes a frame, and its cells as text for Markdown, the terminal
and the page. CSV is the frame itself (`write_csv`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from evaluation import metrics, seeds, statistics, wording
from evaluation.calibration import ece
from evaluation.metrics import MEASURES, Floats, Ints
from evaluation.paper_figures import Figures
from evaluation.risks import FIRST, MODEL, REFERENCE, Judged, arms_of, counterpart
from evaluation.variety import same_reasoning

# The method itself: what headline, case study and calibration are about, whatever its figures are.
METHOD = "stage1+2"
HEADERS = ("Arm", "Risk", "n", "Seeds", "Parsed", "AUROC", "AUPRC", "Brier", "AUROC vs reference", "AUPRC vs reference")
_STATISTICS = ("point", "mean", "sd", "low", "high")
_GAP = ("point", "low", "high", "p")
COMPARED = ("auroc", "auprc")
SCHEMA: dict[str, Any] = {
    "arm": pl.String, "reading": pl.String, "n": pl.Int64, "positives": pl.Int64,
    **dict.fromkeys(statistics.PATIENTS, pl.Int64), "seeds": pl.Int64, "parse_rate": pl.Float64,
    "well_formed_rate": pl.Float64, "same_reasoning": pl.Float64, "truncated": pl.Int64,
    "stated_instead": pl.Int64, "ece": pl.Float64,
    **{f"{name}_{what}": pl.Float64 for name in MEASURES for what in (*_STATISTICS, "seed_sd")},
    **{f"{name}_gap_{what}": pl.Float64 for name in COMPARED for what in (*_GAP, "p_holm")},
    **{f"paper_{name}": pl.Float64 for name in COMPARED},
    "resamples": pl.Int64, "interval_resamples": pl.Int64, "redrawn": pl.Int64}


def results(verdicts: pl.DataFrame, bootstraps: int, seed: int, reference: str = REFERENCE,
            patients: Mapping[str, str] | None = None, paper: Figures | None = None,
            interval_bootstraps: int = 1000, retrained: Sequence[pl.DataFrame] = ()) -> pl.DataFrame:
    """Measures every arm, with each reading of its risk, on the same resamples.

    Of an arm that was trained with several seeds the row holds means over its trainings; mean and standard deviation
    are over resamples of patients, intervals and differences over resamples of trainings and patients (see `seeds`).

    Args:
        verdicts: contract VERDICTS and the columns `verdicts.EXTRAS`; every arm judged the same stays.
        bootstraps: resamples of mean and standard deviation, as in the paper.
        seed: of the resamples.
        reference: arm that the others are compared with, each reading with the same reading; an arm without language
            is compared with the reference's stated number. If it is not among the arms there are no differences.
        patients: stay to patient, where a patient may have several stays.
        paper: figures of the paper, beside.
        interval_bootstraps: resamples of intervals, differences and p-values; the first of them are those above.
        retrained: verdicts of further trainings, one frame for each seed, with those of the arms that are trained.

    Returns:
        Rows in order of the arms' appearance, columns `SCHEMA`: shares, not percent; `seeds` counts the trainings,
        `seed_sd` is the spread over them (none for one); `stated_instead` counts answers of all trainings whose tokens
        did not tell the risk, so that the stated number stands in, `truncated` likewise; `same_reasoning` is the share
        of answers with the commonest reasoning (`variety`), mean over the trainings; `gap_p_holm` is `gap_p`
        corrected over the arms of the same reading, for each measure (Holm 1979). Where all stays are of one patient
        there are no differences, and intervals are over resamples of stays.

    Raises:
        ContractError: the verdicts break their contract.
        DataError: arms judged other stays or labels, or a class is missing.
    """
    trainings = [verdicts, *retrained]
    every = seeds.all_judged(trainings)
    parts, found = [arms_of(frame) for frame in trainings], every[0]
    drawn = drawn_of(found, max(bootstraps, interval_bootstraps), seed, patients)
    people = statistics.patient_counts(found.labels, members_of(found, patients))
    measured = {key: _measured([one.risks[key] for one in every if key in one.risks], found.labels, drawn, seed)
                for key in found.risks}
    rows = []
    for (arm, reading), values in measured.items():
        other = None if drawn.of_stays else counterpart((arm, reading), measured, reference)
        rows.append({**_counts([part[arm] for part in parts if arm in part], arm, reading), **people,
                     **_spread(values, bootstraps, interval_bootstraps),
                     **_gaps(values, measured[other] if other else None, interval_bootstraps), **_beside(arm, paper),
                     "resamples": bootstraps, "interval_resamples": interval_bootstraps, "redrawn": drawn.redrawn})
    return _corrected(pl.DataFrame(rows, schema=SCHEMA))


def drawn_of(found: Judged, count: int, seed: int, patients: Mapping[str, str] | None) -> statistics.Resamples:
    """The resamples of the judged stays' patients (`statistics.resample_all`): the same for the same seed, whatever is
    measured on them."""
    return statistics.resample_all(found.labels, count, seed, members_of(found, patients))


def members_of(found: Judged, patients: Mapping[str, str] | None) -> list[str] | None:
    """Patient of each judged stay; None: each is a patient of its own."""
    return None if patients is None else [patients[stay] for stay in found.stay_ids]


@dataclass(frozen=True)
class _Measured:
    """One arm under one reading, mean over its trainings: each measure on all stays, its spread over the trainings, on
    each resample of patients, on each resample of trainings and patients; and the calibration error."""

    whole: dict[str, float]
    seed_sd: dict[str, float | None]
    by_patients: dict[str, Floats]
    by_both: dict[str, Floats]
    ece: float


def _measured(trainings: Sequence[Floats], truth: Ints, drawn: statistics.Resamples, seed: int) -> _Measured:
    """Of the risks that each training gave, (n,) each."""
    points = [seeds.measured(truth, risk) for risk in trainings]
    each = {name: np.stack([statistics.measure(name, truth, risk, drawn) for risk in trainings]) for name in MEASURES}
    return _Measured({name: float(np.mean([one[name] for one in points])) for name in MEASURES},
                     {name: seeds.spread([one[name] for one in points]) for name in MEASURES},
                     {name: values.mean(axis=0) for name, values in each.items()},
                     {name: seeds.over_seeds(values, seed) for name, values in each.items()},
                     float(np.mean([ece(truth, risk) for risk in trainings])))


def _counts(parts: Sequence[pl.DataFrame], arm: str, reading: str) -> dict[str, Any]:
    """What the answers of all trainings were like."""
    answers = pl.concat(parts)
    alike = [] if reading == MODEL else [share for share in map(same_reasoning, parts) if share is not None]
    return {"arm": arm, "reading": reading, "n": parts[0].height,
            "positives": int(parts[0]["label"].cast(pl.Int64).sum()), "seeds": len(parts),
            "parse_rate": metrics.parse_rate(answers),
            "well_formed_rate": int(answers["well_formed"].sum()) / answers.height,
            "same_reasoning": sum(alike) / len(alike) if alike else None,
            "truncated": int(answers["truncated"].sum()),
            "stated_instead": int((answers["reading"] == "stated").sum()) if reading == "tokens" else 0}


def _spread(found: _Measured, bootstraps: int, intervals: int) -> dict[str, float | None]:
    """Value, mean and sd over the first `bootstraps` resamples, interval over the first `intervals`, sd over seeds."""
    cells: dict[str, float | None] = {"ece": found.ece}
    for name, point in found.whole.items():
        over = statistics.summary(point, found.by_patients[name][:bootstraps])
        low, high = statistics.interval(found.by_both[name][:intervals])
        cells |= {f"{name}_{what}": value for what, value in
                  zip(_STATISTICS, (point, over.mean, over.sd, low, high), strict=True)}
        cells[f"{name}_seed_sd"] = found.seed_sd[name]
    return cells


def _gaps(found: _Measured, other: _Measured | None, intervals: int) -> dict[str, float | None]:
    if other is None:
        return {f"{name}_gap_{what}": None for name in COMPARED for what in _GAP}
    cells: dict[str, float | None] = {}
    for name in COMPARED:
        gap = statistics.difference(found.whole[name] - other.whole[name], found.by_both[name][:intervals],
                                    other.by_both[name][:intervals])
        cells |= {f"{name}_gap_{what}": getattr(gap, what) for what in _GAP}
    return cells


def _corrected(table: pl.DataFrame) -> pl.DataFrame:
    """Holm's correction over the arms, for each reading and measure."""
    readings = table["reading"].to_list()
    return table.with_columns(
        pl.Series(f"{name}_gap_p_holm", statistics.holm_by(readings, table[f"{name}_gap_p"].to_list()), pl.Float64)
        for name in COMPARED)


def _beside(arm: str, paper: Figures | None) -> dict[str, float | None]:
    found = (paper or {}).get(arm)
    return {"paper_auroc": found[0] if found else None, "paper_auprc": found[1] if found else None}


def headers(table: pl.DataFrame) -> list[str]:
    """Column heads of `cells`."""
    return [*HEADERS, "Paper AUROC / AUPRC"] if _has_paper(table) else list(HEADERS)


def cells(table: pl.DataFrame) -> list[list[str]]:
    """The table as text, AUROC and AUPRC in percent: "value on all stays [95 % interval] (mean ± sd)"; of several
    trainings "(mean ± sd; seeds ± sd over them)"."""
    rows = []
    for row in table.iter_rows(named=True):
        texts = [row["arm"], row["reading"], str(row["n"]), str(row["seeds"]),
                 "–" if row["reading"] == "model" else f"{100 * row['parse_rate']:.0f} %",
                 _percent(row, "auroc"), _percent(row, "auprc"),
                 f"{row['brier_point']:.3f} [{row['brier_low']:.3f}, {row['brier_high']:.3f}] "
                 f"({row['brier_mean']:.3f} ± {row['brier_sd']:.3f}{_over_seeds(row['brier_seed_sd'], '.3f')})",
                 wording.tested(row, "auroc_gap"), wording.tested(row, "auprc_gap")]
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
    mean, sd, over = (row[f"{name}_{what}"] for what in ("mean", "sd", "seed_sd"))
    spread = _over_seeds(None if over is None else 100 * over, ".1f")
    return f"{wording.percent(row, name)} ({100 * mean:.1f} ± {100 * sd:.1f}{spread})"


def _over_seeds(spread: float | None, form: str) -> str:
    """Spread over several trainings, as the rest of a cell's bracket."""
    return "" if spread is None else f"; seeds ± {spread:{form}}"
