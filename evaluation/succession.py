"""A study and the one before it, judged on the test stays that both have, and whether its model replaces the champion.

In go verdicts of two studies, out come one row for each arm, reading and measure, with the difference new - old and its
95 % interval, paired on the same bootstrap resamples of patients (`statistics`). A pinned split keeps patients where
they are, so that the common test stays are new to both models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from configs.schema import Champion
from contracts.errors import DataError
from evaluation import statistics, tables
from evaluation.baselines import EXPERT
from evaluation.metrics import Ints
from evaluation.risks import MODEL, STATED, Judged, Key, judged

MEASURES = ("auroc", "auprc", "brier")
SCHEMA: dict[str, Any] = {"arm": pl.String, "reading": pl.String, "measure": pl.String, "stays": pl.Int64,
                          "positives": pl.Int64, "old": pl.Float64, "new": pl.Float64, "difference": pl.Float64,
                          "low": pl.Float64, "high": pl.Float64, "p": pl.Float64}


@dataclass(frozen=True)
class Verdict:
    """Whether the new model is the champion from now on, and why."""

    replaced: bool
    reason: str


def compare(old: pl.DataFrame, new: pl.DataFrame, patients: Mapping[str, str], count: int, seed: int) -> pl.DataFrame:
    """Compares two studies on common test stays whose label is the same in both.

    Args:
        old, new: verdicts of all arms of each study.
        patients: patient of each stay of the new study.
        count: bootstrap resamples.

    Returns:
        Columns of SCHEMA; no row where fewer than one common stay of each label, or one patient alone, is left.

    Raises:
        ContractError, DataError: verdicts that `risks.judged` refuses.
    """
    before, now = judged(old), judged(new)
    places = _common(before, now, patients)
    labels = now.labels[places[1]]
    people = [patients[now.stay_ids[place]] for place in places[1]]
    if not 0 < labels.sum() < labels.size or len(set(people)) < 2:
        return pl.DataFrame(schema=SCHEMA)
    drawn = statistics.resample(labels, count, seed, people)
    whole = statistics.Resamples(np.ones((1, labels.size), dtype=np.int32), 0)
    rows = []
    for key in (key for key in now.risks if key in before.risks):
        pair = before.risks[key][places[0]], now.risks[key][places[1]]
        for name in MEASURES:
            was, is_now = (float(statistics.measure(name, labels, risk, whole)[0]) for risk in pair)
            gap = statistics.difference(is_now - was, statistics.measure(name, labels, pair[1], drawn),
                                        statistics.measure(name, labels, pair[0], drawn))
            rows.append((*key, name, labels.size, int(labels.sum()), was, is_now, gap.point, gap.low, gap.high, gap.p))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def judging_key(verdicts: pl.DataFrame) -> Key:
    """The arm and reading that decide: the method's stated risk, or the expert's where no policy was judged."""
    arm = tables.main_arm(verdicts)
    return (arm, STATED) if arm is not None else (EXPERT, MODEL)


def crown(rows: pl.DataFrame, key: Key, section: Champion) -> Verdict:
    """The rule: the new model replaces the champion if it ranks at all and is not worse by the margin or more.

    Args:
        rows: of `compare`, the champion's study as the old one.
        key: arm and reading that decide.
    """
    fits = rows.filter(pl.concat_list("arm", "reading", "measure") == [*key, section.measure])
    if not fits.height:
        return Verdict(False, f"kept: {key[0]} was not judged on common test stays of both labels, of two patients "
                              "at least, in both studies")
    row = fits.row(0, named=True)
    fewest = min(row["positives"], row["stays"] - row["positives"])
    if fewest < section.least:
        return Verdict(False, f"kept: {fewest} common test stays of the rarer label; at least {section.least} are "
                              "needed to tell")
    found = (f"{section.measure.upper()} of {key[0]} {row['old']:.3f} -> {row['new']:.3f}, difference "
             f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]")
    chance = 0.5 if section.measure == "auroc" else row["positives"] / row["stays"]
    if row["new"] <= chance + 1e-9:
        return Verdict(False, f"kept: {found}; the new model ranks no better than chance ({chance:.3f})")
    if row["low"] > -section.margin:
        return Verdict(True, f"replaced: {found}; the lower end is above -{section.margin:g}")
    return Verdict(False, f"kept: {found}; the lower end is not above -{section.margin:g}")


def rule(section: Champion) -> str:
    """The rule in one sentence."""
    return (f"The new model replaces the champion if, on the test stays that both studies judged, the lower end of the "
            f"95 % interval of the difference in {section.measure.upper()} (new - old, paired by patient) is above "
            f"-{section.margin:g}, with at least {section.least} stays of each label, and it ranks better than chance; "
            "else the champion stays. Where there is no champion yet, the first study's model becomes it.")


def _common(before: Judged, now: Judged, patients: Mapping[str, str]) -> tuple[Ints, Ints]:
    """Places of the common stays with one label, in the old and in the new order.

    Raises:
        DataError: a stay has no patient.
    """
    places = {stay: place for place, stay in enumerate(before.stay_ids)}
    pairs = [(places[stay], place) for place, stay in enumerate(now.stay_ids)
             if stay in places and before.labels[places[stay]] == now.labels[place]]
    strangers = [now.stay_ids[place] for _, place in pairs if now.stay_ids[place] not in patients]
    if strangers:
        raise DataError(f"{len(strangers)} judged stays stand in no cohort", "verdicts and cohort are of one study",
                        "run the study again")
    columns = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    return columns[:, 0], columns[:, 1]
