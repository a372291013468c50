"""A generated cohort in which nothing stands out: several stays a patient, records that end well before the discharge.

The label leans on the heart rate alone; identifiers are opaque; some measurements are missing, none always or never.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
import polars as pl

from configs.schema import Cohort as Section
from contracts.features import Feature, catalogue
from contracts.frames import feature_columns
from ehr.cohort import Cohort, prepare
from ehr.scale import fit
from ehr.sources.source import Source, checked, opaque_ids

SECTION = Section()
_START = datetime(2150, 1, 1)


@cache
def clean_source(patients: int = 160, seed: int = 3) -> Source:
    """Stays of `patients` patients, one or two each."""
    rng = np.random.default_rng(seed)
    features = catalogue("mimic_iv")
    stays, events = [], []
    for patient in range(patients):
        age, sex = float(rng.integers(30, 90)), str(rng.choice(["female", "male"]))
        for visit in range(int(rng.integers(1, 3))):
            stay = f"{patient}-{visit}"
            label = int(rng.random() < 0.35)
            admitted = _START + timedelta(days=400 * visit + int(rng.integers(0, 300)), hours=7)
            times = [admitted + timedelta(days=day, hours=1) for day in range(int(rng.integers(2, 11)))]
            gone = times[-1] + timedelta(hours=int(rng.integers(30, 60)))
            stays.append((stay, patient, age, sex, admitted, gone, label))
            events += [(stay, time, item.name, _value(item, label, rng)) for time in times for item in features
                       if rng.random() > 0.3]
    return _source(stays, events)


@cache
def clean_cohort(patients: int = 160, seed: int = 3) -> Cohort:
    """The cohort of `clean_source`."""
    return prepare(clean_source(patients, seed), SECTION, seed)


def of_stays(cohort: Cohort, *columns: pl.Expr) -> Cohort:
    """With other stays, and scaling that fits them."""
    stays = cohort.stays.with_columns(*columns)
    scaling = fit(cohort.filled, stays, feature_columns(cohort.filled), cohort.meta["clip_sd"])
    return replace(cohort, stays=stays, scaling=scaling)


def of_visits(cohort: Cohort, *columns: pl.Expr) -> Cohort:
    """With other visits, filled the same, and scaling that fits them."""
    visits, filled = cohort.visits.with_columns(*columns), cohort.filled.with_columns(*columns)
    scaling = fit(filled, cohort.stays, feature_columns(filled), cohort.meta["clip_sd"])
    return replace(cohort, visits=visits, filled=filled, scaling=scaling)


def of_meta(cohort: Cohort, **entries: Any) -> Cohort:
    """With other entries of `meta`."""
    return replace(cohort, meta={**cohort.meta, **entries})


def _value(item: Feature, label: int, rng: np.random.Generator) -> float:
    width = (item.high - item.low) / 12
    lean = 0.8 * label if item.name == "Heart Rate" else 0.0
    value = float(np.clip((item.low + item.high) / 2 + width * (rng.normal() + lean), item.low, item.high))
    return float(rng.integers(int(item.low), int(item.high) + 1)) if item.kind == "ordinal" else value


def _source(stays: list[tuple[object, ...]], events: list[tuple[str, datetime, str, float]]) -> Source:
    time = pl.Datetime("us")
    frame = pl.DataFrame(stays, orient="row", schema={
        "stay_id": pl.String, "patient_id": pl.Int64, "age": pl.Float64, "sex": pl.String, "admitted_at": time,
        "discharged_at": time, "label": pl.Int8})
    rows = pl.DataFrame(events, orient="row", schema={"stay_id": pl.String, "time": time, "feature": pl.String,
                                                      "value": pl.Float64})
    hidden = dict(zip(frame["stay_id"], opaque_ids("clean-stay", frame["stay_id"]), strict=True))
    rows = rows.with_columns(pl.col("stay_id").replace_strict(hidden)).sort("stay_id", "time", "feature")
    frame = frame.with_columns(pl.col("stay_id").replace_strict(hidden),
                               pl.Series("patient_id", opaque_ids("clean-patient", frame["patient_id"])))
    return checked(Source(name="clean", catalogue="mimic_iv", stays=frame.sort("stay_id"), events=rows, attrition=(),
                          records=rows.select("stay_id", "time").unique().sort("stay_id", "time")),
                   catalogue("mimic_iv"))
