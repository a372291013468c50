"""The MIMIC-IV demo (100 patients): counts of its description, and the fast aggregation against the plain one."""

import hashlib
import os
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from configs.schema import Cohort
from ehr.aggregate import daily, plausible
from ehr.sources.mimic_iv.ingest import ingest
from ehr.sources.mimic_iv.items import items
from ehr.sources.mimic_iv.layout import open_extract
from ehr.sources.mimic_iv.source import EVENTS, read_mimic_iv
from ehr.sources.mimic_iv.stays import read_stays

FOLDER = Path(os.environ.get("EAG_RL_DATA", "")) / "mimic-iv-demo-2.2"
pytestmark = [pytest.mark.real_data, pytest.mark.skipif(
    not os.environ.get("EAG_RL_DATA") or not FOLDER.is_dir(),
    reason="EAG_RL_DATA names no folder that holds mimic-iv-demo-2.2")]


@pytest.fixture(scope="module")
def extract():
    return open_extract(FOLDER)


@pytest.fixture(scope="module")
def checksums(extract):
    return {name: hashlib.sha256(table.path.read_bytes()).hexdigest() for name, table in extract.tables.items()}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def test_version_and_stays_are_those_of_the_description(extract):
    assert extract.version == "2.2"
    mortality = read_stays(extract, "mortality", "all")
    assert (mortality.stays.height, mortality.stays["label"].sum(), mortality.aside.height) == (140, 20, 0)
    readmission = read_stays(extract, "readmission", "all")
    assert (readmission.stays.height, readmission.stays["label"].sum()) == (120, 11)


def test_no_measurement_of_the_demo_is_set_aside(checksums, cache):
    source = read_mimic_iv(FOLDER, Cohort(source="mimic_iv"), cache, checksums)
    assert source.quarantine.height == 0
    assert source.stays.height == 140


def test_daily_records_equal_those_of_the_plain_way(extract, checksums, cache):
    source = read_mimic_iv(FOLDER, Cohort(source="mimic_iv"), cache, checksums)
    folders = [ingest(extract.tables[name], checksums[name], cache, 0.01) for name in EVENTS]
    measured = pl.concat([pl.read_parquet(folder / "part-*.parquet") for folder in folders])
    stays = read_stays(extract, "mortality", "all").stays.select(
        "stay", "subject", pl.col("intime").dt.epoch("s").alias("begin"), pl.col("outtime").dt.epoch("s").alias("end"))
    names = items().catalogue.names
    events = (measured.drop("stay").join(stays, on="subject").filter(pl.col("time").is_between("begin", "end"))
              .select("stay", "time", pl.col("feature").cast(pl.Int64), "value").unique())
    parts = events.filter(pl.col("feature").is_in([names.index(f"Glasgow coma scale {part}") for part in (
        "eye opening", "motor response", "verbal response")]))
    totals = (parts.group_by("stay", "time", "feature").agg(pl.col("value").max()).group_by("stay", "time")
              .agg(pl.len(), pl.col("value").sum()).filter(pl.col("len") == 3)
              .select("stay", "time", pl.lit(names.index("Glasgow coma scale total")).cast(pl.Int64).alias("feature"),
                      "value"))
    events = pl.concat([events, totals]).select(
        pl.col("stay").cast(pl.String).alias("stay_id"),
        pl.from_epoch("time", "s").cast(pl.Datetime("us")).alias("time"),
        pl.col("feature").replace_strict(dict(enumerate(names)), return_dtype=pl.String), "value")
    kept, _ = plausible(events, items().catalogue)
    plain = daily(events.select("stay_id", "time").unique(), kept, items().catalogue)
    # Opaque identifiers are compared by what their days hold.
    fast = source.days.drop("stay_id").sort("date", *names)
    assert_frame_equal(fast, plain.drop("stay_id").sort("date", *names), check_exact=True)
