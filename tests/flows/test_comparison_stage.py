"""Stage `comparison`: a study on a new extract against the last one, from real cohorts and made-up verdicts."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest

from configs.schema import Champion, Config, Evaluation
from configs.schema import Cohort as Section
from ehr.cohort import prepare, read_source, write
from lineage.artifact import Artifact
from support.judged import risky
from tasks.comparison import BEFORE, CHAMPION, FILE, comparison, wanted
from tasks.stage import Made, Work


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two cohorts of one generator, the newer one larger; the split is pinned, so that patients stay where they are."""
    root, found = tmp_path_factory.mktemp("cohorts"), {}
    for name, stays in (("old", 200), ("new", 260)):
        section = Section.model_validate({"split": "pinned", "synthetic": {"stays": stays}})
        found[name] = root / name
        found[name].mkdir()
        write(prepare(read_source(section, 7, None, root, {}), section, 7), found[name])
    return found


def judged(cohort: Path, folder: Path, noise: float, arm: str, reading: str) -> Path:
    stays = pl.read_parquet(cohort / "stays.parquet").filter(pl.col("split") == "test")
    folder.mkdir(parents=True, exist_ok=True)
    risky(stays, arm, reading, noise).write_parquet(folder / "verdicts.parquet")
    return folder


def compared(tmp_path: Path, inputs: dict[str, Path], arms: tuple[str, ...] = ("stage1+2",), **champion: Any
             ) -> tuple[Made, dict[str, Any]]:
    config = Config(evaluation=Evaluation(arms=arms, interval_bootstraps=200), champion=Champion(**champion))
    session = cast(Any, SimpleNamespace(config=config, workspace=tmp_path))
    artifacts = {role: Artifact(role, f"{role}-1", role, "a" * 64, "r") for role in inputs}
    out = tmp_path / "out"
    out.mkdir()
    made = comparison.make(Work("comparison", session, inputs, artifacts, out, out, "run"))
    return made, json.loads((out / FILE).read_text(encoding="utf-8"))


def roles(cohorts: dict[str, Path], folder: Path, old: float, new: float) -> dict[str, Path]:
    found = {"cohort": cohorts["new"], f"{BEFORE}cohort": cohorts["old"]}
    for prefix, name, noise in (("", "new", new), (BEFORE, "old", old), (CHAMPION, "old", old)):
        for role, arm, reading in (("verdicts.stage1+2", "stage1+2", "tokens"), ("baselines", "expert", "model")):
            found[prefix + role] = judged(cohorts[name], folder / name / role, noise, arm, reading)
    return found


@pytest.mark.parametrize(("old", "new", "replaced"), [(0.6, 0.1, True), (0.1, 0.6, False)])
def test_a_better_study_replaces_the_champion_and_the_page_says_so(cohorts: dict[str, Path], tmp_path: Path, old: float,
                                                                   new: float, replaced: bool) -> None:
    made, found = compared(tmp_path, roles(cohorts, tmp_path / "v", old, new), least=5)
    assert found["champion_replaced"] is replaced and made.metrics["champion_replaced"] == float(replaced)
    assert found["counts"]["added"] > 0
    gap = made.metrics["stage1+2/stated/auroc.difference"]
    assert (gap > 0) is replaced
    page = (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    assert found["reason"].partition(":")[0] in page and "<svg" in page and "expert" in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://creativecommons.org", "").replace(
        "http://purl.org", "")
    assert not any(stay in page for stay in pl.read_parquet(cohorts["new"] / "stays.parquet")["stay_id"].to_list()[:50])


def test_without_the_methods_arm_the_last_of_the_configuration_decides_as_in_the_report(
        cohorts: dict[str, Path], tmp_path: Path) -> None:
    found = {"cohort": cohorts["new"], f"{BEFORE}cohort": cohorts["old"]}
    for prefix, name in (("", "new"), (CHAMPION, "old")):
        for arm in ("think", "decomposition"):
            found[f"{prefix}verdicts.{arm}"] = judged(cohorts[name], tmp_path / name / arm, 0.1, arm, "tokens")
    for arms in (("think", "decomposition"), ("decomposition", "think")):
        (tmp_path / arms[-1]).mkdir()
        assert f" of {arms[-1]} " in compared(tmp_path / arms[-1], found, arms, least=5)[1]["reason"]


def test_without_verdicts_only_the_cohorts_are_compared(cohorts: dict[str, Path], tmp_path: Path) -> None:
    made, found = compared(tmp_path, {"cohort": cohorts["new"], f"{BEFORE}cohort": cohorts["old"]})
    assert not found["champion_replaced"] and "before any arm was judged" in found["reason"]
    assert "Stays" in (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8") and made.summary


def test_where_there_is_no_champion_the_new_model_is_named(cohorts: dict[str, Path], tmp_path: Path) -> None:
    given = {role: path for role, path in roles(cohorts, tmp_path / "v", 0.1, 0.6).items()
             if not role.startswith(CHAMPION)}
    assert compared(tmp_path, given)[1]["reason"].startswith("named")


def test_only_cohort_and_verdicts_are_compared() -> None:
    one = Artifact("k", "i", "u", "s", "r")
    assert set(wanted(dict.fromkeys(("cohort", "rl", "report", "baselines", "verdicts.think", "x.verdicts.y"), one))
               ) == {"cohort", "baselines", "verdicts.think"}
