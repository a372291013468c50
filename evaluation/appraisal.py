"""The appraisal: what a clinical journal asks for beyond the main table, as frames that hold no patient.

In go verdicts, the main table, age and sex of the stays, and settings; out come differences, calibration, decision
curves, subgroups and power, each a frame that is written as CSV and drawn or printed by the report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import polars as pl

from configs.schema import Evaluation
from evaluation import calibration, decision, metrics, power, recalibration, statistics, tables
from evaluation.metrics import Floats, Ints
from evaluation.risks import REFERENCE, Judged, Key, counterpart, judged
from evaluation.statistics import Resamples
from evaluation.subgroups import Hide, covered, subgroups

Validation = Mapping[Key, tuple[np.ndarray, np.ndarray]]  # (arm, reading) -> labels (m,), risks (m,)
STRATEGIES: tuple[calibration.Strategy, ...] = ("uniform", "quantile")
_KEY: dict[str, Any] = {"arm": pl.String, "reading": pl.String}
DIFFERENCES: dict[str, Any] = {**_KEY, "measure": pl.String, "reference": pl.String, "difference": pl.Float64,
                               "low": pl.Float64, "high": pl.Float64, "p": pl.Float64, "p_holm": pl.Float64}
CALIBRATION: dict[str, Any] = {
    **_KEY, "recalibration": pl.String, "validation_stays": pl.Int64, "mean_risk": pl.Float64, "observed": pl.Float64,
    "brier": pl.Float64, "ece_uniform": pl.Float64, "ece_quantile": pl.Float64,
    **{f"{name}{end}": pl.Float64 for name in ("intercept", "slope") for end in ("", "_low", "_high")}}
RELIABILITY: dict[str, Any] = {**_KEY, "bins": pl.String, **calibration.SCHEMA}
DECISION: dict[str, Any] = {**_KEY, "threshold": pl.Float64, "net_benefit": pl.Float64, "low": pl.Float64,
                            "high": pl.Float64}
POWER: dict[str, Any] = {**_KEY, "reference": pl.String, "sd_of_difference": pl.Float64,
                         "smallest_difference": pl.Float64}
TREAT_ALL, TREAT_NONE = "treat all", "treat none"


@dataclass(frozen=True)
class Appraisal:
    """Frames of the report beyond its main table; shares, not percent.

    Attributes:
        differences: to the reference, one row for each arm, reading and measure (`DIFFERENCES`).
        calibration: one row for each arm, reading and recalibration (`CALIBRATION`).
        reliability: points of the reliability curves (`RELIABILITY`), without bins of few patients, or of few with one
            outcome, and what gives them away.
        decision: net benefit at each threshold (`DECISION`), also of treating all and none; nothing in it is hidden.
        subgroups: as `subgroups.subgroups` gives them, small cells hidden.
        power: smallest difference in AUROC that this test split shows, for each arm against the reference (`POWER`).
    """

    differences: pl.DataFrame
    calibration: pl.DataFrame
    reliability: pl.DataFrame
    decision: pl.DataFrame
    subgroups: pl.DataFrame
    power: pl.DataFrame

    def frames(self) -> dict[str, pl.DataFrame]:
        """File name without ending, and frame."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


def appraise(verdicts: pl.DataFrame, table: pl.DataFrame, stays: pl.DataFrame, section: Evaluation, seed: int,
             smallest: int, hide: Hide, validation: Validation | None = None, reference: str = REFERENCE) -> Appraisal:
    """All further tables.

    Args:
        verdicts: of all arms on the same test stays.
        table: of `tables.results` on the same verdicts.
        stays: stay_id, patient_id, age [years] and sex of the test stays at least.
        section: interval_bootstraps.
        seed: of the resamples; the one of the main table.
        smallest: smallest count of patients that is shown.
        hide: which cells of a table of counts to hide (`ehr.small_cells.hidden`).
        validation: labels and risks of validation stays of some arms; these are recalibrated too.
        reference: arm of the paired differences.

    Raises:
        ContractError, DataError: as `tables.results` and `subgroups.subgroups` do.
    """
    found = judged(verdicts)
    patients = dict(stays.select("stay_id", "patient_id").iter_rows())
    drawn = tables.drawn_of(found, section.interval_bootstraps, seed, patients)
    return Appraisal(
        differences=_differences(table, reference), calibration=_calibration(found, drawn, validation or {}),
        reliability=_reliability(found, patients, smallest, hide), decision=_decision(found, drawn),
        subgroups=subgroups(found, stays, section.interval_bootstraps, seed, smallest, hide),
        power=_power(found, drawn, reference))


def _differences(table: pl.DataFrame, reference: str) -> pl.DataFrame:
    """The differences of the main table, one a row."""
    names = {"point": "difference", "low": "low", "high": "high", "p": "p", "p_holm": "p_holm"}
    keys = list(table.select("arm", "reading").iter_rows())
    rows = [{"arm": row["arm"], "reading": row["reading"], "measure": measure,
             "reference": (counterpart((row["arm"], row["reading"]), keys, reference) or (reference,))[0],
             **{column: row[f"{measure}_gap_{what}"] for what, column in names.items()}}
            for measure in tables.COMPARED for row in table.iter_rows(named=True)
            if row[f"{measure}_gap_point"] is not None]
    return pl.DataFrame(rows, schema=DIFFERENCES)


def _calibration(found: Judged, drawn: Resamples, validation: Validation) -> pl.DataFrame:
    rows = []
    for key, risks in found.risks.items():
        rows.append({**_calibrated(found, key, risks, drawn), "recalibration": "none"})
        labels, known = validation.get(key, (np.zeros(0), np.zeros(0)))
        if len(np.unique(labels)) < 2:
            continue
        rows += [{**_calibrated(found, key, fit(labels, known)(risks), drawn), "recalibration": name,
                  "validation_stays": len(labels)} for name, fit in recalibration.METHODS.items()]
    return pl.DataFrame(rows, schema=CALIBRATION)


def _calibrated(found: Judged, key: Key, risks: Floats, drawn: Resamples) -> dict[str, Any]:
    row: dict[str, Any] = {"arm": key[0], "reading": key[1], "mean_risk": float(risks.mean()),
                           "observed": float(found.labels.mean()), "brier": metrics.brier(found.labels, risks),
                           **{f"ece_{strategy}": calibration.ece(found.labels, risks, strategy)
                              for strategy in STRATEGIES}}
    for name in ("intercept", "slope"):
        values = calibration.with_interval(name, found.labels, risks, drawn)
        row |= dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
    return row


def _reliability(found: Judged, patients: Mapping[str, str], smallest: int, hide: Hide) -> pl.DataFrame:
    """Points of the reliability curve of every arm, with both kinds of bins."""
    who = np.array([patients[stay] for stay in found.stay_ids])
    return pl.concat([
        _shown(found.labels, risks, who, strategy, smallest, hide).select(
            pl.lit(arm).alias("arm"), pl.lit(reading).alias("reading"), pl.lit(strategy).alias("bins"), pl.all())
        for (arm, reading), risks in found.risks.items() for strategy in STRATEGIES])


def _shown(labels: Ints, risks: Floats, who: np.ndarray, strategy: calibration.Strategy, smallest: int, hide: Hide
           ) -> pl.DataFrame:
    """A curve without bins of which a count must be hidden, as in `subgroups`: its size and its share of outcome 1 tell
    how many had either outcome."""
    curve, place = calibration.reliability(labels, risks, strategy), calibration.bin_of(risks, strategy)
    masks = [place == number for number in curve["bin"]]
    return curve.filter(np.asarray(~covered(labels, who, masks, smallest, hide).any(axis=1)))


def _decision(found: Judged, drawn: Resamples) -> pl.DataFrame:
    """Net benefit of every arm with its interval, of treating all, and of treating none."""
    parts = [_curve(key, decision.net_benefit(found.labels, risks),
                    statistics.on_each(decision.net_benefits, found.labels, risks, drawn))
             for key, risks in found.risks.items()]
    everyone, nobody = np.ones(found.labels.size), np.full(decision.THRESHOLDS.size, decision.TREAT_NONE)
    parts.append(_curve((TREAT_ALL, "–"), decision.treat_all(found.labels),
                        statistics.on_each(decision.net_benefits, found.labels, everyone, drawn)))
    parts.append(_curve((TREAT_NONE, "–"), nobody, np.tile(nobody, (2, 1))))
    return pl.concat(parts)


def _curve(key: Key, points: Floats, values: Floats) -> pl.DataFrame:
    low, high = np.quantile(values, [(1 - statistics.LEVEL) / 2, (1 + statistics.LEVEL) / 2], axis=0)
    return pl.DataFrame({"threshold": decision.THRESHOLDS, "net_benefit": points, "low": low, "high": high}
                        ).with_columns(arm=pl.lit(key[0]), reading=pl.lit(key[1])).select(
        pl.col(name).cast(dtype) for name, dtype in DECISION.items())


def _power(found: Judged, drawn: Resamples, reference: str) -> pl.DataFrame:
    """For each arm with a counterpart: the spread of its paired difference in AUROC, and what it would show; no row
    where all stays are of one patient."""
    values = {key: statistics.measure("auroc", found.labels, risks, drawn) for key, risks in found.risks.items()}
    rows = []
    for key, found_values in values.items():
        other = counterpart(key, values, reference)
        if other is None or drawn.of_stays:
            continue
        gaps = found_values - values[other]
        rows.append({"arm": key[0], "reading": key[1], "reference": other[0],
                     "sd_of_difference": float(gaps.std(ddof=1)),
                     "smallest_difference": power.smallest_difference(gaps)})
    return pl.DataFrame(rows, schema=POWER)
