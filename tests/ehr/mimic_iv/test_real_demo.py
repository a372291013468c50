"""The MIMIC-IV demo (100 patients): counts of its description, and the fast aggregation against the plain one."""

import csv
import gzip
import hashlib
import os
import re
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from configs.schema import Cohort, MimicIv
from ehr.aggregate import daily, plausible
from ehr.sources.mimic_iv.ingest import ingest
from ehr.sources.mimic_iv.items import items
from ehr.sources.mimic_iv.layout import open_extract
from ehr.sources.mimic_iv.phenotypes import phenotypes, plain
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
    events = (measured.join(stays, on="subject").filter(pl.col("time").is_between("begin", "end"))
              .select("stay", "time", pl.col("feature").cast(pl.Int64), "value").unique())
    parts = events.filter(pl.any_horizontal(
        (pl.col("feature") == names.index(f"Glasgow coma scale {part}")) & pl.col("value").is_between(1, most)
        for part, most in (("eye opening", 4), ("motor response", 6), ("verbal response", 5))))
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


def rows_of(name):
    with gzip.open(FOLDER / f"{name}.csv.gz", "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# Stays of the 140 with each phenotype, counted with plain csv and patterns typed anew (ICD-9, ICD-10).
PREVALENCES = {
    "Acute and unspecified renal failure": (49, r"58[46]", r"N1[79]"),
    "Acute myocardial infarction": (12, r"410", r"I2[12]"),
    "Chronic kidney disease": (33, r"585|7925|V420|V451|V56", r"N18|Z992|Z940|Z49|R880|Z9115"),
    "Congestive heart failure; nonhypertensive": (32, r"428|39891", r"I50|I0981"),
    "Diabetes mellitus with complications": (22, r"(249|250)(?!00$|01$)|24901$", r"E(08|09|10|11|13)(?!9)"),
    "Disorders of lipid metabolism": (75, r"272[0-4]", r"E78[0-5]"),
    "Essential hypertension": (58, r"401[19]", r"I10$"),
    "Fluid and electrolyte disorders": (57, r"276", r"E8[67]"),
    "Respiratory failure; insufficiency; arrest (adult)": (
        43, r"5185|5188[1-4]|7991|V46[12]", r"J80|J96|J95[123]|J9582|R092|Z991|Z9981"),
    "Shock": (27, r"7855", r"R57|R6521")}


def test_phenotypes_of_the_demo_are_as_frequent_as_counted_by_hand(checksums, cache):
    source = read_mimic_iv(FOLDER, Cohort(source="mimic_iv"), cache, checksums)
    counts = dict(source.targets.filter(pl.col("name") != "remaining_days").group_by("name").agg(
        pl.col("value").sum().cast(pl.Int64)).iter_rows())
    assert len(counts) == 25 and source.targets.height == 140 * 26
    assert {name: counts[f"phenotype: {name}"] for name in PREVALENCES} == {
        name: count for name, (count, _, _) in PREVALENCES.items()}
    codes = {}
    for row in rows_of("hosp/diagnoses_icd"):
        codes.setdefault(row["hadm_id"], []).append((row["icd_version"], row["icd_code"].strip()))
    stays = rows_of("icu/icustays")
    for name, (count, *patterns) in PREVALENCES.items():
        of_version = dict(zip(("9", "10"), patterns, strict=True))
        assert sum(any(re.match(of_version[version], code) for version, code in codes[stay["hadm_id"]])
                   for stay in stays) == count, name
    # None is absent or common to nearly all, in patients of intensive care.
    assert all(0.02 < count / 140 < 0.6 for count in counts.values())


def test_steps_of_the_demo_count_its_diagnoses(checksums, cache):
    source = read_mimic_iv(FOLDER, Cohort(source="mimic_iv"), cache, checksums)
    steps = {step.rule: (step.found, step.dropped, step.kept) for step in source.attrition}
    assert steps["hosp/diagnoses_icd: row in the file"] == (4506, 0, 4506)
    assert steps["hosp/diagnoses_icd: row of an admission without a stay: not used"] == (2177, 2177, 2329)
    assert steps["phenotypes: admission without a readable diagnosis: none"] == (0, 0, 3500)


@pytest.mark.parametrize(("hours", "total", "zero"), [(24, 383.4673, 23), (48, 292.1145, 66)])
def test_remaining_days_of_the_demo_are_those_of_the_file(checksums, cache, hours, total, zero):
    section = Cohort(source="mimic_iv", mimic_iv=MimicIv(window="first_hours", hours=hours))
    source = read_mimic_iv(FOLDER, section, cache, checksums)
    left = source.targets.filter(pl.col("name") == "remaining_days")["value"]
    assert (left.len(), (left == 0).sum()) == (140, zero) and left.min() == 0.0
    assert left.sum() == pytest.approx(total, abs=1e-3)
    plainly = [max(0.0, (datetime.fromisoformat(stay["outtime"]) - datetime.fromisoformat(stay["intime"]))
                   .total_seconds() / 86400 - hours / 24) for stay in rows_of("icu/icustays")]
    assert sorted(left) == pytest.approx(sorted(plainly))


def test_no_days_remain_below_zero_in_whole_stays(checksums, cache):
    source = read_mimic_iv(FOLDER, Cohort(source="mimic_iv"), cache, checksums)
    left = source.targets.filter(pl.col("name") == "remaining_days")["value"]
    assert left.len() == 140 and left.min() == 0.0 and left.max() < 2.0


def test_every_code_of_the_dictionary_has_its_form_and_one_phenotype_at_most():
    codes = pl.read_csv(FOLDER / "hosp/d_icd_diagnoses.csv.gz", infer_schema=False).select(
        pl.col("icd_version").cast(pl.Int64).alias("version"), plain("icd_code").alias("code"))
    known = phenotypes()
    found = known.of_codes(codes)
    assert found.filter(found.select("version", "code").is_duplicated())["code"].unique().to_list() == ["R6521"]
    for version, prefix in known.rules.filter("belongs").select("version", "prefix").iter_rows():
        assert codes.filter((pl.col("version") == version) & pl.col("code").str.starts_with(prefix)).height, prefix
