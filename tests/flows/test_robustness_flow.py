"""`eag-rl robustness` on real Prefect and MLflow, with a scripted server in place of the language model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.openai_server import ScriptedServer
from support.risk_server import risk_server
from support.tiny_study import eag_rl, last_json, ran, tiny_study

pytestmark = [pytest.mark.smoke, pytest.mark.timeout(1200)]
STEPS = ("shuffle-1.0", "rename-1.0")
STAGES = {"cohort", "expert", "readings", "patients", "base", "baselines", "verdicts:vanilla", "robustness",
          "perturbed-readings:shuffle-1.0", "perturbed-baselines:shuffle-1.0",
          *(f"{stage}:{step}" for stage in ("perturbed", "perturbed-patients") for step in STEPS),
          *(f"perturbed-verdicts:vanilla@{step}" for step in STEPS)}


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with risk_server() as scripted:
        yield scripted


@pytest.fixture(scope="module")
def arguments(server: ScriptedServer, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A tiny study whose experiment needs no adapter."""
    path = tiny_study(tmp_path_factory.mktemp("robustness"))
    sets = [f"serving.url={server.url}", "robustness.kinds=[shuffle,rename]", "robustness.arms=[vanilla]",
            "evaluation.completion_tokens=64"]
    return ["--config", str(path), "--json", *(part for one in sets for part in ("--set", one))]


@pytest.fixture(scope="module")
def first(arguments: list[str]) -> dict[str, Any]:
    """What the first run printed."""
    return last_json(eag_rl("robustness", *arguments, "--set", "robustness.shares=[0,1]"))


def test_the_study_runs_as_far_as_its_arms_need_and_the_stays_are_judged_again(first: dict[str, Any]) -> None:
    assert ran(first) == STAGES
    rows = first["result"]["table"]
    assert {(row["kind"], row["share"], row["arm"], row["reading"]) for row in rows} == {
        (kind, share, arm, reading) for kind in ("shuffle", "rename") for share in (0.0, 1.0)
        for arm, reading in (("vanilla", "stated"), ("vanilla", "tokens"), ("expert", "model"),
                             ("logistic regression", "model"), ("gradient boosting", "model"))}
    assert {row["n"] for row in rows} == {8} and {row["parse_rate"] for row in rows} == {1.0}
    page = Path(first["result"]["page"]).read_text(encoding="utf-8")
    assert page.count("<svg") == 2 and "http://" not in page


def test_a_rerun_makes_nothing_and_asks_nothing(first: dict[str, Any], arguments: list[str], server: ScriptedServer
                                                ) -> None:
    asked = len(server.requests())
    again = last_json(eag_rl("robustness", *arguments, "--set", "robustness.shares=[0,1]"))
    assert ran(again) == set() and again["result"] == first["result"]
    assert len(server.requests()) == asked == 3 * 8


@pytest.mark.usefixtures("first")
def test_another_share_makes_only_what_it_needs(arguments: list[str]) -> None:
    more = last_json(eag_rl("robustness", *arguments, "--set", "robustness.shares=[0,0.5,1]", "--set",
                            "robustness.kinds=[rename]"))
    assert ran(more) == {"perturbed:rename-0.5", "perturbed-patients:rename-0.5",
                         "perturbed-verdicts:vanilla@rename-0.5", "robustness"}


@pytest.mark.usefixtures("first")
def test_the_study_itself_takes_over_what_the_experiment_made(arguments: list[str]) -> None:
    assert ran(last_json(eag_rl("run", *arguments, "--until", "expert"))) == set()


@pytest.mark.usefixtures("first")
def test_lineage_walks_back_to_the_perturbed_stays_and_the_study(arguments: list[str]) -> None:
    node = last_json(eag_rl("lineage", "robustness", *arguments, "--verify"))
    assert node["kind"] == "robustness" and node["altered"] == []
    step = node["inputs"]["rename-1.0.verdicts.vanilla"]["inputs"]["patients"]["inputs"]
    assert step["perturbed"]["inputs"]["cohort"]["id"] == node["inputs"]["cohort"]["id"]


def test_the_figures_stand_in_mlflow(first: dict[str, Any], arguments: list[str]) -> None:
    from lineage.tracking import Tracker

    client = Tracker(Path(arguments[1]).parent / "workspace", "tiny").client
    runs = {run.data.tags.get("artifact.id"): run
            for run in client.search_runs([client.get_experiment_by_name("eag-rl").experiment_id])}
    metrics = runs[first["artifacts"]["robustness"]["id"]].data.metrics
    row = next(row for row in first["result"]["table"] if row["arm"] == "expert" and row["share"] == 1.0)
    assert metrics[f"expert/model/{row['kind']}-1/auroc"] == pytest.approx(row["auroc_point"])
