"""Arms that see the first visit alone: their prompts, what they are compared with, their place in the report."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest

import tasks.report_inputs
import tasks.report_parts
from configs.load import load
from configs.schema import Config, Prompts
from contracts.errors import ConfigError, ContractError
from contracts.features import STATIC, catalogue
from contracts.patients import patients_of
from ehr.cohort import prepare, read_source, write
from evaluation import tables
from evaluation.appraisal import appraise
from evaluation.baselines import EXPERT, judge_expert, judge_first_visit
from evaluation.risks import FIRST, counterpart
from lineage.artifact import Artifact
from prompts.evidence import chosen_features, first_visits
from prompts.evidence import patients as render_patients
from support.judged import readings_of, stays_of, verdicts_of
from tasks.first_visit import first_visit
from tasks.stage import Work

STAYS = stays_of(150)
SECTION = Prompts(features=6, visits=3, observed_only=True)
CONFIG = Config.model_validate({"cohort": {"synthetic": {"stays": 60}}, "prompts": SECTION.model_dump()})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A generated cohort and its patients in words."""
    root = tmp_path_factory.mktemp("first")
    cohort = prepare(read_source(CONFIG.cohort, 42, None), CONFIG.cohort, 42)
    names = catalogue("mimic_iv")
    places = {"cohort": write(cohort, root / "cohort"), "patients": root / "patients"}
    places["patients"].mkdir()
    tokens = [*names.tokens]
    readings = pl.DataFrame([{"stay_id": stay, "risk": 0.5, "feature": token, "attention": 1 / len(tokens),
                              "rank": rank} for stay in cohort.stays["stay_id"]
                             for rank, token in enumerate(tokens, 1)], schema_overrides={"rank": pl.Int32})
    render_patients(cohort.stays, cohort.visits, cohort.filled, [readings], names, SECTION).write_parquet(
        places["patients"] / "patients.parquet")
    return places


def test_a_prompt_shows_the_first_record_and_nothing_later(folders: dict[str, Path], tmp_path: Path) -> None:
    work = Work("first-visit", cast(Any, SimpleNamespace(config=CONFIG)), folders,
                {role: Artifact(role, f"{role}-1", "uri", "0" * 64, "1" * 64) for role in folders}, tmp_path, tmp_path,
                "run")
    made = first_visit.make(work)
    stays, filled = (pl.read_parquet(folders["cohort"] / f"{name}.parquet") for name in ("stays", "filled"))
    found = patients_of(pl.read_parquet(tmp_path / "patients.parquet"))
    assert {one.stay_id for one in found} == set(stays.filter(pl.col("split") == "test")["stay_id"])
    whole = {one.stay_id: one for one in patients_of(pl.read_parquet(folders["patients"] / "patients.parquet"))}
    for one in found:
        first = filled.filter(pl.col("stay_id") == one.stay_id).sort("visit").row(0, named=True)
        lines = dict(line.split(": ", 1) for line in one.evidence.splitlines())
        shown = {name.partition(" (")[0]: text for name, text in lines.items()}
        assert all("," not in shown[name] for name in one.shown if name != STATIC)
        assert all(float(shown[name]) == pytest.approx(first[name], rel=1e-3) for name in one.shown if name != STATIC)
        assert one.label == whole[one.stay_id].label
        assert list(one.expert_features) == [name for name in whole[one.stay_id].expert_features if name in one.shown]
    assert made.metrics["stays"] == len(found)


def test_a_stay_that_nobody_knows_is_refused(folders: dict[str, Path]) -> None:
    stays, visits, filled = (pl.read_parquet(folders["cohort"] / f"{name}.parquet")
                             for name in ("stays", "visits", "filled"))
    known = pl.read_parquet(folders["patients"] / "patients.parquet").head(5)
    names = catalogue("mimic_iv")
    with pytest.raises(ContractError, match="patients"):
        first_visits(known, stays, filled, chosen_features(stays, visits, names, SECTION), names, SECTION)


def test_the_first_visit_is_compared_with_the_references_first_visit_where_it_was_judged() -> None:
    present = [(arm, reading) for arm in ("decomposition", f"decomposition{FIRST}") for reading in ("stated", "tokens")]
    assert counterpart((f"stage1{FIRST}", "tokens"), present) == (f"decomposition{FIRST}", "tokens")
    assert counterpart((f"{EXPERT}{FIRST}", "model"), present) == (f"decomposition{FIRST}", "stated")
    assert counterpart(("stage1", "tokens"), present) == ("decomposition", "tokens")
    assert counterpart((f"decomposition{FIRST}", "tokens"), present) is None
    assert counterpart((f"{EXPERT}{FIRST}", "model"), present[:2]) == ("decomposition", "stated")


def verdicts() -> pl.DataFrame:
    risks = readings_of(STAYS, 5).group_by("stay_id").agg(pl.col("risk").first().alias("first"))
    return pl.concat([verdicts_of("decomposition", STAYS, 1.0, 1), verdicts_of("mine", STAYS, 2.0, 2),
                      verdicts_of(f"decomposition{FIRST}", STAYS, 0.4, 3), verdicts_of(f"mine{FIRST}", STAYS, 0.8, 4),
                      judge_expert(readings_of(STAYS), STAYS), judge_first_visit(risks, STAYS)])


def test_the_headline_is_never_about_an_arm_of_the_first_visit() -> None:
    table = tables.results(verdicts(), 20, 1, interval_bootstraps=30)
    assert tables.main_arm(table) == "mine"
    row = table.filter(arm=f"mine{FIRST}", reading="tokens").row(0, named=True)
    base = table.filter(arm=f"decomposition{FIRST}", reading="tokens").row(0, named=True)
    assert row["auroc_gap_point"] == pytest.approx(row["auroc_point"] - base["auroc_point"])
    section = CONFIG.evaluation.model_copy(update={"interval_bootstraps": 30})
    found = appraise(verdicts(), table, STAYS, section, 1, 5, lambda counts, *_: counts < 0)
    for frame in (found.differences, found.power):
        assert set(frame.filter(arm=f"mine{FIRST}")["reference"]) == {f"decomposition{FIRST}"}
        assert set(frame.filter(arm="mine")["reference"]) == {"decomposition"}


def test_the_experts_first_visit_is_an_arm_with_the_risks_it_had_then() -> None:
    risks = pl.DataFrame({"stay_id": STAYS["stay_id"], "first": [0.25] * STAYS.height})
    found = judge_first_visit(risks, STAYS)
    assert set(found["arm"]) == {"expert, first visit"} and set(found["probability"]) == {0.25}
    with pytest.raises(ContractError, match="no risk of arm 'expert, first visit'"):
        judge_first_visit(risks.head(3), STAYS)


def test_the_report_puts_first_visits_last_policies_before_models(tmp_path: Path) -> None:
    config = load("demo", ["evaluation.arms=[decomposition]", "evaluation.visits=[last, first]"])
    roles = {}
    everyone = verdicts()
    for role, arms in (("verdicts.decomposition", ["decomposition"]),
                       (f"verdicts.decomposition{FIRST}", [f"decomposition{FIRST}"]),
                       ("baselines", [EXPERT, f"{EXPERT}{FIRST}"])):
        roles[role] = tmp_path / role
        roles[role].mkdir()
        everyone.filter(pl.col("arm").is_in(arms)).write_parquet(roles[role] / "verdicts.parquet")
    work = Work("report", cast(Any, SimpleNamespace(config=config)), roles, {}, tmp_path, tmp_path, "run")
    order = tasks.report_inputs.verdicts_of(work)["arm"].unique(maintain_order=True).to_list()
    assert order == ["decomposition", EXPERT, f"decomposition{FIRST}", f"{EXPERT}{FIRST}"]
    rows = tasks.report_parts.arms(config)
    assert [row[0] for row in rows] == ["decomposition", f"decomposition{FIRST}"]
    assert "first visit alone" in rows[1][2]


@pytest.mark.parametrize("visits", ["[first]", "[last, last]", "[]"])
def test_the_last_visit_is_always_judged(visits: str) -> None:
    assert load("demo").evaluation.visits == ("last",)
    with pytest.raises(ConfigError, match=r"\[last\] or \[last, first\]"):
        load("demo", [f"evaluation.visits={visits}"])
