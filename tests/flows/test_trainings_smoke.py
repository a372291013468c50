"""A study whose arm is trained with two seeds and recalibrated: real Prefect, MLflow and training, scripted answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from support.openai_server import ScriptedServer
from support.risk_server import risk_server
from support.tiny_study import eag_rl, last_json, ran, tiny_study
from tasks.costs import seconds_of

pytestmark = [pytest.mark.smoke, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with risk_server() as scripted:
        yield scripted


def test_a_second_seed_trains_once_more_and_shares_all_else(server: ScriptedServer, tmp_path: Path) -> None:
    path = tiny_study(tmp_path)
    sets = [f"serving.url={server.url}", "evaluation.arms=[decomposition,sft_labels]",
            "evaluation.completion_tokens=64", "evaluation.validation_stays=all", "evaluation.cpu_hour_price=1"]
    arguments = ["run", "--config", str(path), "--json", *(part for one in sets for part in ("--set", one))]
    first = last_json(eag_rl(*arguments))
    assert {"labels@sft_labels", "verdicts:sft_labels", "report"} <= ran(first)

    more = ["--set", "evaluation.policy_seeds=2", "--set", "evaluation.recalibrate=true"]
    second = last_json(eag_rl(*arguments, *more))
    assert ran(second) == {"labels@sft_labels.seed2", "verdicts:sft_labels@seed2", "report",
                           "validation-verdicts:decomposition", "validation-verdicts:sft_labels"}
    folder = Path(second["result"]["report"]).parent
    table = {row["arm"]: row for row in pl.read_csv(folder / "table.csv").iter_rows(named=True)}
    assert {arm: table[arm]["seeds"] for arm in ("decomposition", "sft_labels")} == {
        "decomposition": 1, "sft_labels": 2}
    assert pl.read_csv(folder / "seeds.csv").filter(pl.col("arm") == "sft_labels")["seed"].unique().to_list() == [
        42, 43]
    recalibrated = pl.read_csv(folder / "calibration.csv").filter(pl.col("recalibration") == "platt")
    assert set(recalibrated["arm"]) == {"decomposition", "sft_labels", "expert"}
    cost = {row["arm"]: row for row in pl.read_csv(folder / "cost.csv").iter_rows(named=True)}
    assert cost["sft_labels"]["training_seconds"] > 1.0 and cost["sft_labels"]["untimed_stages"] == 0
    assert cost["sft_labels"]["training_tokens"] > 0 and cost["decomposition"]["stages"] == 0
    assert all(row["seconds_per_patient"] > 0.0 and row["price_per_1000"] > 0.0 for row in cost.values())
    artifacts = tmp_path / "workspace" / "artifacts"
    manifests = [json.loads(manifest.read_text()) for manifest in artifacts.glob("*/*/manifest.json")]
    assert manifests and all(0.0 <= seconds_of(one) <= one["finished"] - one["started"] for one in manifests)
    again = last_json(eag_rl(*arguments, *more))
    assert ran(again) == set() and again["result"] == second["result"]
