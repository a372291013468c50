"""A small MIMIC-IV extract written by hand: two patients, three stays, a few measurements, and ways to spoil it."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path

COLUMNS = {
    "hosp/patients": "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod",
    "hosp/admissions": "subject_id,hadm_id,admittime,dischtime,deathtime,hospital_expire_flag",
    "icu/icustays": "subject_id,hadm_id,stay_id,first_careunit,last_careunit,intime,outtime,los",
    "icu/chartevents": "subject_id,hadm_id,stay_id,caregiver_id,charttime,storetime,itemid,value,valuenum,valueuom,"
                       "warning",
    "hosp/labevents": "labevent_id,subject_id,hadm_id,specimen_id,itemid,order_provider_id,charttime,storetime,value,"
                      "valuenum,valueuom,ref_range_lower,ref_range_upper,flag,priority,comments",
}
# Tables that an extract may lack; they are written where `tables` names them.
OPTIONAL_COLUMNS = {"hosp/diagnoses_icd": "subject_id,hadm_id,seq_num,icd_code,icd_version"}
ROWS: dict[str, list[str]] = {
    "hosp/patients": ["11,F,60,2150,2011 - 2013,", "12,M,70,2160,2014 - 2016,2160-02-03"],
    "hosp/admissions": ["11,21,2150-01-01 00:00:00,2150-01-10 12:00:00,,0",
                        "11,22,2150-01-20 00:00:00,2150-01-30 00:00:00,,0",
                        "12,23,2160-02-01 00:00:00,2160-02-03 10:00:00,2160-02-03 10:00:00,1"],
    "icu/icustays": ["11,21,31,MICU,MICU,2150-01-01 06:00:00,2150-01-03 06:00:00,2.0",
                     "11,22,32,MICU,MICU,2150-01-21 00:00:00,2150-01-24 00:00:00,3.0",
                     "12,23,33,SICU,SICU,2160-02-01 02:00:00,2160-02-03 10:00:00,2.3"],
    "icu/chartevents": [
        "11,21,31,,2150-01-01 08:00:00,,220045,80,80,bpm,0", "11,21,31,,2150-01-01 09:00:00,,220045,90,90,bpm,0",
        "11,21,31,,2150-01-02 08:00:00,,223761,98.6,98.6,°F,0", "11,21,31,,2150-01-02 08:00:00,,226707,70,70,Inch,0",
        "11,22,32,,2150-01-22 08:00:00,,220045,70,70,bpm,0",
        "12,23,33,,2160-02-01 08:00:00,,220045,120,120,bpm,0", "12,23,33,,2160-02-02 08:00:00,,220045,130,130,bpm,0",
        '12,23,33,,2160-02-02 08:00:00,,226104,"tired, ""slow""\nand calm",,,0'],
    "hosp/labevents": ["1,11,21,9,50820,,2150-01-01 10:00:00,,7.31,7.31,units,7.35,7.45,abnormal,STAT,",
                       '2,12,,9,50931,,2160-02-01 10:00:00,,___,200,mg/dL,70,100,abnormal,ROUTINE,"Fasting, 70-100."',
                       "3,12,,9,51221,,2160-02-01 10:00:00,,30,30,%,,,,ROUTINE,"],
}


def write_extract(folder: Path, tables: Mapping[str, Sequence[str]] | None = None, *, packed: bool = True,
                  columns: Mapping[str, str] | None = None, end: str = "\n", start: bytes = b"") -> Path:
    """Writes the extract; `tables` and `columns` replace the rows and headers of some tables.

    Args:
        end: of lines. start: bytes before the header (a byte-order mark).
    """
    for name, rows in {**ROWS, **(tables or {})}.items():
        head = {**COLUMNS, **OPTIONAL_COLUMNS, **(columns or {})}[name]
        text = start + end.join([head, *rows, ""]).encode()
        path = folder / f"{name}.csv{'.gz' if packed else ''}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text) if packed else text)
    return folder


def with_rows(name: str, *rows: str) -> dict[str, list[str]]:
    """The table with more rows."""
    return {name: [*ROWS[name], *rows]}
