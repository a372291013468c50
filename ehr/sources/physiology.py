"""Numbers behind the generated stays: baselines of the features, and the processes that make a patient worse.

In: latent draws of `ehr.sources.synthetic`. Out: plausible values in the units of catalogue mimic_iv. The numbers are
rounded textbook values of adult intensive care, chosen so that one unit of severity moves a sign by one to three of its
standard deviations between patients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

CAPILLARY = "Capillary refill rate"
COMA_EYE, COMA_MOTOR = "Glasgow coma scale eye opening", "Glasgow coma scale motor response"
COMA_TOTAL, COMA_VERBAL = "Glasgow coma scale total", "Glasgow coma scale verbal response"
DIASTOLIC, SYSTOLIC, MEAN = "Diastolic blood pressure", "Systolic blood pressure", "Mean blood pressure"
OXYGEN, SATURATION, BREATHS = "Fraction inspired oxygen", "Oxygen saturation", "Respiratory rate"
GLUCOSE, HEART, TEMPERATURE, ACIDITY = "Glucose", "Heart Rate", "Temperature", "pH"
HEIGHT, WEIGHT = "Height", "Weight"


@dataclass(frozen=True)
class Baseline:
    """A sign in a stable patient.

    Attributes:
        mean: in the unit of the catalogue.
        between: standard deviation between patients.
        within: standard deviation from day to day.
        low, high: limits of generated values.
        digits: decimals of the measurement.
        arousal: effect of one unit of the patient's general tension, which correlates the vital signs.
        male: added for men.
        per_decade: added for each ten years of age above 65.
    """

    mean: float
    between: float
    within: float
    low: float
    high: float
    digits: int = 0
    arousal: float = 0.0
    male: float = 0.0
    per_decade: float = 0.0


@dataclass(frozen=True)
class Process:
    """A way to deteriorate: how far it moves each sign on the last day, and how much each sign adds to the score.

    Attributes:
        shifts: sign to its shift per unit of severity; capillary refill and coma score are latent (see BASELINES).
        weights: sign to its weight in the score; they sum to 1.
    """

    name: str
    shifts: Mapping[str, float]
    weights: Mapping[str, float]


# Capillary refill is latent (slow above CAPILLARY_SLOW); the total coma score here is the points lost of 15.
BASELINES: Mapping[str, Baseline] = {
    CAPILLARY: Baseline(0.0, 0.5, 0.4, -9.0, 9.0, 3),
    COMA_TOTAL: Baseline(0.6, 0.8, 0.5, 0.0, 12.0, 3),
    DIASTOLIC: Baseline(64.0, 6.0, 4.0, 25.0, 140.0, arousal=2.0, per_decade=-1.0),
    OXYGEN: Baseline(29.0, 4.0, 3.0, 21.0, 100.0),
    GLUCOSE: Baseline(128.0, 18.0, 14.0, 35.0, 900.0),
    HEART: Baseline(82.0, 7.0, 5.0, 30.0, 210.0, arousal=4.0),
    HEIGHT: Baseline(162.0, 7.0, 0.0, 130.0, 210.0, male=14.0, per_decade=-0.6),
    SATURATION: Baseline(97.2, 0.9, 0.8, 55.0, 100.0),
    BREATHS: Baseline(17.5, 1.8, 1.4, 5.0, 60.0, arousal=0.8),
    SYSTOLIC: Baseline(122.0, 9.0, 6.0, 45.0, 230.0, arousal=4.0, per_decade=2.0),
    TEMPERATURE: Baseline(36.9, 0.22, 0.2, 31.0, 42.5, 1),
    WEIGHT: Baseline(70.0, 13.0, 0.5, 35.0, 220.0, 1, male=13.0),
    ACIDITY: Baseline(7.40, 0.025, 0.02, 6.7, 7.8, 2)}
CAPILLARY_SLOW = 1.3
MEAN_ERROR = 1.5
AGE_WEIGHT, AGE_CENTRE, AGE_SCALE = 0.35, 65.0, 15.0

PROCESSES: tuple[Process, ...] = (
    Process("shock", {SYSTOLIC: -18.0, DIASTOLIC: -12.0, HEART: 10.0, CAPILLARY: 0.9},
            {MEAN: 0.45, SYSTOLIC: 0.25, DIASTOLIC: 0.1, HEART: 0.1, CAPILLARY: 0.1}),
    Process("coma", {COMA_TOTAL: 3.2}, {COMA_TOTAL: 0.5, COMA_MOTOR: 0.2, COMA_EYE: 0.15, COMA_VERBAL: 0.15}),
    Process("respiratory failure", {SATURATION: -3.6, OXYGEN: 15.0, BREATHS: 4.5},
            {SATURATION: 0.45, OXYGEN: 0.3, BREATHS: 0.25}),
    Process("infection", {TEMPERATURE: 0.9, HEART: 14.0, BREATHS: 3.0}, {TEMPERATURE: 0.5, HEART: 0.3, BREATHS: 0.2}),
    Process("acidosis", {ACIDITY: -0.09, BREATHS: 4.0, HEART: 5.0}, {ACIDITY: 0.65, BREATHS: 0.2, HEART: 0.15}),
    Process("hyperglycaemia", {GLUCOSE: 85.0, ACIDITY: -0.03}, {GLUCOSE: 0.8, ACIDITY: 0.2}))


def measured_signs(latent: Mapping[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Turns latent signs into what a chart holds: rounds, and derives the signs that depend on others.

    Args:
        latent: each sign of BASELINES, (R,) values of R stay-days.
        rng: for the reading error of the mean pressure.

    Returns:
        the 17 features, (R,) each.
    """
    signs = {name: np.round(np.clip(values, BASELINES[name].low, BASELINES[name].high), BASELINES[name].digits)
             for name, values in latent.items()}
    # A cuff never reads less than 10 mmHg between the two pressures.
    signs[DIASTOLIC] = np.minimum(signs[DIASTOLIC], signs[SYSTOLIC] - 10.0)
    pulse = signs[SYSTOLIC] - signs[DIASTOLIC]
    signs[MEAN] = np.round(signs[DIASTOLIC] + pulse / 3.0 + rng.normal(0.0, MEAN_ERROR, pulse.shape))
    signs[CAPILLARY] = (latent[CAPILLARY] > CAPILLARY_SLOW).astype(np.float64)
    return {**signs, **_coma_scale(signs[COMA_TOTAL])}


def _coma_scale(lost: np.ndarray) -> dict[str, np.ndarray]:
    """Glasgow coma scale from the points lost of 15 (0 to 12), spread over its parts in proportion to their range."""
    eye = 4.0 - np.round(lost * 3 / 12)
    verbal = 5.0 - np.round(lost * 4 / 12)
    motor = 6.0 - np.round(lost * 5 / 12)
    return {COMA_EYE: eye, COMA_MOTOR: motor, COMA_VERBAL: verbal, COMA_TOTAL: eye + verbal + motor}
