"""The embedded cohort: generated stays with the 17 MIMIC-IV features and a planted hazard.

In: a `configs.schema.Synthetic` and a seed. Out: a `Source` with `truth`. No real patient stands behind any of it.

How risk is planted. A stay has two of six processes (`physiology.PROCESSES`: shock, coma, ...), each with a severity
s >= 0 that mixes the stay's illness with chance of its own. A process moves its signs over the stay, from a quarter on
the first day to s times their full shift on the last one, so it shows as a trend and in the last values. Each of its
signs adds weight * s to the score, and age adds its own:

    score = sum over processes and their signs (weight * s) + AGE_WEIGHT * (age - 65) / 15
    P(y = 1) = sigmoid(strength * score / sd(score) + b)

with b such that the mean of P is the mortality asked for. `truth` holds the parts of strength * score / sd(score) of
each stay, largest first: what an expert should attend to. A negative effect (young age) protects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from configs.schema import Synthetic
from contracts.features import catalogue
from ehr.attrition import Step
from ehr.sources.hazard import intercept, planted_truth, score_parts, severities, sigmoid
from ehr.sources.physiology import AGE_CENTRE, AGE_SCALE, BASELINES, PROCESSES, measured_signs
from ehr.sources.source import Source, checked, opaque_ids

LONGEST = 12
_EPOCH = np.datetime64("2150-01-01T00:00:00", "s")
_FIRST_COURSE = 0.25


@dataclass(frozen=True)
class _Stays:
    """N stays: vectors (N,), and severities (N, P), 0 where a process is absent."""

    ids: pl.Series
    patients: pl.Series
    days: np.ndarray
    first_day: np.ndarray
    age: np.ndarray
    male: np.ndarray
    severity: np.ndarray


@dataclass(frozen=True)
class _Rows:
    """R stay-days: stay index, time of the measurements, and how far the processes have come (0 to 1)."""

    stay: np.ndarray
    time: np.ndarray
    course: np.ndarray


def generate(section: Synthetic, seed: int) -> Source:
    """Generates the cohort; the same section and seed give the same source.

    Raises:
        DataError: by chance all stays bear the same label (few stays, extreme mortality).
    """
    features = catalogue("mimic_iv")
    rng = np.random.default_rng([seed, section.stays])
    stays = _draw_stays(section.stays, seed, rng)
    effects = _effects(stays, section.strength, features.tokens)
    logit = effects.sum(axis=1)
    label = rng.random(section.stays) < sigmoid(logit + intercept(logit, section.mortality))
    rows = _draw_rows(stays, rng)
    events = _events(stays, rows, section.missing, rng)
    records = pl.DataFrame({"stay_id": stays.ids.gather(rows.stay), "time": rows.time.astype("datetime64[us]")})
    cells = rows.stay.size * len(features.names)
    return checked(Source(
        name="synthetic", catalogue="mimic_iv", stays=_stay_frame(stays, label, rng), records=records, events=events,
        attrition=(Step("stay generated", "stays", section.stays, 0, section.stays),
                   Step("daily measurement left out as missing", "values", cells - events.height, cells - events.height,
                        events.height)),
        truth=planted_truth(stays.ids, effects, features.tokens)), features)


def _draw_stays(count: int, seed: int, rng: np.random.Generator) -> _Stays:
    days = 1 + rng.binomial(LONGEST - 1, rng.beta(1.5, 2.2, count))
    severity = severities(count, rng)
    keys = range(count)
    return _Stays(
        ids=pl.Series("stay_id", opaque_ids(f"synthetic-{seed}-stay", keys)),
        patients=pl.Series("patient_id", opaque_ids(f"synthetic-{seed}-patient", keys)),
        days=days, first_day=_EPOCH + rng.integers(0, 3650, count).astype("timedelta64[D]"),
        age=np.round(np.clip(rng.normal(AGE_CENTRE, AGE_SCALE, count), 18, 95)), male=rng.random(count) < 0.56,
        severity=severity)


def _effects(stays: _Stays, strength: float, tokens: tuple[str, ...]) -> np.ndarray:
    """Parts of strength * score / sd(score): (N, F+1), the static token last."""
    parts = score_parts(stays.age, stays.severity, tokens)
    return parts * (strength / parts.sum(axis=1).std())


def _draw_rows(stays: _Stays, rng: np.random.Generator) -> _Rows:
    stay = np.repeat(np.arange(stays.days.size), stays.days)
    day = np.arange(stay.size) - np.repeat(stays.days.cumsum() - stays.days, stays.days)
    last = np.maximum(stays.days[stay] - 1, 1)
    course = np.where(stays.days[stay] == 1, 1.0, _FIRST_COURSE + (1 - _FIRST_COURSE) * day / last)
    minutes = rng.integers(7 * 60, 20 * 60, stay.size).astype("timedelta64[m]")
    return _Rows(stay=stay, time=stays.first_day[stay] + day.astype("timedelta64[D]") + minutes, course=course)


def _signs(stays: _Stays, rows: _Rows, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The 17 features, (R,) each."""
    count = stays.age.size
    tension, decades = rng.normal(size=count), (stays.age - AGE_CENTRE) / 10
    latent = {}
    for name, base in BASELINES.items():
        usual = (base.mean + base.between * rng.normal(size=count) + base.arousal * tension + base.male * stays.male
                 + base.per_decade * decades)
        shift = stays.severity @ np.array([process.shifts.get(name, 0.0) for process in PROCESSES])
        latent[name] = usual[rows.stay] + shift[rows.stay] * rows.course + base.within * rng.normal(size=rows.stay.size)
    return measured_signs(latent, rng)


def _events(stays: _Stays, rows: _Rows, missing: float, rng: np.random.Generator) -> pl.DataFrame:
    signs = _signs(stays, rows, rng)
    names = catalogue("mimic_iv").names
    columns = {name: np.where(rng.random(rows.stay.size) < missing, np.nan, signs[name]) for name in names}
    wide = pl.DataFrame({"stay_id": stays.ids.gather(rows.stay), "time": rows.time.astype("datetime64[us]"), **columns})
    long = wide.unpivot(on=list(names), index=["stay_id", "time"], variable_name="feature", value_name="value")
    return long.filter(pl.col("value").is_not_nan())


def _stay_frame(stays: _Stays, label: np.ndarray, rng: np.random.Generator) -> pl.DataFrame:
    before = rng.integers(0, 7 * 60, label.size).astype("timedelta64[m]")
    after = rng.integers(20 * 60, 24 * 60, label.size).astype("timedelta64[m]")
    last_day = stays.first_day + (stays.days - 1).astype("timedelta64[D]")
    return pl.DataFrame({
        "stay_id": stays.ids, "patient_id": stays.patients, "age": stays.age,
        "sex": pl.Series(np.where(stays.male, "male", "female")),
        "admitted_at": (stays.first_day + before).astype("datetime64[us]"),
        "discharged_at": (last_day + after).astype("datetime64[us]"), "label": label.astype(np.int8)}).sort("stay_id")
