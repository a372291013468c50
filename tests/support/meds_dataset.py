"""A small MEDS dataset of a hospital that is not MIMIC's, and a mapping for it; and ways to spoil both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import polars as pl
import yaml

Event = tuple[int, str | None, str, float | None, str | None]
SCHEMA = {"subject_id": pl.Int64, "time": pl.Datetime("us"), "code": pl.String, "numeric_value": pl.Float32,
          "text_value": pl.String}
MAPPING = {
    "birth": [{"code": "BIRTH"}], "death": [{"code": "DEATH"}],
    "sex": {"female": [{"code": "SEX", "text": "f"}], "male": [{"code": "SEX", "text": "m"}]},
    "stays": {"begin": [{"prefix": "ITS:in"}], "end": [{"prefix": "ITS:out"}]},
    "admissions": {"begin": [{"code": "ADM"}], "end": [{"regex": "^DIS(:.*)?$"}]},
    "features": {
        "Heart Rate": {"codes": [{"code": "Puls"}]},
        "Glucose": {"codes": [{"prefix": "BZ|", "unit_follows": True}], "units": {"mmol/l": [18.0156, 0]}},
        "Temperature": {"codes": [{"regex": r"^TEMP\[(?P<unit>.*)\]$"}], "units": {"°F": [5 / 9, -160 / 9]}},
        "Weight": {"codes": [{"code": "GEW", "factor": 0.001}]},
        "Height": {"codes": [{"code": "KG", "unit": "m"}], "units": {"m": [100, 0]}},
        "Capillary refill rate": {"codes": [{"code": "REKAP", "texts": {"prompt": 0, "träge": 1}},
                                            {"code": "REKAP:TRAEGE", "value": 1}]},
        "Glasgow coma scale eye opening": {"codes": [{"code": "GCS-A"}]},
        "Glasgow coma scale verbal response": {"codes": [{"code": "GCS-V"}]},
        "Glasgow coma scale motor response": {"codes": [{"code": "GCS-M"}]},
        "Fraction inspired oxygen": {"codes": [{"code": "FiO2"}]}},
    "sums": {"Glasgow coma scale total": ["Glasgow coma scale eye opening", "Glasgow coma scale verbal response",
                                          "Glasgow coma scale motor response"]},
    "fractions": {"Fraction inspired oxygen": [0.2, 1.0]},
}
EVENTS: list[Event] = [
    (1, None, "SEX", None, "F"), (1, "1950-06-15", "BIRTH", None, None),
    (1, "2020-03-01 08:00", "ADM", None, None), (1, "2020-03-01 10:00", "ITS:in A", None, None),
    (1, "2020-03-03 10:00", "ITS:out A", None, None), (1, "2020-03-05 12:00", "DIS:home", None, None),
    (1, "2020-03-01 11:00", "Puls", 80.0, None), (1, "2020-03-01 12:00", "Puls", 90.0, None),
    (1, "2020-03-01 12:00", "BZ|mmol/l", 10.0, None), (1, "2020-03-02 12:00", "BZ|mg/dL", 100.0, None),
    (1, "2020-03-01 12:00", "TEMP[°F]", 98.6, None), (1, "2020-03-02 12:00", "TEMP[°C]", 38.5, None),
    (1, "2020-03-01 12:00", "GEW", 70500.0, None), (1, "2020-03-01 12:00", "KG", 1.71, None),
    (1, "2020-03-01 12:00", "REKAP", None, "Träge "), (1, "2020-03-02 12:00", "REKAP", None, "prompt"),
    (1, "2020-03-02 13:00", "REKAP:TRAEGE", None, None), (1, "2020-03-04 12:00", "Puls", 200.0, None),
    (1, "2020-03-02 12:00", "FiO2", 0.4, None), (1, "2020-03-02 12:00", "Bemerkung", None, "nothing"),
    (1, "2020-03-20 08:00", "ADM", None, None), (1, "2020-03-20 10:00", "ITS:in B", None, None),
    (1, "2020-03-21 10:00", "ITS:out B", None, None), (1, "2020-03-25 10:00", "DIS", None, None),
    (1, "2020-03-20 11:00", "Puls", 70.0, None),
    (2, None, "SEX", None, "m"), (2, "1920-01-01", "BIRTH", None, None),
    (2, "2021-01-01 00:00", "ADM", None, None), (2, "2021-01-01 00:00", "ITS:in A", None, None),
    (2, "2021-01-02 20:00", "ITS:out A", None, None), (2, "2021-01-02 20:00", "DIS:other", None, None),
    (2, "2021-01-02 20:00", "DEATH", None, None), (2, "2021-01-01 05:00", "Puls", 120.0, None),
    *((2, "2021-01-01 06:00", code, number, None) for code, number in (("GCS-A", 1.0), ("GCS-V", 2.0), ("GCS-M", 3.0))),
    (2, "2021-01-01 07:00", "GCS-A", 2.0, None),
]


def frame(events: Sequence[Event]) -> pl.DataFrame:
    """Events as MEDS columns."""
    rows = [(subject, None if time is None else datetime.fromisoformat(time), *rest) for subject, time, *rest in events]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def write_dataset(folder: Path, events: Sequence[Event] = EVENTS) -> Path:
    """Writes the dataset in two shards, by patient, with a metadata/codes.parquet."""
    rows = frame(events)
    for name, shard in (("train/0", rows.filter(pl.col("subject_id") == 1)),
                        ("held_out/0", rows.filter(pl.col("subject_id") != 1))):
        path = folder / "data" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        shard.write_parquet(path)
    (folder / "metadata").mkdir(exist_ok=True)
    pl.DataFrame({"code": ["Puls", "Vitalzeichen:Puls"], "description": ["Herzfrequenz", None],
                  "parent_codes": [["Vitalzeichen:Puls"], ["LOINC/8867-4"]]}).write_parquet(
        folder / "metadata" / "codes.parquet")
    return folder


def write_mapping(path: Path, **changes: object) -> str:
    """Writes the mapping with some entries replaced (None: left out)."""
    values: Mapping[str, object] = {name: entry for name, entry in {**MAPPING, **changes}.items() if entry is not None}
    path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    return str(path)
