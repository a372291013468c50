"""The TJH reader on small invented sheets: every oddity, every kind of bad input."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from contracts.errors import DataError, MissingFileError
from contracts.features import catalogue
from ehr.attrition import Step
from ehr.sources.source import Source
from ehr.sources.tjh import read_tjh
from ehr.sources.tjh_workbook import FILE
from support.tjh_sheet import CONSTANT, START, header, patients, record, write_sheet
from support.xlsx import write_xlsx


def source_of(tmp_path: Path, rows: list, **settings: bool) -> Source:
    return read_tjh(write_sheet(tmp_path / "sheet.xlsx", rows), **settings)


def step(source: Source, words: str, unit: str) -> Step:
    found = [step for step in source.attrition if words in step.rule and step.unit == unit]
    assert len(found) == 1, [step.rule for step in source.attrition]
    return found[0]


def values(source: Source, feature: str) -> list[float]:
    return source.events.filter(pl.col("feature") == feature)["value"].sort().to_list()


def test_a_clean_sheet_gives_its_patients_records_and_values(tmp_path: Path) -> None:
    source = source_of(tmp_path, patients(24))
    assert source.stays.height == 24 and source.stays["label"].sum() == 12
    assert source.records.height == 48 and source.events.height == 96
    assert values(source, "hemoglobin") == [120.0 + number for number in range(1, 25)]
    assert source.records["time"].unique().sort().to_list() == [START, START + timedelta(days=1, hours=6)]
    ages = source.stays.sort("age").select("age", "sex").rows()
    assert ages[:2] == [(41.0, "female"), (42.0, "male")]
    assert len(source.files) == 1 and len(next(iter(source.files.values()))) == 64


def test_the_workbook_is_found_in_a_data_folder_and_by_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "tjh").mkdir()
    inner = write_sheet(tmp_path / "tjh" / FILE, patients())
    stays = [read_tjh(place).stays for place in (tmp_path, tmp_path / "tjh", inner)]
    assert stays[0].equals(stays[1]) and stays[0].equals(stays[2])


def test_merged_id_cells_are_filled_from_above_and_counted(tmp_path: Path) -> None:
    source = source_of(tmp_path, patients(24))
    assert step(source, "merged", "rows").found == 24
    assert source.records.group_by("stay_id").len()["len"].unique().to_list() == [2]


def test_patients_without_a_dated_row_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = [*patients(24), {**record(25, 0.0, 1), "RE_DATE": None}]
    source = source_of(tmp_path, rows)
    assert source.stays.height == 24
    undated = step(source, "without any dated row", "patients")
    assert (undated.found, undated.dropped, undated.kept) == (1, 1, 24)


def test_the_constant_lab_is_dropped_but_its_day_stays_a_record(tmp_path: Path) -> None:
    source = source_of(tmp_path, [*patients(24), record(None, 5.0, 1, {CONSTANT: -1}, age=64)])
    assert CONSTANT not in source.events["feature"]
    assert step(source, "values of 2019-nCoV", "values").dropped == 1
    assert source.records.height == 49
    assert step(source, "whose only lab was", "days").found == 1


def test_missing_codes_are_no_values(tmp_path: Path) -> None:
    rows = [*patients(24), record(None, 5.0, 1, {"Platelet count": -1, "ESR": 20}, age=64)]
    source = source_of(tmp_path, rows)
    assert values(source, "Platelet count") == [] and values(source, "ESR") == [20.0]
    assert step(source, "code for missing", "values").dropped == 1


def test_urine_sediment_is_not_taken_for_blood(tmp_path: Path) -> None:
    urine = {"White blood cell count": 1726.6, "Red blood cell count": 2.5, "PH value": 7.0}
    blood = {"White blood cell count": 9.0, "Red blood cell count": 4.5, "hemoglobin": 130, "PH value": 7.41}
    merged = {"White blood cell count": 6.3, "Red blood cell count": 23.7, "hemoglobin": 105}
    mixed = [record(None, 5.0 + day, 1, labs, age=64) for day, labs in enumerate((urine, blood, merged))]
    rows = [*patients(24), *mixed]
    source = source_of(tmp_path, rows)
    assert values(source, "White blood cell count") == [9.0] and values(source, "Red blood cell count") == [4.5]
    assert values(source, "PH value") == [7.41]
    assert step(source, "urine sediment", "values").dropped == 2
    assert step(source, "urine in a blood count", "values").dropped == 2
    assert step(source, "test-strip step", "values").dropped == 1


def test_urine_ph_is_dropped_up_to_six_point_nine(tmp_path: Path) -> None:
    mixed = [record(None, 5.0 + day, 1, {"PH value": ph}, age=64) for day, ph in enumerate((5.5, 6.9, 6.95, 7.2))]
    rows = [*patients(24), *mixed]
    source = source_of(tmp_path, rows)
    assert values(source, "PH value") == [6.95, 7.2]
    assert step(source, "at most 6.9", "values").dropped == 2


def test_hemoglobin_in_grams_per_decilitre_is_converted(tmp_path: Path) -> None:
    rows = [*patients(24), record(None, 5.0, 1, {"hemoglobin": 12.9}, age=64)]
    source = source_of(tmp_path, rows)
    found = [round(value, 9) for value in values(source, "hemoglobin")]
    assert min(found) > 100 and found.count(129.0) == 2
    converted = step(source, "in g/dL", "values")
    assert (converted.found, converted.dropped, converted.kept) == (1, 0, 25)


def test_records_after_the_discharge_are_kept_or_dropped_and_counted_both_ways(tmp_path: Path) -> None:
    rows = [*patients(24), record(None, 20.5, 1, {"ESR": 5}, age=64), record(None, 20.6, 1, {"ESR": 6}, age=64),
            {**record(25, 3.0, 0), "Discharge time": START, "Admission time": START}]
    kept, dropped = source_of(tmp_path, rows), source_of(tmp_path, rows, drop_after_discharge=True)
    assert (kept.records.height, kept.stays.height) == (51, 25)
    assert (dropped.records.height, dropped.stays.height) == (48, 24)
    for unit, found, left in (("rows", 3, 48), ("days", 2, 48), ("patients", 1, 24)):
        assert step(kept, "after the discharge", unit).found == found
        assert step(kept, "after the discharge", unit).dropped == 0
        assert step(dropped, "after the discharge", unit).dropped == found
        assert step(dropped, "after the discharge", unit).kept == left


def test_column_names_lose_their_trailing_blanks(tmp_path: Path) -> None:
    assert sum(name != name.strip() for name in header()) == 3
    source = source_of(tmp_path, [*patients(24), record(None, 5.0, 1, {"mean corpuscular hemoglobin ": 31}, age=64)])
    assert values(source, "mean corpuscular hemoglobin") == [31.0]
    assert step(source, "ends in a blank", "columns").found == 3


def test_whole_and_decimal_cells_become_the_same_type(tmp_path: Path) -> None:
    source = source_of(tmp_path, [*patients(24), record(None, 5.0, 1, {"ESR": 7, "eGFR": 87.9}, age=64)])
    assert source.events.schema["value"] == pl.Float64
    assert values(source, "ESR") == [7.0] and values(source, "eGFR") == [87.9]


def test_the_order_of_stays_does_not_follow_the_sheet(tmp_path: Path) -> None:
    source = source_of(tmp_path, patients(200))
    labels = source.stays["label"].to_list()
    # In the sheet all 100 survivors come first; a fair shuffle has about 50 among the first 100.
    assert 35 <= sum(labels[:100]) <= 65
    assert source.stays["stay_id"].is_sorted()
    assert not any(str(number) == stay for number in range(1, 201) for stay in source.stays["patient_id"])


def test_dates_written_as_text_are_read_too(tmp_path: Path) -> None:
    rows = [{**row, "RE_DATE": row["RE_DATE"].strftime("%Y-%m-%d %H:%M:%S")} for row in patients(24)]
    assert source_of(tmp_path, rows).records["time"].min() == START


@pytest.mark.parametrize(("column", "cell", "words"), [
    ("creatinine", "high", ["row 5", "'creatinine'", "'high'", "a number"]),
    ("creatinine", "nan", ["row 5", "'creatinine'", "a number"]),
    ("RE_DATE", "last Monday", ["row 5", "'RE_DATE'", "'last Monday'", "a date"]),
    ("Discharge time", 43861.5, ["row 5", "'Discharge time'", "a date"]),
    ("PATIENT_ID", 3.5, ["row 5", "'PATIENT_ID'", "'3.5'", "a whole number"]),
    ("gender", 3, ["row 5", "'gender'", "1 (male) or 2 (female)"]),
    ("outcome", 7, ["'outcome'"]),
    ("age", 400, ["'age'"]),
    ("age", None, ["row 5", "'age'"]),
])
def test_an_unreadable_cell_is_named_with_its_row(tmp_path: Path, column: str, cell: object, words: list[str]) -> None:
    rows = patients(24)
    # Rows 4 and 5 of the sheet are one patient; both change where it must not contradict itself.
    for index in (2, 3) if column in ("gender", "outcome") or cell == 400 else (3,):
        rows[index][column] = cell
    with pytest.raises(DataError) as caught:
        source_of(tmp_path, rows)
    for word in words if column != "gender" else words[1:]:
        assert word in str(caught.value)
    assert caught.value.next_step


@pytest.mark.parametrize(("column", "cell"), [("age", 30), ("outcome", 1), ("gender", 2),
                                              ("Discharge time", START + timedelta(days=19)),
                                              ("Admission time", datetime(2020, 1, 1))])
def test_a_patient_who_contradicts_himself_is_refused(tmp_path: Path, column: str, cell: object) -> None:
    rows = patients(24)
    rows[3][column] = cell
    with pytest.raises(DataError, match=f"row 4 has 2 different values of '{column}'"):
        source_of(tmp_path, rows)


def test_a_repeated_moment_of_a_patient_is_refused(tmp_path: Path) -> None:
    rows = patients(24)
    rows[5] = {**rows[5], "RE_DATE": rows[4]["RE_DATE"]}
    with pytest.raises(DataError, match="row 7 repeats patient and RE_DATE"):
        source_of(tmp_path, rows)


def test_a_discharge_before_the_admission_is_refused(tmp_path: Path) -> None:
    rows = patients(24)
    for row in rows[2:4]:
        row["Discharge time"] = START - timedelta(days=3)
    with pytest.raises(DataError, match="not before the admission"):
        source_of(tmp_path, rows)


def test_a_missing_column_is_named_with_the_nearest_unknown_one(tmp_path: Path) -> None:
    columns = ["Lactate dehydrogenas" if name == "Lactate dehydrogenase" else name for name in header()]
    with pytest.raises(DataError, match="first 'Lactate dehydrogenase'; is it 'Lactate dehydrogenas'?"):
        read_tjh(write_sheet(tmp_path / "sheet.xlsx", patients(), columns=columns))


def test_an_unknown_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 unknown columns, first 'lactate'"):
        read_tjh(write_sheet(tmp_path / "sheet.xlsx", patients(), columns=[*header(), "lactate"]))


def test_a_wrong_sheet_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has the sheets \['Tabelle1'\]"):
        read_tjh(write_sheet(tmp_path / "sheet.xlsx", patients(), sheet="Tabelle1"))


def test_an_excel_error_is_no_empty_cell(tmp_path: Path) -> None:
    rows = patients(24)
    rows[3]["creatinine"] = "#N/A"
    path = write_sheet(tmp_path / "sheet.xlsx", rows)
    with pytest.raises(DataError, match="row 5, column 'creatinine'.*NA"):
        read_tjh(path)


def test_blank_rows_at_the_end_of_the_sheet_are_no_records(tmp_path: Path) -> None:
    assert source_of(tmp_path, [*patients(24), {}, {}]).records.height == 48


def test_a_file_that_is_no_workbook_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.xlsx"
    path.write_text("no workbook")
    with pytest.raises(DataError, match="cannot be opened as a workbook"):
        read_tjh(path)


def test_a_sheet_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows below its header"):
        read_tjh(write_xlsx(tmp_path / "sheet.xlsx", {"Sheet1": [header()]}))


@pytest.mark.parametrize("place", [None, "nowhere", ""])
def test_a_missing_file_says_where_it_should_be(tmp_path: Path, place: str | None) -> None:
    with pytest.raises(MissingFileError) as caught:
        read_tjh(tmp_path / place if place is not None else None)
    assert FILE in caught.value.rule and "eag-rl data fetch tjh" in caught.value.next_step


def test_survivors_alone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels of all 12 stays are \[0\]"):
        source_of(tmp_path, patients(24)[:24])


def test_the_paper_split_needs_the_papers_patients(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="24 dated patients"):
        source_of(tmp_path, patients(24), with_paper_split=True)


def test_the_catalogue_names_seventy_three_labs() -> None:
    assert len(catalogue("tjh").names) == 73 and CONSTANT not in catalogue("tjh").names
