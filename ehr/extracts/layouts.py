"""Layouts: the tables of a MIMIC-IV release, their columns in the order of the files, and how columns are typed.

In: the name of a release. Out: a `Layout`. Columns were compared with the files of the open demo (2.2); what the other
releases change is stated in PhysioNet's release notes: provider and caregiver came after 2.0, the years from 2020 on
with 3.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import polars as pl

from contracts.errors import ConfigError

Schema = Mapping[str, pl.DataType]

_INT, _TEXT, _REAL, _TIME, _DATE = pl.Int64(), pl.String(), pl.Float64(), pl.Datetime("us"), pl.Date()
_AFTER_2_0 = {"hosp/admissions": "admit_provider_id", "hosp/labevents": "order_provider_id",
              "icu/chartevents": "caregiver_id"}
_TABLES: Mapping[str, Schema] = {
    "hosp/patients": {"subject_id": _INT, "gender": _TEXT, "anchor_age": _INT, "anchor_year": _INT,
                      "anchor_year_group": _TEXT, "dod": _DATE},
    "hosp/admissions": {
        "subject_id": _INT, "hadm_id": _INT, "admittime": _TIME, "dischtime": _TIME, "deathtime": _TIME,
        "admission_type": _TEXT, "admit_provider_id": _TEXT, "admission_location": _TEXT, "discharge_location": _TEXT,
        "insurance": _TEXT, "language": _TEXT, "marital_status": _TEXT, "race": _TEXT, "edregtime": _TIME,
        "edouttime": _TIME, "hospital_expire_flag": _INT},
    "hosp/transfers": {"subject_id": _INT, "hadm_id": _INT, "transfer_id": _INT, "eventtype": _TEXT, "careunit": _TEXT,
                       "intime": _TIME, "outtime": _TIME},
    "hosp/labevents": {
        "labevent_id": _INT, "subject_id": _INT, "hadm_id": _INT, "specimen_id": _INT, "itemid": _INT,
        "order_provider_id": _TEXT, "charttime": _TIME, "storetime": _TIME, "value": _TEXT, "valuenum": _REAL,
        "valueuom": _TEXT, "ref_range_lower": _REAL, "ref_range_upper": _REAL, "flag": _TEXT, "priority": _TEXT,
        "comments": _TEXT},
    "hosp/d_labitems": {"itemid": _INT, "label": _TEXT, "fluid": _TEXT, "category": _TEXT},
    "hosp/diagnoses_icd": {"subject_id": _INT, "hadm_id": _INT, "seq_num": _INT, "icd_code": _TEXT,
                           "icd_version": _INT},
    "hosp/d_icd_diagnoses": {"icd_code": _TEXT, "icd_version": _INT, "long_title": _TEXT},
    "icu/icustays": {"subject_id": _INT, "hadm_id": _INT, "stay_id": _INT, "first_careunit": _TEXT,
                     "last_careunit": _TEXT, "intime": _TIME, "outtime": _TIME, "los": _REAL},
    "icu/chartevents": {
        "subject_id": _INT, "hadm_id": _INT, "stay_id": _INT, "caregiver_id": _INT, "charttime": _TIME,
        "storetime": _TIME, "itemid": _INT, "value": _TEXT, "valuenum": _REAL, "valueuom": _TEXT, "warning": _INT},
    "icu/d_items": {
        "itemid": _INT, "label": _TEXT, "abbreviation": _TEXT, "linksto": _TEXT, "category": _TEXT, "unitname": _TEXT,
        "param_type": _TEXT, "lownormalvalue": _REAL, "highnormalvalue": _REAL}}
_YEARS = ("2008 - 2010", "2011 - 2013", "2014 - 2016", "2017 - 2019", "2020 - 2022")
NAMES = ("mimic-iv-2.0", "mimic-iv-2.2", "mimic-iv-3.0", "mimic-iv-3.1")


@dataclass(frozen=True)
class Layout:
    """How the files of one release look.

    Attributes:
        name: e.g. mimic-iv-3.1.
        tables: folder/name of each table to its columns, in the order of the file, with their types.
        year_groups: values of `patients.anchor_year_group`, oldest first.
    """

    name: str
    tables: Mapping[str, Schema]
    year_groups: tuple[str, ...]


def layout(name: str) -> Layout:
    """Looks a layout up by its name.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in NAMES:
        raise ConfigError(f"layout {name!r}", f"one of {', '.join(NAMES)}", "choose one of these with --layout")
    release = name.removeprefix("mimic-iv-")
    absent = _AFTER_2_0 if release == "2.0" else {}
    tables = {table: MappingProxyType({column: kind for column, kind in schema.items() if column != absent.get(table)})
              for table, schema in _TABLES.items()}
    return Layout(name, MappingProxyType(tables), _YEARS if release.startswith("3.") else _YEARS[:-1])
