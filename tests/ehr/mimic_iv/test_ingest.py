"""Event tables to measurements: how much may be set aside, counted once, and times of which clock."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.errors import DataError
from ehr.sources.mimic_iv import ingest as ingestion
from ehr.sources.mimic_iv.blocks import blocks
from ehr.sources.mimic_iv.ingest import counts_of, ingest
from ehr.sources.mimic_iv.layout import Table
from ehr.sources.mimic_iv.source import _table_steps

COLUMNS = ("subject_id", "hadm_id", "stay_id", "charttime", "itemid", "value", "valuenum", "valueuom")
GOOD = "11,2,3,2150-01-01 00:00:00,220045,88,88,bpm\n"
ODD_UNIT, NO_NUMBER, OTHER = GOOD.replace("bpm", "furlong"), GOOD.replace("88,88", "high,"), GOOD.replace("220045", "7")
UNREAD = GOOD.replace("2150-01-01", "yesterday")
# 100 rows of interest: 30 are set aside, of which 20 could not even be read.
ROWS = GOOD * 65 + ODD_UNIT * 10 + UNREAD * 20 + NO_NUMBER * 5 + OTHER * 900


def table(folder: Path, rows: str = ROWS) -> Table:
    path = folder / "chartevents.csv"
    path.write_text(",".join(COLUMNS) + "\n" + rows, encoding="utf-8")
    return Table("icu/chartevents", path, "csv", COLUMNS)


def test_the_limit_is_asked_for_whenever_a_table_is_taken_from_the_cache(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = table(tmp_path)
    words = r"30 of 100 rows go to quarantine: a time .* \(20\), a unit .* \(10\); the first is data row 65"
    with pytest.raises(DataError, match=words):
        ingest(one, "a" * 64, tmp_path / "cache", 0.01)
    folder = ingest(one, "a" * 64, tmp_path / "cache", 0.5)
    monkeypatch.setattr(ingestion, "_ingest", lambda *_: pytest.fail("read again"))
    assert ingest(one, "a" * 64, tmp_path / "cache", 0.3) == folder
    for limit in (0.01, 0.29):
        with pytest.raises(DataError, match=words) as caught:
            ingest(one, "a" * 64, tmp_path / "cache", limit)
        assert f"at most a share of {limit:g}" in caught.value.rule


def test_every_row_of_an_event_table_is_counted_once(tmp_path: Path) -> None:
    folder = ingest(table(tmp_path), "a" * 64, tmp_path / "cache", 1.0)
    steps = {step.rule.partition(": ")[2]: (step.found, step.kept) for step in _table_steps(folder, "icu/chartevents")}
    assert steps.pop("no hadm_id: placed by patient and time") == (0, 65)
    assert steps == {"row of another item: not read": (900, 100), "no number: dropped": (5, 95),
                     "a time that is no YYYY-MM-DD HH:MM:SS: set aside": (20, 75),
                     "a unit nobody knows for this item: set aside": (10, 65)}
    assert counts_of(folder)["kept"] == 65


@pytest.mark.parametrize("zone", ["America/New_York", "UTC", "+02:00"])
def test_parquet_times_with_a_zone_are_refused_and_not_moved(tmp_path: Path, zone: str) -> None:
    rows = pl.DataFrame({"subject_id": [11], "hadm_id": [2], "stay_id": [3], "itemid": [220045], "value": ["88"],
                         "charttime": [datetime(2150, 1, 1, 3, 4, 5)], "valuenum": [88.0], "valueuom": ["bpm"]})
    path = tmp_path / "chartevents.parquet"
    one = Table("icu/chartevents", path, "parquet", COLUMNS)
    rows.write_parquet(path)
    assert [found.time.tolist() for found in blocks(one, [220045])] == [[5680292645]]
    arrow = rows.to_arrow()
    zoned = arrow["charttime"].cast(pa.timestamp("us", zone))
    pq.write_table(arrow.set_column(arrow.column_names.index("charttime"), "charttime", zoned), path)
    with pytest.raises(DataError, match=f"charttime has the zone {zone.replace('+', '.')}") as caught:
        list(blocks(one, [220045]))
    assert caught.value.next_step == "write local times without zone"
