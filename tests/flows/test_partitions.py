"""Parts of an extract on the workers of a Dask cluster: two processes, a Prefect task a part, the same cohort."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import polars as pl
import pytest

from ehr.extracts.write import synthesize
from support.tiny_study import eag_rl, last_json


@pytest.mark.smoke
def test_two_worker_processes_and_a_store_make_the_same_cohort(tmp_path: Path) -> None:
    pytest.importorskip("prefect_dask")
    raw = synthesize(tmp_path / "raw", "mimic-iv-3.1", 150, rows_per_stay=300).folder
    made = {}
    for name, data, more in (("threads", str(raw), ()), ("dask", raw.as_uri(), (
            "--set", "partitions.engine=dask", "--set", f"partitions.cache={(tmp_path / 'store').as_uri()}"))):
        counts = last_json(eag_rl("cohort", "--config", "mimic_iv_mortality", "--set", f"paths.data={data}", "--set",
                                  f"paths.workspace={tmp_path / name}", *more, "--json"))
        folder, = (tmp_path / name / "artifacts" / "cohort").iterdir()
        made[name] = counts, {file.name: file.read_bytes() for file in folder.glob("*.parquet")}, (
            folder / "attrition.json").read_text()
    assert made["threads"] == made["dask"]
    assert not list((tmp_path / "dask" / "cache").glob("chartevents-*"))
    parts = pl.concat(pl.read_parquet(path) for path in (tmp_path / "store").glob("*/patients.parquet"))["part"]
    with sqlite3.connect(tmp_path / "dask" / "prefect" / "prefect.db") as database:
        runs = database.execute("select name, state_type from task_run where name like 'part-%'").fetchall()
    assert {f"part-{part}" for part in parts.unique()} <= {name for name, _ in runs}
    assert {state for _, state in runs} == {"COMPLETED"}
