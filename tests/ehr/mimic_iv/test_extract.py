"""From a raw extract to a source: what is read, what is converted, what is set aside, and what is refused."""

import gzip
import hashlib

import polars as pl
import pytest

from configs.schema import Cohort, MimicIv
from contracts.errors import DataError, MissingFileError, StorageError
from contracts.features import catalogue
from ehr.sources.mimic_iv.layout import open_extract
from ehr.sources.mimic_iv.source import read_mimic_iv
from ehr.sources.source import checked
from support.mimic_extract import COLUMNS, ROWS, with_rows, write_extract

SECTION = Cohort(source="mimic_iv", min_visits=1)


def read(folder, cache, section=SECTION):
    checksums = {name: hashlib.sha256(table.path.read_bytes()).hexdigest()
                 for name, table in open_extract(folder).tables.items()}
    return read_mimic_iv(folder, section, cache, checksums)


def values(source, feature):
    return source.days.sort("date", feature)[feature].drop_nulls().to_list()


def found(source, words):
    return sum(step.found for step in source.attrition if words in step.rule)


def test_stays_labels_and_days_of_a_small_extract(tmp_path):
    source = read(write_extract(tmp_path / "raw"), tmp_path / "cache")
    assert source.stays["label"].sum() == 1
    assert sorted(source.stays["age"]) == [60.0, 60.0, 70.0]
    assert values(source, "Heart Rate") == [85.0, 70.0, 120.0, 130.0]
    assert values(source, "Temperature") == pytest.approx([37.0])
    assert values(source, "Height") == pytest.approx([177.8])
    assert values(source, "pH") == [7.31]
    assert values(source, "Glucose") == [200.0]  # the text is redacted, the number is not; no hadm_id either


@pytest.mark.parametrize("packed", [True, False])
def test_formats_give_the_same_source(tmp_path, packed):
    one = read(write_extract(tmp_path / "raw", packed=packed), tmp_path / "cache")
    assert one.days.equals(read(write_extract(tmp_path / "again"), tmp_path / "other").days)


def test_parquet_tables_give_the_same_source(tmp_path):
    plain = read(write_extract(tmp_path / "raw"), tmp_path / "cache")
    folder = write_extract(tmp_path / "parquet", packed=False)
    for name in COLUMNS:
        pl.read_csv(folder / f"{name}.csv", try_parse_dates=True).write_parquet(folder / f"{name}.parquet")
        (folder / f"{name}.csv").unlink()
    assert read(folder, tmp_path / "other").days.equals(plain.days)


def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path):
    plain = read(write_extract(tmp_path / "raw"), tmp_path / "cache")
    odd = read(write_extract(tmp_path / "odd", end="\r\n", start=b"\xef\xbb\xbf"), tmp_path / "other")
    assert odd.days.equals(plain.days)
    assert found(odd, "CR LF") > 0


def test_readmission_counts_from_the_discharge_and_leaves_out_deaths(tmp_path):
    section = Cohort(source="mimic_iv", outcome="readmission", min_visits=1)
    source = read(write_extract(tmp_path / "raw"), tmp_path / "cache", section)
    # 10 January to 21 January: within 30 days. The patient who died is no candidate.
    assert source.stays.sort("admitted_at")["label"].to_list() == [1, 0]


def test_a_later_stay_of_the_same_admission_is_no_readmission(tmp_path):
    stays = ["11,21,31,MICU,MICU,2150-01-01 06:00:00,2150-01-03 06:00:00,2.0",
             "11,21,32,MICU,MICU,2150-01-05 06:00:00,2150-01-06 06:00:00,1.0", ROWS["icu/icustays"][2],
             "11,22,34,MICU,MICU,2150-04-20 00:00:00,2150-04-21 00:00:00,1.0"]
    admissions = [*ROWS["hosp/admissions"], "11,22,2150-04-20 00:00:00,2150-04-30 00:00:00,,0"]
    admissions.remove(ROWS["hosp/admissions"][1])
    section = Cohort(source="mimic_iv", outcome="readmission", min_visits=1)
    folder = write_extract(tmp_path / "raw", {"icu/icustays": stays, "hosp/admissions": admissions})
    with pytest.raises(DataError, match=r"all 3 stays are \[0\]"):
        checked(read(folder, tmp_path / "cache", section), catalogue("mimic_iv"))


@pytest.mark.parametrize("outtime", ["", "2150-02-10 00:00:00", "soon"])
def test_a_stay_that_is_set_aside_is_a_readmission_all_the_same(tmp_path, outtime):
    # The patient of stay 32 goes on 30 January and is back on 10 February, in a stay that cannot be used.
    tables = {"icu/icustays": [*ROWS["icu/icustays"], f"11,24,34,MICU,MICU,2150-02-10 00:00:00,{outtime},1"],
              "hosp/admissions": [*ROWS["hosp/admissions"], "11,24,2150-02-10 00:00:00,2150-02-20 00:00:00,,0"]}
    section = Cohort(source="mimic_iv", outcome="readmission", min_visits=1)
    source = read(write_extract(tmp_path / "raw", tables), tmp_path / "cache", section)
    assert source.stays.sort("admitted_at")["label"].to_list() == [1, 1]
    assert source.quarantine.height == 1


def test_an_age_that_is_not_given_is_unknown_and_not_the_oldest(tmp_path):
    patients = [ROWS["hosp/patients"][0].replace("F,60,", "F,,"), ROWS["hosp/patients"][1].replace("M,70,", "M,95,")]
    source = read(write_extract(tmp_path / "raw", {"hosp/patients": patients}), tmp_path / "cache")
    assert source.stays.sort("admitted_at")["age"].to_list() == [None, None, 91.0]


@pytest.mark.parametrize(("unit", "ids"), [("first", 2), ("last", 2), ("all", 3)])
def test_the_unit_chooses_stays(tmp_path, unit, ids):
    section = Cohort(source="mimic_iv", min_visits=1, mimic_iv=MimicIv(unit=unit))
    assert read(write_extract(tmp_path / "raw"), tmp_path / "cache", section).stays.height == ids


@pytest.mark.parametrize(("window", "hours", "rates"), [
    ("whole", 24, [85.0, 70.0, 120.0, 130.0]), ("first_hours", 12, [85.0, 120.0]),
    ("before_outcome", 36, [85.0, 70.0, 120.0])])
def test_the_window_bounds_what_may_be_seen(tmp_path, window, hours, rates):
    section = Cohort(source="mimic_iv", min_visits=1, mimic_iv=MimicIv(window=window, hours=hours))
    source = read(write_extract(tmp_path / "raw"), tmp_path / "cache", section)
    assert values(source, "Heart Rate") == rates


def test_units_are_converted_and_unknown_ones_set_aside(tmp_path):
    rows = ["11,21,31,,2150-01-02 10:00:00,,226531,154,154,,0", "11,21,31,,2150-01-02 10:00:00,,223835,.5,.5,,0",
            "11,21,31,,2150-01-02 11:00:00,,223762,37,37,°C,0", "11,21,31,,2150-01-02 12:00:00,,220045,99,99,furlong,0"]
    section = Cohort(source="mimic_iv", min_visits=1, mimic_iv=MimicIv(quarantine_limit=0.5))
    source = read(write_extract(tmp_path / "raw", with_rows("icu/chartevents", *rows)), tmp_path / "cache", section)
    assert values(source, "Weight") == pytest.approx([154 * 0.45359237])
    assert values(source, "Fraction inspired oxygen") == [50.0]
    assert values(source, "Temperature") == pytest.approx([37.0])
    aside = source.quarantine.filter(pl.col("table") == "icu/chartevents")
    assert aside["reason"].to_list() == ["a unit nobody knows for this item"]
    assert "furlong" in aside["text"][0]
    assert aside["key"].to_list() == [str(len(ROWS["icu/chartevents"]) + 3)]


def test_the_coma_scale_is_summed_only_where_all_parts_stand_at_one_moment(tmp_path):
    rows = [f"11,21,31,,2150-01-02 {hour}:00:00,,{item},x,{number},,0"
            for hour, parts in (("10", ((220739, 4), (223900, 5), (223901, 6))), ("11", ((220739, 1), (223901, 1))))
            for item, number in parts]
    source = read(write_extract(tmp_path / "raw", with_rows("icu/chartevents", *rows)), tmp_path / "cache")
    assert values(source, "Glasgow coma scale total") == [15.0]
    assert values(source, "Glasgow coma scale eye opening") == [1.0]  # the day's last


def test_capillary_refill_is_read_from_its_text(tmp_path):
    rows = ["11,21,31,,2150-01-02 10:00:00,,223951,Abnormal >3 Seconds,,,0",
            "11,21,31,,2150-01-03 05:00:00,,224308,Normal <3 Seconds,,,0"]
    source = read(write_extract(tmp_path / "raw", with_rows("icu/chartevents", *rows)), tmp_path / "cache")
    assert values(source, "Capillary refill rate") == [1.0, 0.0]


def test_repeats_values_out_of_range_and_times_out_of_the_stay_are_dropped_and_counted(tmp_path):
    rows = [ROWS["icu/chartevents"][0], "11,21,31,,2150-01-01 09:30:00,,220045,999,999,bpm,0",
            "11,21,31,,2150-01-04 09:30:00,,220045,77,77,bpm,0"]
    source = read(write_extract(tmp_path / "raw", with_rows("icu/chartevents", *rows)), tmp_path / "cache")
    assert values(source, "Heart Rate") == [85.0, 70.0, 120.0, 130.0]
    assert found(source, "repeats stay, time") == 1
    assert found(source, "Heart Rate outside") == 1
    assert found(source, "outside of all stays") == 1


@pytest.mark.parametrize(("table", "rows", "reason"), [
    ("icu/icustays", ["12,23,34,SICU,SICU,2160-03-02 00:00:00,2160-03-01 00:00:00,1"], "outtime not after intime"),
    ("icu/icustays", ["12,23,34,SICU,SICU,2160-02-02 00:00:00,2160-02-04 00:00:00,1"], "begins before an earlier stay"),
    ("icu/icustays", ["12,99,34,SICU,SICU,2160-03-02 00:00:00,2160-03-04 00:00:00,1"], "admission is not in"),
    ("icu/icustays", ["12,23,34,SICU,SICU,2160-03-02 00:00:00,,1"], "no outtime"),
    ("icu/icustays", ["12,23,34,SICU,SICU,yesterday,2160-03-04 00:00:00,1"], "cannot be read"),
    ("icu/icustays", ["12,23,34,SICU,SICU,,2160-03-04 00:00:00,1"], "no intime"),
    ("hosp/admissions", ["11,26,2150-02-01 00:00:00,,,0"], "no dischtime"),
    ("hosp/admissions", ["11,26,2150-02-01 00:00:00,2150-02-09 00:00:00,,"], "hospital_expire_flag is not 0 or 1"),
    ("hosp/patients", ["13,,70,2160,2014 - 2016,"], "gender is neither M nor F"),
    ("icu/icustays", ["12,23,33,SICU,SICU,2160-02-01 02:00:00,2160-02-05 10:00:00,4"], "stands twice"),
    ("hosp/patients", ["12,F,70,2160,2014 - 2016,"], "stands twice"),
    ("hosp/admissions", ["12,23,2160-02-01 00:00:00,2160-02-09 10:00:00,,0"], "stands twice")])
def test_rows_that_break_a_rule_go_to_quarantine(tmp_path, table, rows, reason):
    more = {"icu/icustays": [*ROWS["icu/icustays"], "11,22,35,MICU,MICU,2150-01-26 00:00:00,2150-01-27 00:00:00,1",
                             "11,26,36,MICU,MICU,2150-02-02 00:00:00,2150-02-03 00:00:00,1",
                             "13,23,37,SICU,SICU,2160-02-02 00:00:00,2160-02-03 00:00:00,1"]}
    more[table] = [*more.get(table, ROWS[table]), *rows]
    source = read(write_extract(tmp_path / "raw", more), tmp_path / "cache", SECTION)
    assert any(reason in text for text in source.quarantine["reason"])
    assert found(source, "row repeats" if reason == "stands twice" else reason) >= 1


def test_a_row_that_repeats_as_a_whole_is_dropped_and_counted(tmp_path):
    folder = write_extract(tmp_path / "raw", with_rows("icu/icustays", ROWS["icu/icustays"][0]))
    source = read(folder, tmp_path / "cache")
    assert source.stays.height == 3
    assert found(source, "icu/icustays: row repeats") == 1


def test_a_missing_table_is_named(tmp_path):
    folder = write_extract(tmp_path / "raw")
    (folder / "icu/chartevents.csv.gz").unlink()
    with pytest.raises(MissingFileError, match=r"icu/chartevents\.csv\.gz"):
        open_extract(folder)


def test_a_table_that_is_there_twice_is_refused(tmp_path):
    folder = write_extract(tmp_path / "raw")
    write_extract(folder, packed=False)
    with pytest.raises(DataError, match="2 times"):
        open_extract(folder)


@pytest.mark.parametrize(("old", "new", "words"), [
    ("charttime", "chart_time", r"no column 'charttime'; unknown columns: chart_time"),
    (",warning", "", None), (",warning", ",warning,ward", "unknown column 'ward'"),
    ("warning", "value", "'value' twice"), (",", ";", "its header is one column")])
def test_columns_are_checked(tmp_path, old, new, words):
    name = "icu/chartevents"
    columns = {name: COLUMNS[name].replace(old, new) if old != "," else COLUMNS[name].replace(",", ";")}
    folder = write_extract(tmp_path / "raw", columns=columns)
    if words is None:
        open_extract(folder)
        return
    with pytest.raises(DataError, match=words):
        open_extract(folder)


def test_extra_columns_pass_where_they_are_allowed(tmp_path):
    name = "hosp/patients"
    folder = write_extract(tmp_path / "raw", columns={name: COLUMNS[name] + ",ward"})
    assert "ward" in open_extract(folder, allow_extra=True).tables[name].columns


@pytest.mark.parametrize(("folder", "columns", "version"), [
    ("mimic-iv-3.1", None, "3.1"), ("mimic-iv-demo-2.2", None, "2.2"), ("extract", None, "2.1+"),
    ("extract", {"icu/chartevents": COLUMNS["icu/chartevents"].replace("caregiver_id,", "")}, "2.0")])
def test_the_version_is_found_out(tmp_path, folder, columns, version):
    assert open_extract(write_extract(tmp_path / folder, columns=columns)).version == version


@pytest.mark.parametrize(("folder", "words"), [("mimic-iv-9.0", "known versions"), ("mimic-iv-2.0", "caregiver_id")])
def test_unknown_and_contradicting_versions_are_refused(tmp_path, folder, words):
    with pytest.raises(DataError, match=words):
        open_extract(write_extract(tmp_path / folder))


def test_a_truncated_file_is_refused_and_leaves_no_cache(tmp_path):
    folder = write_extract(tmp_path / "raw", {"icu/chartevents": ROWS["icu/chartevents"] * 2000})
    path = folder / "icu/chartevents.csv.gz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="truncated or damaged"):
        read(folder, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("chartevents*"))


def test_damaged_bytes_are_refused(tmp_path):
    folder = write_extract(tmp_path / "raw")
    path = folder / "icu/chartevents.csv.gz"
    data = bytearray(path.read_bytes())
    data[-8] ^= 0xFF  # the checksum of the content
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="truncated or damaged"):
        read(folder, tmp_path / "cache")


@pytest.mark.parametrize("table", ["icu/chartevents", "icu/icustays", "hosp/labevents", "hosp/patients"])
def test_an_empty_table_is_refused(tmp_path, table):
    with pytest.raises(DataError, match="a header and no row"):
        read(write_extract(tmp_path / "raw", {table: []}), tmp_path / "cache")


def test_a_quote_that_never_closes_is_refused(tmp_path):
    rows = ['12,23,33,,2160-02-02 09:00:00,,226104,"open,,,0', ROWS["icu/chartevents"][0]]
    with pytest.raises(DataError, match="never closes"):
        read(write_extract(tmp_path / "raw", with_rows("icu/chartevents", *rows)), tmp_path / "cache")


def test_a_file_full_of_nonsense_is_refused_with_its_commonest_reason(tmp_path):
    rows = ["11,21,31,,not a date,,220045,80,80,bpm,0"] * 5
    with pytest.raises(DataError, match=r"5 of .* go to quarantine: a time that is no .* \(5\); the first is data row"):
        read(write_extract(tmp_path / "raw", with_rows("icu/chartevents", *rows)), tmp_path / "cache")


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    folder = write_extract(tmp_path / "raw")
    path = folder / "icu/chartevents.csv.gz"
    from ehr.sources.mimic_iv import blocks

    real = blocks._csv

    def changing(table, wanted):
        yield from real(table, wanted)
        if table.path == path:
            path.write_bytes(path.read_bytes() + gzip.compress(b"1\n"))

    monkeypatch.setattr(blocks, "_csv", changing)
    with pytest.raises(DataError, match="changed while it was read"):
        read(folder, tmp_path / "cache")


def test_a_full_disk_is_a_storage_error(tmp_path, monkeypatch):
    def no_space(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ehr.sources.mimic_iv.ingest.pq.write_table", no_space)
    with pytest.raises(StorageError, match="No space left"):
        read(write_extract(tmp_path / "raw"), tmp_path / "cache")


def test_a_second_reading_takes_everything_from_the_cache(tmp_path, monkeypatch):
    folder = write_extract(tmp_path / "raw")
    first = read(folder, tmp_path / "cache")
    monkeypatch.setattr("ehr.sources.mimic_iv.ingest.blocks", lambda *_: pytest.fail("read again"))
    monkeypatch.setattr("ehr.sources.days.aggregate", lambda *_: pytest.fail("computed again"))
    again = read(folder, tmp_path / "cache")
    assert again.days.equals(first.days)
    assert again.attrition == first.attrition


def test_only_patients_that_changed_are_computed_again(tmp_path, monkeypatch):
    read(write_extract(tmp_path / "raw"), tmp_path / "cache")
    row = "12,23,33,,2160-02-02 09:00:00,,220045,150,150,bpm,0"
    newer = write_extract(tmp_path / "newer", with_rows("icu/chartevents", row))
    whole = read(newer, tmp_path / "other")
    from ehr.sources import days

    seen, real = [], days.aggregate

    def watched(measured, windows, known):
        seen.extend(windows.subjects.tolist())
        return real(measured, windows, known)

    monkeypatch.setattr(days, "aggregate", watched)
    partial = read(newer, tmp_path / "cache")
    assert seen == [12]
    assert partial.days.equals(whole.days)
    assert partial.attrition == whole.attrition
