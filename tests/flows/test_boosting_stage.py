"""Stage `boosting` writes readings, and the patients hear gradient boosting beside the expert."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest

import flows.arms
import tasks.boosting
import tasks.cohort
import tasks.patients
from configs.load import for_arm, load
from contracts.frames import READINGS
from contracts.patients import patients_of
from ehr.cohort import read
from lineage.fingerprint import code_digests
from support.judged import readings_of
from tasks.stage import Made, Stage, Work

pytestmark = pytest.mark.slow

CONFIG = load("demo", ["cohort.synthetic.stays=90", "evaluation.arms=[three_experts]"])


def _make(stage: Stage, session: Any, inputs: dict[str, Path], out: Path) -> Made:
    """Runs a stage's function alone, without Prefect and MLflow."""
    out.mkdir()
    return stage.make(Work(stage.name, session, inputs, cast(Any, inputs), out, out, "run"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Made]:
    folder = tmp_path_factory.mktemp("boosting")
    session = cast(Any, SimpleNamespace(config=for_arm(CONFIG, "three_experts")[0], data=None, workspace=folder))
    _make(tasks.cohort.cohort, session, {}, folder / "cohort")
    result = _make(tasks.boosting.boosting, session, {"cohort": folder / "cohort"}, folder / "boosted")
    (folder / "readings").mkdir()
    readings_of(read(folder / "cohort").stays).write_parquet(folder / "readings" / "readings.parquet")
    roles = {"cohort": folder / "cohort", "readings": folder / "readings"}
    _make(tasks.patients.patients, session, roles, folder / "alone")
    _make(tasks.patients.patients, session, {**roles, "readings.gradient_boosting": folder / "boosted"},
          folder / "together")
    return folder, result


def test_it_reads_every_stay_of_the_cohort(made: tuple[Path, Made]) -> None:
    readings = READINGS.check(pl.read_parquet(made[0] / "boosted" / "readings.parquet"))
    assert set(readings["stay_id"]) == set(read(made[0] / "cohort").stays["stay_id"])
    assert made[1].metrics["stays"] == 90 and 1.0 < made[1].metrics["effective_tokens"] < 18
    assert made[1].show == ("notes.json",) and "background stays" in made[1].summary


def test_the_patients_hear_it_beside_the_expert(made: tuple[Path, Made]) -> None:
    alone, together = (patients_of(pl.read_parquet(made[0] / name / "patients.parquet"))
                       for name in ("alone", "together"))
    assert any(one.expert_features != other.expert_features for one, other in zip(alone, together, strict=True))
    assert all(set(one.expert_features) <= set(one.shown) and 1 <= len(one.expert_features) <= 5 for one in together)


def test_a_guide_of_every_name_has_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(flows.arms, "other_expert", lambda _session, name, _cohort: asked.append(name))
    monkeypatch.setattr(flows.arms, "boosting", SimpleNamespace(run=lambda *_: asked.append("boosting")))
    for name in ("concare", "gru", "gradient_boosting"):
        flows.arms.guide(cast(Any, None), name, cast(Any, None))
    assert asked == ["concare", "gru", "boosting"]


def test_only_what_decides_it_is_in_its_recipe() -> None:
    assert tasks.boosting.boosting.settings == ("study.seed",)
    reached = set(code_digests(["tasks.boosting"]))
    assert {"evaluation.importance", "evaluation.baselines"} <= reached
    assert "evaluation.report" not in reached
