"""A small invented sheet in the layout of the TJH workbook, to be bent by tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from contracts.features import catalogue
from ehr.sources.tjh_workbook import FILE
from support.xlsx import Cell, write_xlsx

CONSTANT = "2019-nCoV nucleic acid detection"
# Names that end in a blank in the source.
BLANK = ("Red blood cell distribution width", "platelet large cell ratio", "mean corpuscular hemoglobin")
START = datetime(2020, 2, 1, 8, 0)
Row = dict[str, Cell]


def header() -> list[str]:
    """The 81 column names as the source spells them."""
    labs = [f"{name} " if name in BLANK else name for name in catalogue("tjh").names]
    return ["PATIENT_ID", "RE_DATE", "age", "gender", "Admission time", "Discharge time", "outcome", *labs, CONSTANT]


def record(patient: int | None, day: float, label: int, labs: Mapping[str, Cell] | None = None, age: int = 60) -> Row:
    """One row: `day` days after 1 February 2020, 8:00; patient None where the id cell is merged with the one above."""
    return {"PATIENT_ID": patient, "RE_DATE": START + timedelta(days=day), "age": age, "gender": 1 + age % 2,
            "Admission time": START - timedelta(hours=8), "Discharge time": START + timedelta(days=20),
            "outcome": label, **(labs or {})}


def patients(count: int = 24) -> list[Row]:
    """`count` patients with two records each, survivors first, as in the source."""
    rows = []
    for number in range(1, count + 1):
        label, age = int(number > count // 2), 40 + number % 50
        rows.append(record(number, 0.0, label, {"hemoglobin": 120.0 + number, "Lactate dehydrogenase": 300}, age))
        rows.append(record(None, 1.25, label, {"creatinine": 70 + number, "Serum potassium": 4.5}, age))
    return rows


def write_sheet(path: Path, rows: Sequence[Mapping[str, Cell]], *, columns: Sequence[str] | None = None,
                sheet: str = "Sheet1") -> Path:
    """Writes rows; a cell a row does not name is empty."""
    names = list(columns) if columns is not None else header()
    return write_xlsx(path, {sheet: [names, *([row.get(name) for name in names] for row in rows)]})


def hospital(folder: Path, count: int = 60) -> Path:
    """An invented TJH workbook in which glucose and pH tell a little."""
    draw = np.random.default_rng(1)
    rows = []
    for number in range(1, count + 1):
        label = int(draw.random() < 0.5)
        for day in range(int(draw.integers(1, 5))):
            labs = {"glucose": round(7 + 4 * label + draw.normal(), 1), "hemoglobin": 120 + round(5 * draw.normal()),
                    "PH value": round(7.38 - 0.05 * label + 0.02 * draw.normal(), 2), "creatinine": 80}
            rows.append(record(number, float(day), label, labs, 40 + number % 40))
    (folder / "tjh").mkdir(parents=True)
    write_sheet(folder / "tjh" / FILE, rows)
    return folder
