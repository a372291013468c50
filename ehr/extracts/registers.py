"""Registers: patients, admissions, transfers, ICU stays and diagnoses as rows of their tables.

In: a `People` and the block's generator. Out: a frame for each table, with all columns of the newest layout. Codes and
titles of diagnoses, care units and the like are those of the open MIMIC-IV demo 2.2.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from ehr.extracts.layouts import Layout
from ehr.extracts.people import DAY, HOUR, MINUTE, Numbers, People

_UNITS = ("Medical Intensive Care Unit (MICU)", "Surgical Intensive Care Unit (SICU)",
          "Cardiac Vascular Intensive Care Unit (CVICU)", "Medical/Surgical Intensive Care Unit (MICU/SICU)",
          "Trauma SICU (TSICU)", "Coronary Care Unit (CCU)", "Neuro Surgical Intensive Care Unit (Neuro SICU)")
_WARDS = ("Medicine", "Neurology", "Med/Surg", "Cardiac Surgery", "Transplant", "Medicine/Cardiology", "Vascular")
_TYPES = ("EW EMER.", "OBSERVATION ADMIT", "URGENT", "EU OBSERVATION", "SURGICAL SAME DAY ADMISSION", "DIRECT EMER.",
          "ELECTIVE")
_FROM = ("EMERGENCY ROOM", "PHYSICIAN REFERRAL", "TRANSFER FROM HOSPITAL", "CLINIC REFERRAL", "WALK-IN/SELF REFERRAL",
         "TRANSFER FROM SKILLED NURSING FACILITY")
_TO = ("HOME HEALTH CARE", "HOME", "SKILLED NURSING FACILITY", "REHAB", "CHRONIC/LONG TERM ACUTE CARE", None)
_DIED = "DIED"
_INSURANCE = ("Other", "Medicare", "Medicaid")
_LANGUAGES = {"2": ("ENGLISH", "?"), "3": ("English", "Spanish", "Portuguese")}
_MARITAL = ("SINGLE", "MARRIED", "WIDOWED", "DIVORCED", None)
_RACES = ("WHITE", "BLACK/AFRICAN AMERICAN", "UNKNOWN", "HISPANIC/LATINO - CUBAN", "ASIAN - CHINESE", "OTHER")
_WITH_EMERGENCY = 0.6
_NEVER = -1
DIAGNOSES: tuple[tuple[str, int, str], ...] = (
    ("4019", 9, "Unspecified essential hypertension"), ("2724", 9, "Other and unspecified hyperlipidemia"),
    ("42731", 9, "Atrial fibrillation"), ("V1582", 9, "Personal history of tobacco use"),
    ("311", 9, "Depressive disorder, not elsewhere classified"),
    ("41401", 9, "Coronary atherosclerosis of native coronary artery"),
    ("5849", 9, "Acute kidney failure, unspecified"), ("4280", 9, "Congestive heart failure, unspecified"),
    ("V5867", 9, "Long-term (current) use of insulin"), ("3051", 9, "Tobacco use disorder"),
    ("2859", 9, "Anemia, unspecified"), ("53081", 9, "Esophageal reflux"), ("27800", 9, "Obesity, unspecified"),
    ("5990", 9, "Urinary tract infection, site not specified"),
    ("E785", 10, "Hyperlipidemia, unspecified"), ("E039", 10, "Hypothyroidism, unspecified"),
    ("Z794", 10, "Long term (current) use of insulin"), ("Z87891", 10, "Personal history of nicotine dependence"),
    ("I10", 10, "Essential (primary) hypertension"), ("N179", 10, "Acute kidney failure, unspecified"),
    ("F329", 10, "Major depressive disorder, single episode, unspecified"),
    ("E119", 10, "Type 2 diabetes mellitus without complications"), ("F419", 10, "Anxiety disorder, unspecified"),
    ("I4891", 10, "Unspecified atrial fibrillation"), ("E669", 10, "Obesity, unspecified"),
    ("J449", 10, "Chronic obstructive pulmonary disease, unspecified"), ("D62", 10, "Acute posthemorrhagic anemia"),
    ("G4733", 10, "Obstructive sleep apnea (adult) (pediatric)"))


def registers(people: People, layout: Layout, numbers: Numbers, rng: np.random.Generator) -> dict[str, pl.DataFrame]:
    """All tables of a block but the measurements.

    Args:
        people: the block.
        layout: decides the words of some columns.
        numbers: counters for `transfer_id`; moved on.
        rng: generator of the block.
    """
    units = np.array(_UNITS)[_skewed(len(_UNITS), people.stays.begin.size, rng)]
    emergency = _emergency(people, rng)
    return {"hosp/patients": _patients(people, layout), "hosp/admissions": _admissions(people, layout, emergency, rng),
            "hosp/transfers": _transfers(people, units, emergency, numbers, rng), "icu/icustays": _stays(people, units),
            "hosp/diagnoses_icd": _diagnoses(people, layout, rng)}


def times(seconds: np.ndarray) -> pl.Series:
    """Seconds since 1970 as times; below zero is null."""
    series = pl.from_epoch(pl.Series(seconds)).cast(pl.Datetime("us"))
    return pl.select(pl.when(pl.lit(seconds >= 0)).then(series)).to_series()


def _skewed(choices: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Choices of which the first are the most frequent."""
    return (rng.random(count) ** 2 * choices).astype(np.int64)


def _pick(words: tuple[str | None, ...], count: int, rng: np.random.Generator) -> pl.Series:
    return pl.Series(words, dtype=pl.String).gather(_skewed(len(words), count, rng))


def _provider(count: int, rng: np.random.Generator) -> pl.Series:
    """Codes of orderers, one letter and five characters."""
    return pl.Series([f"P{number:03X}{number % 89 + 10}" for number in range(0x200, 0x400)]).gather(
        rng.integers(0, 0x200, count))


def _patients(people: People, layout: Layout) -> pl.DataFrame:
    who = people.patients
    return pl.DataFrame({
        "subject_id": who.subject, "gender": pl.Series(np.where(who.male, "M", "F")), "anchor_age": who.age,
        "anchor_year": who.year, "anchor_year_group": pl.Series(layout.year_groups).gather(who.year_group),
        "dod": times(who.died).cast(pl.Date)})


def _emergency(people: People, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Second of arrival in the emergency department and of leaving it, (A,) each; _NEVER where nobody went there."""
    begin = people.admissions.begin
    went = rng.random(begin.size) < _WITH_EMERGENCY
    arrival = begin - rng.integers(2 * HOUR, 10 * HOUR, begin.size) // MINUTE * MINUTE
    leaving = begin + rng.integers(0, 10, begin.size) * MINUTE
    return np.where(went, arrival, _NEVER), np.where(went, leaving, _NEVER)


def _admissions(people: People, layout: Layout, emergency: tuple[np.ndarray, np.ndarray],
                rng: np.random.Generator) -> pl.DataFrame:
    which, count = people.admissions, people.admissions.begin.size
    languages = _LANGUAGES[layout.name.removeprefix("mimic-iv-")[0]]
    destination = pl.when(pl.lit(which.died)).then(pl.lit(_DIED)).otherwise(_pick(_TO, count, rng))
    # What a person is does not change from admission to admission.
    own = {name: _pick(words, people.patients.subject.size, rng).gather(which.patient) for name, words in
           (("language", languages), ("marital_status", _MARITAL), ("race", _RACES))}
    return pl.DataFrame({
        "subject_id": people.patients.subject[which.patient], "hadm_id": which.hadm, "admittime": times(which.begin),
        "dischtime": times(which.end), "deathtime": times(np.where(which.died, which.end, _NEVER)),
        "admission_type": _pick(_TYPES, count, rng), "admit_provider_id": _provider(count, rng),
        "admission_location": _pick(_FROM, count, rng),
        "discharge_location": pl.select(destination).to_series(),
        "insurance": _pick(_INSURANCE, count, rng), **own, "edregtime": times(emergency[0]),
        "edouttime": times(emergency[1]), "hospital_expire_flag": which.died.astype(np.int64)})


def _stays(people: People, units: np.ndarray) -> pl.DataFrame:
    stays, admission = people.stays, people.stays.admission
    return pl.DataFrame({
        "subject_id": people.patients.subject[people.admissions.patient[admission]],
        "hadm_id": people.admissions.hadm[admission], "stay_id": stays.stay, "first_careunit": pl.Series(units),
        "last_careunit": pl.Series(units), "intime": times(stays.begin), "outtime": times(stays.end),
        "los": (stays.end - stays.begin) / DAY})


def _transfers(people: People, units: np.ndarray, emergency: tuple[np.ndarray, np.ndarray], numbers: Numbers,
               rng: np.random.Generator) -> pl.DataFrame:
    """Where a patient lay, from the emergency department to the discharge, without gaps."""
    which, stays = people.admissions, people.stays
    every = np.arange(which.begin.size)
    in_stay = _places(stays.admission, stays.begin, stays.end, pl.Series(units), stays.stay)
    # Wards fill what is left between the begin of an admission, its stays and its end.
    edges = pl.concat([in_stay.select("admission", "intime", "outtime"),
                       pl.DataFrame({"admission": every, "intime": which.begin, "outtime": which.begin}),
                       pl.DataFrame({"admission": every, "intime": which.end, "outtime": which.end})])
    gaps = edges.sort("admission", "intime", "outtime").select(
        "admission", pl.col("outtime").shift(1).over("admission").alias("intime"), pl.col("intime").alias("outtime"))
    gaps = gaps.filter(pl.col("outtime") - pl.col("intime") >= 10 * MINUTE)
    in_ward = gaps.with_columns(careunit=_pick(_WARDS, gaps.height, rng))
    arrived = np.flatnonzero(emergency[0] >= 0)
    in_emergency = _places(arrived, emergency[0][arrived], emergency[1][arrived],
                           pl.repeat("Emergency Department", arrived.size, eager=True))
    nowhere = pl.repeat(None, every.size, dtype=pl.String, eager=True)
    gone = _places(every, which.end, np.full(every.size, _NEVER), nowhere)
    rows = pl.concat([in_emergency.with_columns(eventtype=pl.lit("ED")),
                      pl.concat([in_stay, in_ward], how="diagonal").sort("admission", "intime").with_columns(
                          eventtype=pl.when(pl.col("admission").is_first_distinct()).then(pl.lit("admit"))
                          .otherwise(pl.lit("transfer"))),
                      gone.with_columns(eventtype=pl.lit("discharge"))], how="diagonal")
    fresh = rows["transfer_id"].is_null().to_numpy()
    identifiers = rows["transfer_id"].fill_null(0).to_numpy().copy()
    identifiers[fresh] = numbers.next_transfers(int(fresh.sum()))
    admission = rows["admission"].to_numpy()
    return rows.with_columns(
        subject_id=people.patients.subject[which.patient[admission]], hadm_id=which.hadm[admission],
        transfer_id=identifiers, intime=times(rows["intime"].to_numpy()), outtime=times(rows["outtime"].to_numpy()))


def _places(admission: np.ndarray, begin: np.ndarray, end: np.ndarray, careunit: pl.Series,
            transfer: np.ndarray | None = None) -> pl.DataFrame:
    identifiers = pl.repeat(None, admission.size, dtype=pl.Int64, eager=True) if transfer is None else transfer
    return pl.DataFrame({"admission": admission, "intime": begin, "outtime": end, "careunit": careunit,
                         "transfer_id": identifiers}, schema_overrides={"careunit": pl.String})


def _diagnoses(people: People, layout: Layout, rng: np.random.Generator) -> pl.DataFrame:
    """Three to twelve different codes for each admission; patients of the first two year groups have ICD-9."""
    which = people.admissions
    old = people.patients.year_group[which.patient] < len(layout.year_groups) // 2
    codes = {version: [code for code, kind, _ in DIAGNOSES if kind == version] for version in (9, 10)}
    width = min(len(codes[9]), len(codes[10]))
    order = rng.random((which.begin.size, width)).argsort(axis=1)
    admission, place = np.nonzero(np.arange(width) < rng.integers(3, 13, which.begin.size)[:, None])
    chosen = order[admission, place]
    return pl.DataFrame({
        "subject_id": people.patients.subject[which.patient[admission]], "hadm_id": which.hadm[admission],
        "seq_num": place + 1,
        "icd_code": pl.select(pl.when(pl.Series(old[admission])).then(pl.Series(codes[9]).gather(chosen))
                              .otherwise(pl.Series(codes[10]).gather(chosen))).to_series(),
        "icd_version": np.where(old[admission], 9, 10)})
