"""Generated extracts: true to their layout, consistent, deterministic, honest about dirt and hazard."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

import ehr.extracts.write as writing
from contracts.features import catalogue
from ehr.extracts.charting import INTEREST
from ehr.extracts.layouts import NAMES, layout
from ehr.extracts.people import Numbers, People, draw
from ehr.extracts.write import Extract, synthesize

DAY = 86_400
CHART, LABS = "icu/chartevents", "hosp/labevents"


def table(extract: Extract, name: str) -> pl.DataFrame:
    """A table of an extract in csv.gz, with the types of its layout."""
    return read(extract.folder, extract.layout, name)


@cache
def read(folder: Path, layout_name: str, name: str) -> pl.DataFrame:
    return pl.read_csv(folder / f"{name}.csv.gz", schema=dict(layout(layout_name).tables[name]))


def features(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(pl.col("itemid").is_in(list(INTEREST)))


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Extract:
    return synthesize(tmp_path_factory.mktemp("clean"), "mimic-iv-3.1", 60, seed=7)


@pytest.fixture(scope="module")
def dirty(tmp_path_factory: pytest.TempPathFactory) -> Extract:
    return synthesize(tmp_path_factory.mktemp("dirty"), "mimic-iv-2.2", 60, seed=7, dirty=0.08, rows_per_stay=1500)


@pytest.fixture(scope="module")
def people() -> list[People]:
    numbers = Numbers()
    return [draw(block, 10_000, 5, numbers, np.random.default_rng([3, block])) for block in range(12)]


@pytest.mark.parametrize("file_format", ["csv.gz", "csv", "parquet"])
def test_equal_arguments_give_equal_bytes_and_another_seed_others(file_format: str, tmp_path: Path) -> None:
    digests = []
    for number, seed in enumerate((5, 5, 6)):
        extract = synthesize(tmp_path / str(number), "mimic-iv-3.1", 4, seed, 0.05, 700, file_format)
        digests.append((extract.folder / "SHA256SUMS.txt").read_text(encoding="utf-8"))
        assert f"icu/chartevents.{file_format}\n" in digests[-1]
    assert digests[0] == digests[1] != digests[2]


def test_all_formats_hold_the_same_rows(tmp_path: Path) -> None:
    for file_format in ("csv.gz", "parquet"):
        synthesize(tmp_path / file_format, "mimic-iv-2.0", 4, dirty=0.05, rows_per_stay=700, file_format=file_format)
    for name, schema in layout("mimic-iv-2.0").tables.items():
        text = pl.read_csv(tmp_path / "csv.gz" / f"{name}.csv.gz", schema=dict(schema))
        assert text.equals(pl.read_parquet(tmp_path / "parquet" / f"{name}.parquet")), name


def test_the_checksums_are_those_of_all_files(clean: Extract) -> None:
    lines = (clean.folder / "SHA256SUMS.txt").read_text(encoding="utf-8").splitlines()
    listed = {path: digest for digest, path in (line.split(" ") for line in lines)}
    files = {path.relative_to(clean.folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
             for path in clean.folder.rglob("*.*") if path.name != "SHA256SUMS.txt"}
    assert listed == files and {"truth.parquet", "dirt.parquet"} < set(files) and len(files) == 12


@pytest.mark.slow
def test_a_smaller_extract_is_the_beginning_of_a_larger_one(tmp_path: Path) -> None:
    small = synthesize(tmp_path / "small", "mimic-iv-3.1", 380, seed=1, rows_per_stay=1)
    large = synthesize(tmp_path / "large", "mimic-iv-3.1", 450, seed=1, rows_per_stay=1)
    first, both = table(small, CHART), table(large, CHART)
    block = 10_000_000 + 3 * 256
    assert first["subject_id"].max() >= block
    assert first.filter(pl.col("subject_id") < block).equals(both.filter(pl.col("subject_id") < block))


@pytest.mark.parametrize("name", NAMES)
def test_columns_that_came_after_2_0_are_absent_before(name: str) -> None:
    tables = layout(name).tables
    later = {"hosp/admissions": "admit_provider_id", LABS: "order_provider_id", CHART: "caregiver_id"}
    assert {column in tables[table] for table, column in later.items()} == {name != "mimic-iv-2.0"}
    assert layout(name).year_groups[-1] == ("2020 - 2022" if "-3." in name else "2017 - 2019")


def test_exactly_the_stays_asked_for_are_written(clean: Extract) -> None:
    assert table(clean, "icu/icustays").height == clean.rows["icu/icustays"] == 60
    assert clean.rows == {**{name: table(clean, name).height for name in layout("mimic-iv-3.1").tables},
                          "truth": pl.read_parquet(clean.folder / "truth.parquet").height}


def test_identifiers_are_unique_and_of_eight_digits(clean: Extract) -> None:
    for name, column, low in (("hosp/patients", "subject_id", 10_000_000), ("hosp/admissions", "hadm_id", 20_000_000),
                              ("icu/icustays", "stay_id", 30_000_000), ("hosp/transfers", "transfer_id", 30_000_000)):
        values = table(clean, name)[column]
        assert values.is_unique().all() and values.is_between(low, low + 9_999_999).all()
    labs = table(clean, LABS)["labevent_id"]
    assert labs.is_unique().all() and (labs.min(), labs.max()) == (1, labs.len())


def test_every_row_refers_to_one_that_exists(clean: Extract) -> None:
    admissions, stays = table(clean, "hosp/admissions"), table(clean, "icu/icustays")
    patients, transfers = table(clean, "hosp/patients"), table(clean, "hosp/transfers")
    assert admissions.join(patients, on="subject_id", how="anti").height == 0
    assert patients.join(stays, on="subject_id", how="anti").height == 0
    for name in ("icu/icustays", "hosp/transfers", "hosp/diagnoses_icd", CHART):
        assert table(clean, name).join(admissions, on=["subject_id", "hadm_id"], how="anti").height == 0, name
    assert table(clean, CHART).join(stays, on=["subject_id", "hadm_id", "stay_id"], how="anti").height == 0
    assert stays.join(transfers, left_on=["stay_id", "intime", "outtime", "first_careunit"],
                      right_on=["transfer_id", "intime", "outtime", "careunit"], how="anti").height == 0
    assert table(clean, CHART).join(table(clean, "icu/d_items"), on="itemid", how="anti").height == 0
    assert table(clean, LABS).join(table(clean, "hosp/d_labitems"), on="itemid", how="anti").height == 0
    assert table(clean, "hosp/diagnoses_icd").join(table(clean, "hosp/d_icd_diagnoses"), on=["icd_code", "icd_version"],
                                                   how="anti").height == 0


def test_stays_lie_in_their_admissions_and_never_overlap(people: list[People]) -> None:
    for one in people:
        stays, admissions = one.stays, one.admissions
        assert (stays.begin < stays.end).all()
        assert (stays.begin >= admissions.begin[stays.admission]).all()
        # A patient who leaves from the ICU leaves the bed within the minute.
        assert (stays.end < admissions.end[stays.admission] + 60).all()
        patient = admissions.patient[stays.admission]
        same = patient[1:] == patient[:-1]
        assert (stays.begin[1:] > stays.end[:-1])[same].all()
        following = admissions.patient[1:] == admissions.patient[:-1]
        assert (admissions.begin[1:] > admissions.end[:-1])[following].all()


def test_deaths_are_consistent_and_nothing_follows_them(clean: Extract) -> None:
    admissions = table(clean, "hosp/admissions").join(table(clean, "hosp/patients"), on="subject_id")
    died = admissions.filter(pl.col("hospital_expire_flag") == 1)
    assert died.height > 0 and died["deathtime"].equals(died["dischtime"], check_names=False)
    assert died["discharge_location"].unique().to_list() == ["DIED"]
    assert died["dod"].equals(died["deathtime"].dt.date(), check_names=False)
    alive = admissions.filter(pl.col("hospital_expire_flag") == 0)
    assert alive["deathtime"].null_count() == alive.height and not alive["discharge_location"].eq("DIED").any()
    assert admissions.filter(pl.col("admittime").dt.date() > pl.col("dod")).height == 0


def test_patients_are_as_in_an_icu(people: list[People]) -> None:
    stays = np.concatenate([np.bincount(one.admissions.patient[one.stays.admission]) for one in people])
    assert stays.min() == 1 and np.mean(stays > 1) == pytest.approx(0.26, abs=0.03)
    days = np.concatenate([one.stays.end - one.stays.begin for one in people]) / DAY
    assert np.median(days) == pytest.approx(2.0, abs=0.2) and 20 < days.max() <= 60
    died = np.concatenate([one.admissions.died[np.unique(one.stays.admission)] for one in people])
    assert died.mean() == pytest.approx(0.10, abs=0.02)
    ages = np.concatenate([one.patients.age for one in people])
    assert ages.min() >= 18 and ages.max() == 91 and 90 not in ages
    gaps = [one.stays.begin[1:] - one.stays.end[:-1] for one in people]
    same = [np.diff(one.admissions.patient[one.stays.admission]) == 0 for one in people]
    soon = sum(int((gap[together] < 30 * DAY).sum()) for gap, together in zip(gaps, same, strict=True))
    assert 0.05 < soon / stays.sum() < 0.25


def test_dates_are_shifted_into_the_years_2110_to_2200(clean: Extract) -> None:
    admissions = table(clean, "hosp/admissions")
    assert admissions["admittime"].dt.year().min() >= 2110 and admissions["dischtime"].dt.year().max() <= 2200
    assert set(table(clean, "hosp/patients")["anchor_year_group"]) <= set(layout("mimic-iv-3.1").year_groups)


def test_most_rows_are_of_no_interest(clean: Extract) -> None:
    chart = table(clean, CHART)
    assert 0.85 <= 1 - features(chart).height / chart.height <= 0.88
    assert set(chart["itemid"]) >= INTEREST
    labs = table(clean, LABS)
    assert labs["itemid"].is_in([50820, 50931, 50809, 50817]).mean() == pytest.approx(0.1, abs=0.02)
    assert labs["hadm_id"].null_count() / labs.height == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("rows", [1, 2_000, 9_000])
def test_rows_per_stay_scales_what_is_of_no_interest(rows: int, tmp_path: Path) -> None:
    extract = synthesize(tmp_path / "x", "mimic-iv-3.1", 30, seed=2, rows_per_stay=rows)
    chart, stays = table(extract, CHART), table(extract, "icu/icustays")
    assert features(chart).height > 30 * 100
    # Fewer rows than the features need leave the features alone; longer stays have more rows than the mean stay.
    per_hour = chart.height / (24 * stays["los"].sum())
    assert per_hour == pytest.approx(max(rows, writing.features_per_stay()) / writing.MEAN_HOURS, rel=0.12)


def test_clean_measurements_lie_inside_their_stay(clean: Extract) -> None:
    placed = table(clean, CHART).join(table(clean, "icu/icustays"), on="stay_id")
    assert placed.select(pl.col("charttime").is_between("intime", "outtime")).to_series().all()
    assert placed.select((pl.col("storetime") > pl.col("charttime")).all()).item()
    per_hour = placed.filter(pl.col("itemid") == 220045).height / (24 * table(clean, "icu/icustays")["los"].sum())
    assert 0.9 < per_hour < 1.0


def test_labs_without_an_admission_are_of_a_stay_or_before_the_first_admission(clean: Extract) -> None:
    first = table(clean, "hosp/admissions").group_by("subject_id").agg(pl.col("admittime").min())
    labs = table(clean, LABS).join(first, on="subject_id")
    before = labs.filter(pl.col("charttime") < pl.col("admittime"))
    assert before["hadm_id"].null_count() == before.height
    assert before.height / labs.height == pytest.approx(0.125, abs=0.02)


def test_rows_are_by_patient_and_time_and_charted_in_rounds(clean: Extract) -> None:
    # The MIMIC-IV demo: 18.4 rows of chartevents and 18.4 of labevents a patient and moment, 9.7 of these a specimen.
    for name, least in ((CHART, 10), (LABS, 3)):
        rows = table(clean, name)
        assert rows["subject_id"].is_sorted() and rows["subject_id"].n_unique() > 30
        assert rows.select((pl.col("charttime").diff().over("subject_id") < pl.duration()).mean()).item() == 0
        assert rows.height / rows.select(pl.struct("subject_id", "charttime").n_unique()).item() > least
    once = table(clean, CHART).group_by("stay_id", "charttime").agg(pl.col("caregiver_id", "storetime").n_unique())
    assert once.select(pl.col("caregiver_id", "storetime").max()).row(0) == (1, 1)


def test_no_measurement_of_a_feature_is_there_twice(clean: Extract) -> None:
    rows = features(table(clean, CHART))
    assert rows.select(pl.struct("stay_id", "itemid", "charttime").is_unique().all()).item()


def test_values_are_charted_in_the_words_and_units_of_their_items(clean: Extract) -> None:
    chart = table(clean, CHART)
    eye = chart.filter(pl.col("itemid") == 220739).select("value", "valuenum").unique()
    assert set(eye.rows()) <= {("None", 1.0), ("To Pain", 2.0), ("To Speech", 3.0), ("Spontaneously", 4.0)}
    refill = chart.filter(pl.col("itemid").is_in([223951, 224308]))
    assert set(refill["value"]) == {"Normal <3 Seconds", "Abnormal >3 Seconds"}
    assert refill["valuenum"].null_count() == refill.height
    oxygen = chart.filter(pl.col("itemid") == 223835)["valuenum"]
    assert (oxygen <= 1).any() and (oxygen >= 21).any() and not oxygen.is_between(1.01, 20.9).any()
    units = chart.select("itemid", "valueuom").unique()
    assert dict(units.filter(pl.col("itemid").is_in([220045, 223761, 226707, 226531])).rows()) == {
        220045: "bpm", 223761: "°F", 226707: "Inch", 226531: None}


def test_one_body_has_one_height_and_one_weight_in_all_units(clean: Extract) -> None:
    chart = table(clean, CHART).filter(pl.col("itemid").is_in([226707, 226730, 226512, 226531]))
    wide = chart.pivot(on="itemid", index="stay_id", values="valuenum")
    assert (wide["226707"] * 2.54 - wide["226730"]).abs().max() <= 1.3
    assert (wide["226531"] * 0.45359237 - wide["226512"]).abs().max() <= 0.06


def test_clean_values_of_features_are_possible(clean: Extract) -> None:
    names = {220045: "Heart Rate", 220210: "Respiratory rate", 220277: "Oxygen saturation", 223830: "pH",
             220179: "Systolic blood pressure", 220050: "Systolic blood pressure", 223762: "Temperature",
             220621: "Glucose", 226730: "Height", 226512: "Weight"}
    chart = table(clean, CHART)
    for itemid, name in names.items():
        values, limits = chart.filter(pl.col("itemid") == itemid)["valuenum"], catalogue("mimic_iv")[name]
        assert limits.low <= values.min() and values.max() <= limits.high and values.n_unique() > 5, name


def test_text_has_commas_and_quotes_that_a_reader_must_get_right(clean: Extract) -> None:
    raw = pl.read_csv(clean.folder / f"{CHART}.csv.gz", infer_schema=False, quote_char=None, truncate_ragged_lines=True)
    assert raw.select(pl.any_horizontal(pl.all().str.contains('""', literal=True)).any()).item()
    for name, column in ((CHART, "value"), (LABS, "comments")):
        texts = table(clean, name)[column]
        assert texts.str.contains('"').any() and texts.str.contains(",").any()
    labs = table(clean, LABS).filter(pl.col("value") == "___")
    assert labs.height > 0 and labs["valuenum"].null_count() == 0


def test_the_planted_effects_explain_the_deaths(people: list[People]) -> None:
    total, died = [], []
    for one in people:
        with_stay = np.unique(one.stays.admission)
        total.append(one.admissions.effects[with_stay].sum(axis=1))
        died.append(one.admissions.died[with_stay])
    assert roc_auc_score(np.concatenate(died), np.concatenate(total)) > 0.85


def test_those_in_shock_lose_pressure_over_the_stay(clean: Extract) -> None:
    truth = pl.read_parquet(clean.folder / "truth.parquet")
    assert dict(truth.schema) == {"stay_id": pl.Int64, "feature": pl.String, "effect": pl.Float64, "rank": pl.Int32}
    assert set(truth["stay_id"]) == set(table(clean, "icu/icustays")["stay_id"])
    shocked = truth.filter((pl.col("feature") == "Mean blood pressure") & (pl.col("effect") > 1.0))["stay_id"]
    pressure = table(clean, CHART).filter(pl.col("itemid") == 220181).sort("charttime")
    halves = pressure.group_by("stay_id").agg(
        (pl.col("valuenum").tail(pl.len() // 3).mean() - pl.col("valuenum").head(pl.len() // 3).mean()).alias("change"))
    in_shock = pl.col("stay_id").is_in(shocked.to_list())
    assert shocked.len() >= 5 and halves.filter(in_shock)["change"].mean() < -8
    assert abs(halves.filter(~in_shock)["change"].mean()) < 5


def spoilt(clean_units: dict[int, str | None]) -> dict[str, pl.Expr]:
    """What a reader can see of each kind of dirt in chartevents."""
    expected = pl.col("itemid").replace_strict(clean_units, return_dtype=pl.String)
    return {"wrong_unit": ~pl.col("valueuom").eq_missing(expected),
            "impossible_value": (pl.col("valuenum") == 999_999) | (pl.col("valuenum") < 0),
            "outside_stay": ~pl.col("charttime").is_between("intime", "outtime"),
            "missing_hadm_id": pl.col("hadm_id").is_null(), "missing_stay_id": pl.col("stay_id").is_null(),
            "text_value": pl.col("value").is_in(["error", "see note", 'unable to obtain, pt. "moving"']),
            "redacted_value": (pl.col("value") == "___") & pl.col("valuenum").is_null()}


def test_the_counts_of_dirt_are_what_a_reader_finds(dirty: Extract, clean: Extract) -> None:
    counted = pl.read_parquet(dirty.folder / "dirt.parquet")
    assert dict(counted.schema) == {"table": pl.String, "kind": pl.String, "itemid": pl.Int64, "rows": pl.Int64}
    units = dict(table(clean, CHART).select("itemid", "valueuom").unique().rows())
    rows = features(table(dirty, CHART)).join(table(dirty, "icu/icustays").select("stay_id", "intime", "outtime"),
                                              on="stay_id", how="left")
    once = rows.unique()
    found = {kind: dict(once.filter(where).group_by("itemid").len().rows()) for kind, where in spoilt(units).items()}
    twice = rows.group_by(pl.all()).len().filter(pl.col("len") > 1)
    assert twice["len"].unique().to_list() == [2]
    found["duplicate_row"] = dict(twice.group_by("itemid").agg(pl.len()).rows())
    planted = counted.filter((pl.col("table") == CHART) & pl.col("itemid").is_in(list(INTEREST)))
    for kind, items in found.items():
        assert items == dict(planted.filter(pl.col("kind") == kind).select("itemid", "rows").rows()), kind
    assert set(planted["kind"]) == set(found) and min(len(items) for items in found.values()) > 5


def test_the_share_of_dirt_is_the_one_asked_for(dirty: Extract, clean: Extract) -> None:
    total = dirty.rows[CHART] + dirty.rows[LABS]
    assert dirty.dirty / total == pytest.approx(0.08, abs=0.004)
    assert clean.dirty == 0 and pl.read_parquet(clean.folder / "dirt.parquet").height == 0


def test_dirt_of_labs_is_counted_too(dirty: Extract) -> None:
    labs, counted = table(dirty, LABS), pl.read_parquet(dirty.folder / "dirt.parquet").filter(pl.col("table") == LABS)
    numbers = dict(counted.group_by("kind").agg(pl.col("rows").sum()).rows())
    assert set(numbers) == {"duplicate_row", "wrong_unit", "impossible_value", "text_value", "redacted_value"}
    assert labs.height - labs["labevent_id"].n_unique() == numbers["duplicate_row"]
    once = labs.unique()
    assert once.filter((pl.col("value") == "___") & pl.col("valuenum").is_null()).height == numbers["redacted_value"]
