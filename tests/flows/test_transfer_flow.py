"""`eag-rl transfer` on real Prefect and MLflow, with a scripted server in place of the language model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ehr.sources.tjh_workbook import FILE
from support.openai_server import ScriptedServer
from support.risk_server import risk_server
from support.tiny_study import eag_rl, last_json, ran, tiny_study
from support.tjh_sheet import hospital

pytestmark = [pytest.mark.smoke, pytest.mark.timeout(1200)]
STAGES = {"cohort", "cohort@target", "shared:source", "shared:target", "expert", "readings", "patients", "base",
          "expert@target", "readings@target", "patients@target", "baselines", "expert@shared", "transferred-readings",
          "transferred-patients@decomposition", "verdicts:decomposition@tiny", "transferred-baselines",
          "transfer:tiny to there"}
SHOWN = {("decomposition", "nothing", "shared words"), *(
    (arm, trained, reads) for arm in ("logistic regression", "gradient boosting", "best single feature")
    for trained, reads in (("source", "shared features"), ("target", "shared features"), ("target", "all features"))),
    ("expert", "source", "shared features"), ("expert", "target", "all features")}


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with risk_server() as scripted:
        yield scripted


@pytest.fixture(scope="module")
def arguments(server: ScriptedServer, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A tiny study of generated stays, and one of an invented workbook, whose arm needs no adapter."""
    folder = tmp_path_factory.mktemp("transfer")
    path = tiny_study(folder)
    there = {"extends": str(path), "study": {"name": "there"}, "paths": {"data": str(hospital(folder / "data"))},
             "cohort": {"source": "tjh"}, "expert": {"seeds": 1, "permutations": 1}, "serving": {"url": server.url}}
    target = folder / "there.yaml"
    target.write_text(yaml.safe_dump(there), encoding="utf-8")
    sets = [f"serving.url={server.url}", "transfer.arms=[decomposition]", "evaluation.completion_tokens=64",
            "expert.seeds=1", "expert.permutations=1"]
    return ["--config", str(path), "--to", str(target), "--json", *(part for one in sets for part in ("--set", one))]


@pytest.fixture(scope="module")
def first(arguments: list[str]) -> dict[str, Any]:
    """What the first run printed."""
    return last_json(eag_rl("transfer", *arguments))


def test_both_studies_run_as_far_as_needed_and_the_target_is_judged(first: dict[str, Any]) -> None:
    assert ran(first) == STAGES
    rows = first["result"]["table"]
    assert {(row["arm"], row["trained"], row["reads"]) for row in rows} == SHOWN
    assert {row["n"] for row in rows} == {8}
    page = Path(first["result"]["page"]).read_text(encoding="utf-8")
    assert "Trained on tiny, judged on there" in page and page.count("<svg") == 1 and "http://" not in page
    assert "Glucose" in page and "PH value" in page and "has not judged decomposition itself" in page


def test_a_prompt_of_the_target_has_the_words_and_units_of_the_source(first: dict[str, Any],
                                                                      arguments: list[str]) -> None:
    import polars as pl

    workspace = Path(arguments[1]).parent / "workspace"
    patients = pl.read_parquet(workspace / first["artifacts"]["patients"]["uri"] / "patients.parquet")
    text = "\n".join(patients["evidence"])
    assert "Glucose (mg/dL): " in text and "pH: " in text and "hemoglobin (g/L): " in text
    assert "glucose (mmol/L)" not in text and "PH value" not in text
    assert set(patients["split"]) == {"test"}


def test_a_rerun_makes_nothing_and_asks_nothing(first: dict[str, Any], arguments: list[str], server: ScriptedServer
                                                ) -> None:
    asked = len(server.requests())
    again = last_json(eag_rl("transfer", *arguments))
    assert ran(again) == set() and again["result"] == first["result"]
    assert len(server.requests()) == asked == 8


@pytest.mark.usefixtures("first")
def test_what_the_target_study_has_judged_is_compared_with(arguments: list[str]) -> None:
    target = arguments[arguments.index("--to") + 1]
    own_study = last_json(eag_rl("run", "--config", target, "--set", "evaluation.arms=[decomposition]", "--set",
                                 "evaluation.visits=[last,first]", "--json"))
    assert {"first-visit", "verdicts:decomposition, first visit"} <= ran(own_study)
    assert {"decomposition, first visit", "expert, first visit", "logistic regression, first visit"} <= {
        row["Arm"] for row in own_study["result"]["table"]}
    found = last_json(eag_rl("transfer", *arguments))
    assert ran(found) == {"transfer:tiny to there"}
    row = next(row for row in found["result"]["table"] if row["reads"] == "shared words" and row["reading"] == "stated")
    own = next(row for row in found["result"]["table"] if row["reads"] == "own words" and row["reading"] == "stated")
    assert row["auroc_target_point"] == pytest.approx(row["auroc_point"] - own["auroc_point"])
    assert own["auroc_target_point"] is None and row["auroc_base_point"] is None


@pytest.mark.usefixtures("first")
def test_another_outcome_is_refused_before_anything_runs(arguments: list[str]) -> None:
    done = eag_rl("transfer", *arguments, "--set-to", "cohort.source=mimic_iv", "--set-to",
                  "cohort.outcome=readmission", check=False)
    assert done.returncode == 2 and "predicts mortality, there readmission" in last_json(done)["value"]


@pytest.mark.usefixtures("first")
def test_lineage_walks_back_to_both_cohorts(arguments: list[str]) -> None:
    node = last_json(eag_rl("lineage", "transfer", "--config", arguments[1], "--verify", "--json"))
    assert node["kind"] == "transfer" and node["altered"] == []
    assert set(node["inputs"]["shared"]["inputs"]) == {"source", "target"}
    assert FILE in json.dumps(node["source_files"])
