"""Generated extracts beside the open MIMIC-IV demo 2.2: the same headers, items, labels and forms of values."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import polars as pl
import pytest

from ehr.extracts.charting import d_items
from ehr.extracts.laboratory import d_labitems
from ehr.extracts.layouts import layout
from ehr.extracts.registers import DIAGNOSES
from ehr.extracts.write import synthesize

DEMO = Path(os.environ.get("EAG_RL_DATA", "no-such-folder")) / "mimic-iv-demo-2.2"
pytestmark = [pytest.mark.real_data,
              pytest.mark.skipif(not DEMO.is_dir(), reason="EAG_RL_DATA names no folder with mimic-iv-demo-2.2/")]


def demo(name: str) -> pl.DataFrame:
    return pl.read_csv(DEMO / f"{name}.csv.gz", infer_schema=False)


def test_headers_are_those_of_the_real_files(tmp_path: Path) -> None:
    extract = synthesize(tmp_path / "x", "mimic-iv-2.2", 3, rows_per_stay=100)
    for name in layout("mimic-iv-2.2").tables:
        lines = []
        for folder in (DEMO, extract.folder):
            with gzip.open(folder / f"{name}.csv.gz", "rb") as file:
                lines.append(file.readline())
        assert lines[0] == lines[1], name


@pytest.mark.parametrize("name", ["hosp/patients", "hosp/admissions", "hosp/transfers", "icu/icustays",
                                  "hosp/labevents", "icu/chartevents"])
def test_values_have_the_form_of_the_real_ones(name: str, tmp_path: Path) -> None:
    extract = synthesize(tmp_path / "x", "mimic-iv-2.2", 40, rows_per_stay=100)
    ours, real = pl.read_csv(extract.folder / f"{name}.csv.gz", infer_schema=False), demo(name)
    number, date, time = r"^-?\d+(\.\d+)?$", r"^\d{4}-\d\d-\d\d$", r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$"
    for column in real.columns:
        for form in (number, date, time):
            if real[column].null_count() < real.height and real[column].drop_nulls().str.contains(form).all():
                assert ours[column].drop_nulls().str.contains(form).all(), column


def test_items_are_real_ones() -> None:
    columns = ["itemid", "label", "linksto", "category"]
    ours = d_items().select(pl.col(columns).cast(pl.String))
    assert ours.join(demo("icu/d_items"), on=columns, how="anti").height == 0
    columns = ["itemid", "label", "fluid", "category"]
    ours = d_labitems().select(pl.col(columns).cast(pl.String))
    assert ours.join(demo("hosp/d_labitems"), on=columns, how="anti").height == 0
    codes = pl.DataFrame(DIAGNOSES, schema=["icd_code", "icd_version", "long_title"], orient="row")
    assert codes.with_columns(pl.col("icd_version").cast(pl.String)).join(
        demo("hosp/d_icd_diagnoses"), on=codes.columns, how="anti").height == 0


def test_units_are_those_that_the_items_have_in_the_real_files(tmp_path: Path) -> None:
    extract = synthesize(tmp_path / "x", "mimic-iv-2.2", 40)
    for name in ("icu/chartevents", "hosp/labevents"):
        columns = ["itemid", "valueuom"]
        real = demo(name).select(columns).unique()
        ours = pl.read_csv(extract.folder / f"{name}.csv.gz", infer_schema=False).select(columns).unique()
        # Items of words alone are not in the demo's chartevents.
        ours = ours.join(real, on="itemid", how="semi")
        assert ours.height > 20 and ours.join(real, on=columns, how="anti", nulls_equal=True).rows() == []
