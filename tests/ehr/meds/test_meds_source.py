"""A MEDS dataset of a hospital with codes of its own: what its mapping makes of it, and what is refused."""

import hashlib
from types import SimpleNamespace

import polars as pl
import pytest

from configs.schema import Cohort, Meds
from contracts.errors import ConfigError, DataError, MissingFileError
from contracts.features import catalogue
from ehr.cohort import read_source
from ehr.sources.meds.mapping import read_mapping
from ehr.sources.meds.source import read_meds, source_files
from ehr.sources.source import checked
from support.meds_dataset import EVENTS, MAPPING, frame, write_dataset, write_mapping
from tasks.cohort import source_files as files_of


def read(tmp_path, events=EVENTS, outcome="mortality", limit=0.01, data=None, choices=None, **changes):
    mapping = write_mapping(tmp_path / "hospital.yaml", **changes)
    section = Cohort(source="meds", outcome=outcome,
                     meds=Meds(mapping=mapping, quarantine_limit=limit, **(choices or {})))
    data = data or write_dataset(tmp_path / "meds", events)
    files = source_files(data, section)
    checksums = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    return read_meds(data, section, tmp_path / "cache", checksums)


def values(source, feature):
    return source.days.sort("date", feature)[feature].drop_nulls().to_list()


def found(source, words):
    return sum(step.found for step in source.attrition if words in step.rule)


def test_another_hospital_needs_a_mapping_and_no_code(tmp_path):
    source = checked(read(tmp_path), catalogue("mimic_iv"))
    stays = source.stays.sort("admitted_at")
    assert stays.select("age", "sex", "label").rows() == [
        (69.0, "female", 0), (69.0, "female", 0), (101.0, "male", 1)]  # her birthday is in June
    assert values(source, "Heart Rate") == [85.0, 70.0, 120.0]
    assert values(source, "Glucose") == [180.156, 100.0]
    assert values(source, "Temperature") == pytest.approx([37.0, 38.5])
    assert (values(source, "Weight"), values(source, "Height")) == ([70.5], [171.0])
    assert values(source, "Capillary refill rate") == [1.0, 1.0]  # the day's last
    assert values(source, "Fraction inspired oxygen") == [40.0]
    assert values(source, "Glasgow coma scale total") == [6.0]  # only where all parts stand at one moment
    assert found(source, "outside of all stays") == 1
    assert source.quarantine.height == 0


def test_readmission_leaves_out_deaths_and_counts_from_the_discharge(tmp_path):
    source = read(tmp_path, outcome="readmission")
    assert source.stays.sort("admitted_at")["label"].to_list() == [1, 0]


def test_a_patient_who_is_back_and_has_not_left_yet_is_a_readmission(tmp_path):
    more = [*EVENTS, (1, "2020-04-10 08:00", "ADM", None, None), (1, "2020-04-10 10:00", "ITS:in C", None, None)]
    source = read(tmp_path, more, outcome="readmission")
    assert source.stays.sort("admitted_at")["label"].to_list() == [1, 1]
    assert source.quarantine["reason"].to_list() == ["its admission is not in the data"]


@pytest.mark.parametrize(("choices", "rates"), [
    ({"unit": "first"}, [85.0, 120.0]), ({"unit": "last"}, [70.0, 120.0]),
    ({"window": "first_hours", "hours": 1.5}, [80.0, 70.0])])
def test_units_and_windows_are_those_of_the_other_sources(tmp_path, choices, rates):
    assert values(read(tmp_path, choices=choices), "Heart Rate") == rates


def test_a_second_reading_takes_the_measurements_from_the_cache(tmp_path, monkeypatch):
    first = read(tmp_path)
    monkeypatch.setattr("ehr.sources.meds.measurements._write", lambda *_: pytest.fail("read again"))
    assert read(tmp_path).days.equals(first.days)


def test_one_flat_file_gives_the_same_source(tmp_path):
    whole = read(tmp_path)
    folder = tmp_path / "above" / "flat"
    folder.mkdir(parents=True)
    frame(EVENTS).rename({"numeric_value": "value"}).sort("code").write_parquet(folder / "events.parquet")
    flat = read(tmp_path, data=folder.parent)
    assert flat.days.equals(whole.days)
    assert flat.stays.equals(whole.stays)


def test_the_codes_of_a_discharge_decide_where_there_are_any(tmp_path):
    admissions = {**MAPPING["admissions"], "died": [{"code": "DIS:home"}]}
    assert read(tmp_path, admissions=admissions).stays.sort("admitted_at")["label"].to_list() == [1, 0, 0]


@pytest.mark.parametrize(("hours", "labels"), [(0.0, [0, 0, 0]), (3.0, [0, 0, 1])])
def test_a_death_soon_after_the_discharge_counts_within_the_tolerance(tmp_path, hours, labels):
    later = [(2, "2021-01-02 22:00", *event[2:]) if event[2] == "DEATH" else event for event in EVENTS]
    source = read(tmp_path, later, death_tolerance_hours=hours)
    assert source.stays.sort("admitted_at")["label"].to_list() == labels


def test_without_admissions_a_stay_is_its_own(tmp_path):
    assert read(tmp_path, admissions=None).stays["label"].sum() == 1


def test_stays_that_break_a_rule_are_set_aside(tmp_path):
    more = [*EVENTS, (1, "2020-04-20 10:00", "ITS:in C", None, None), (3, "2020-04-20 10:00", "ITS:in A", None, None),
            (3, "2020-04-20 08:00", "ADM", None, None), (3, "2020-04-22 08:00", "DIS", None, None),
            (3, "2020-04-21 10:00", "ITS:out A", None, None), (1, "2020-01-01 10:00", "ITS:out", None, None)]
    source = read(tmp_path, more)
    assert sorted(source.quarantine["reason"]) == ["its admission is not in the data", "its patient has no birth"]
    assert found(source, "stays: end without a begin") == 1
    assert source.stays.height == 3


def test_a_begin_without_an_end_does_not_take_that_of_the_next_stay(tmp_path):
    more = [*EVENTS, (1, "2020-03-20 09:00", "ITS:in C", None, None)]
    source = read(tmp_path, more)
    assert source.quarantine["reason"].to_list() in (["no outtime"], ["its admission is not in the data"])
    assert source.stays.height == 3


def test_unknown_units_and_texts_are_set_aside_up_to_the_limit(tmp_path):
    more = [*EVENTS, (1, "2020-03-01 13:00", "BZ|grain", 10.0, None), (1, "2020-03-01 13:00", "REKAP", None, "odd")]
    with pytest.raises(DataError, match=r"'BZ\|grain' \(a unit nobody knows"):
        read(tmp_path, more)
    source = read(tmp_path, more, limit=0.5)
    assert source.quarantine.select("table", "key", "text").rows() == [
        ("events", "REKAP", "1 rows"), ("events", "BZ|grain", "1 rows")]


def test_the_limit_is_asked_for_when_measurements_come_from_the_cache(tmp_path, monkeypatch):
    more = [*EVENTS, (1, "2020-03-01 13:00", "BZ|grain", 10.0, None)]
    assert found(read(tmp_path, more, limit=0.5), "a unit nobody knows") == 1
    monkeypatch.setattr("ehr.sources.meds.measurements._write", lambda *_: pytest.fail("read again"))
    with pytest.raises(DataError, match=r"1 of \d+ measurements are set aside: 'BZ\|grain'"):
        read(tmp_path, more, limit=0.01)
    assert found(read(tmp_path, more, limit=0.5), "a unit nobody knows") == 1


def test_rows_without_a_number_or_a_usable_time_are_counted(tmp_path):
    more = [*EVENTS, (1, "2020-03-01 13:00", "Puls", None, None), (1, "2020-03-01 13:00", "Puls", float("nan"), None),
            (1, None, "Puls", 80.0, None), (1, "1960-01-01 00:00", "Puls", 80.0, None)]
    source = read(tmp_path, more)
    assert [found(source, words) for words in ("no number", "no time", "before 1970 or after")] == [2, 1, 1]


def test_a_rule_that_matches_nothing_is_a_counted_warning(tmp_path):
    features = {**MAPPING["features"], "pH": {"codes": [{"code": "PH-BGA"}]}}
    source = read(tmp_path, features=features)
    assert found(source, "matches no code of the data (pH, code 'PH-BGA')") == 1
    assert source.quarantine["key"].to_list() == ["pH, code 'PH-BGA'"]


@pytest.mark.parametrize(("changes", "words"), [
    ({"features": {"Heart Rat": {"codes": [{"code": "Puls"}]}}}, "unknown feature 'Heart Rat'; features of catalogue"),
    ({"features": None}, "maps no code to any feature"),
    ({"features": {"Weight": {"codes": [{"code": "W", "unit": "stone"}]}}}, "unit 'stone' is not that of the cat"),
    ({"features": {"Weight": {"codes": [{"code": "W", "prefix": "W"}]}}}, "exactly one of code, prefix, regex, parent"),
    ({"features": {"Weight": {"codes": [{"regex": "W("}]}}}, "no regular expression"),
    ({"features": {"Weight": {"codes": [{"code": "W", "factor": 2, "unit": "kg"}]}}}, "a factor or a unit, not both"),
    ({"death": None}, "no outcome"), ({"stays": None}, "stays: Field required"), ({"birht": []}, "birht"),
    ({"items": {"of": "mimic_iv", "regex": "^LAB"}}, "has the groups")])
def test_a_wrong_mapping_is_refused_with_its_place(tmp_path, changes, words):
    with pytest.raises(ConfigError) as raised:
        read_mapping(write_mapping(tmp_path / "hospital.yaml", **changes))
    assert words in raised.value.value
    assert "hospital.yaml" in raised.value.next_step


@pytest.mark.parametrize(("text", "words"), [("", "maps nothing"), ("[1, 2]", "maps nothing"), ("a: [", "is no YAML")])
def test_a_mapping_that_is_none_is_refused(tmp_path, text, words):
    (tmp_path / "empty.yaml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_mapping(str(tmp_path / "empty.yaml"))
    with pytest.raises(ConfigError, match="one of: mimic_iv"):
        read_mapping("mimic_v")


@pytest.mark.parametrize(("changes", "kind", "words"), [
    ({"features": {"Heart Rate": {"codes": [{"code": "HR"}]}}}, DataError, "no code of the data means a feature.*Puls"),
    ({"stays": {"begin": [{"code": "ICU"}], "end": [{"prefix": "ITS:out"}]}}, DataError, "no stays: .*stays.begin"),
    ({"features": {"Heart Rate": {"codes": [{"code": "Puls"}, {"prefix": "Pu"}]}}}, ConfigError, "matched twice")])
def test_a_mapping_that_does_not_fit_the_data_is_refused(tmp_path, changes, kind, words):
    with pytest.raises(kind, match=words):
        read(tmp_path, sums=None, fractions=None, **changes)


@pytest.mark.parametrize(("spoil", "words"), [
    (pl.all().exclude("code"), "no column 'code'"), (pl.all().exclude("numeric_value"), "no column 'numeric_value'"),
    (pl.all().cast(pl.String), "column subject_id is String"),
    (pl.all().exclude("time"), "no column 'time'")])
def test_columns_are_checked(tmp_path, spoil, words):
    folder = write_dataset(tmp_path / "meds")
    frame(EVENTS).select(spoil).write_parquet(folder / "data/train/0.parquet")
    with pytest.raises(DataError, match=words):
        read(tmp_path, data=folder)


def test_times_with_a_zone_are_refused(tmp_path):
    folder = write_dataset(tmp_path / "meds")
    zoned = frame(EVENTS).with_columns(pl.col("time").dt.replace_time_zone("UTC"))
    zoned.write_parquet(folder / "data/train/0.parquet")
    with pytest.raises(DataError, match="datetime without zone"):
        read(tmp_path, data=folder)


def test_a_folder_without_a_dataset_and_a_damaged_file_are_refused(tmp_path):
    with pytest.raises(MissingFileError, match="no dataset"):
        read(tmp_path, data=tmp_path)
    with pytest.raises(MissingFileError, match="no data folder"):
        source_files(None, Cohort(source="meds"))
    folder = write_dataset(tmp_path / "meds")
    (folder / "data/train/0.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"train/0\.parquet"):
        read(tmp_path, data=folder)


def test_the_cohort_stage_knows_every_file_by_its_digest(tmp_path):
    section = Cohort(source="meds", meds=Meds(mapping=write_mapping(tmp_path / "hospital.yaml")))
    folder = write_dataset(tmp_path / "meds")
    session = SimpleNamespace(config=SimpleNamespace(cohort=section), data=folder, workspace=tmp_path)
    digests = files_of(session)
    assert list(digests) == ["data/held_out/0.parquet", "data/train/0.parquet", "metadata/codes.parquet",
                             "mapping/hospital.yaml"]
    assert digests["mapping/hospital.yaml"] == hashlib.sha256((tmp_path / "hospital.yaml").read_bytes()).hexdigest()
    source = read_source(section, 42, folder, tmp_path / "cache", digests)
    assert (source.name, source.files) == ("meds", digests)


def test_codes_of_mimic_iv_borrow_items_units_and_conversions(tmp_path):
    ours = {"Puls": "LAB//220045//bpm", "BZ|mmol/l": "LAB//50931//mmol/L", "BZ|mg/dL": "LAB//50931//UNK",
            "TEMP[°F]": "LAB//223761//°F", "TEMP[°C]": "LAB//223762//°C", "REKAP": "LAB//223951//UNK",
            "Bemerkung": "LAB//51491//units", "BIRTH": "MEDS_BIRTH", "DEATH": "MEDS_DEATH",
            "ADM": "HOSPITAL_ADMISSION//X", "DIS:home": "HOSPITAL_DISCHARGE//HOME", "DIS": "HOSPITAL_DISCHARGE",
            "DIS:other": "HOSPITAL_DISCHARGE//DIED"}
    texts = {"Träge ": "Abnormal >3 Seconds", "prompt": "Normal <3 Seconds"}
    events = [(subject, time, f"GENDER//{text.upper()}" if code == "SEX" else ours.get(code, code).replace(
        "ITS:in", "ICU_ADMISSION//").replace("ITS:out", "ICU_DISCHARGE//"), number, texts.get(text, text))
        for subject, time, code, number, text in EVENTS]
    folder, section = write_dataset(tmp_path / "meds", events), Cohort(source="meds")
    files = source_files(folder, section)
    digests = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    source = read_meds(folder, section, tmp_path / "cache", digests)
    assert values(source, "Heart Rate") == [85.0, 70.0, 120.0]
    assert values(source, "Glucose") == [180.156, 100.0]
    assert values(source, "Temperature") == pytest.approx([37.0, 38.5])
    assert values(source, "Capillary refill rate") == [1.0, 0.0]
    assert source.days["pH"].null_count() == source.days.height  # item 51491 is of urine
    assert sorted(source.stays["age"]) == [69.0, 69.0, 91.0]
    assert source.stays.sort("admitted_at")["label"].to_list() == [0, 0, 1]


def by_parent(name):
    return {**MAPPING["features"], "Heart Rate": {"codes": [{"parent": name}]}}


@pytest.mark.parametrize("name", ["Vitalzeichen:Puls", "LOINC/8867-4"])
def test_a_rule_may_name_a_parent_of_its_codes_however_far_above(tmp_path, name):
    assert values(read(tmp_path, features=by_parent(name)), "Heart Rate") == [85.0, 70.0, 120.0]


def test_what_codes_descend_from_decides_the_cohort(tmp_path):
    about = write_dataset(tmp_path / "meds") / "metadata" / "codes.parquet"
    before = read(tmp_path, data=tmp_path / "meds", features=by_parent("LOINC/8867-4"))
    pl.DataFrame({"code": ["GEW"], "parent_codes": [["LOINC/8867-4"]]}).write_parquet(about)
    with pytest.raises(ConfigError, match="code 'GEW' is matched twice"):
        read(tmp_path, data=tmp_path / "meds", features=by_parent("LOINC/8867-4"))
    pl.DataFrame({"code": ["FiO2"], "description": ["oxygen"]}).write_parquet(about)  # no parents at all
    after = read(tmp_path, data=tmp_path / "meds", features=by_parent("LOINC/8867-4"))
    assert before.files != after.files
    assert values(after, "Heart Rate") == [] and "parent 'LOINC/8867-4'" in str(after.quarantine["key"].to_list())


def test_metadata_that_cannot_be_read_is_refused(tmp_path):
    about = write_dataset(tmp_path / "meds") / "metadata" / "codes.parquet"
    about.write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"metadata/codes.parquet"):
        read(tmp_path, data=tmp_path / "meds")
