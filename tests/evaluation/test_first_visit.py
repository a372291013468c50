"""Arms that see the first visit alone: their prompts, what they are compared with, their place in the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
import torch

import tasks.report_inputs
import tasks.report_parts
from configs.load import load
from configs.schema import Config, Expert, Prompts
from contracts.cohort_files import FIRST as FIRST_DAYS
from contracts.errors import ConfigError, ContractError
from contracts.features import STATIC, catalogue
from contracts.patients import patients_of
from ehr import scale
from ehr.cohort import Cohort, prepare, read, read_source, write
from evaluation import tables
from evaluation.appraisal import appraise
from evaluation.baselines import EXPERT, judge_baselines, judge_expert, judge_first_visit, tabulate
from evaluation.risks import FIRST, counterpart
from lineage.artifact import Artifact
from models.expert.architectures import make_model
from models.expert.attention import risks_of
from models.expert.batches import read_stays
from models.expert.loading import ExpertModel
from prompts.evidence import cases, chosen_features, first_visits, render
from prompts.evidence import patients as render_patients
from support.judged import readings_of, stays_of, verdicts_of
from tasks.first_visit import first_visit
from tasks.stage import Made, Work

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


def later(course: str) -> Cohort:
    """The cohort of `folders` with other days after the first in its test stays: none at all, or other values."""
    source = read_source(CONFIG.cohort, 42, None)
    tested = prepare(source, CONFIG.cohort, 42).stays.filter(pl.col("split") == "test")["stay_id"].to_list()
    goes_on = (pl.col("stay_id").is_in(tested)
               & (pl.col("time").dt.date() > pl.col("time").min().over("stay_id").dt.date()))
    if course == "no later day":
        ends = source.records.filter(~goes_on)
        known = source.events.join(ends, on=["stay_id", "time"], how="semi", maintain_order="left")
        return prepare(replace(source, records=ends, events=known), CONFIG.cohort, 42)
    # Times of records and not of events tell which day is the first.
    after = source.records.filter(goes_on).with_columns(pl.lit(True).alias("after"))
    low = {feature.name: feature.low for feature in catalogue("mimic_iv")}
    events = source.events.join(after, on=["stay_id", "time"], how="left", maintain_order="left")
    value = pl.when("after").then(pl.col("feature").replace_strict(low)).otherwise(pl.col("value")).alias("value")
    events = events.with_columns(value).select(source.events.columns).unique(maintain_order=True)
    return prepare(replace(source, events=events), CONFIG.cohort, 42)


@pytest.fixture(scope="module", params=["no later day", "other values later"])
def courses(request: pytest.FixtureRequest, folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
            ) -> tuple[Path, Path]:
    """Folders of the cohort and of the same with other later days."""
    root = tmp_path_factory.mktemp("courses")
    return folders["cohort"], write(later(request.param), root)


def asked_first(folders: dict[str, Path], out: Path) -> Made:
    out.mkdir(exist_ok=True)
    return first_visit.make(Work("first-visit", cast(Any, SimpleNamespace(config=CONFIG)), folders, {
        role: Artifact(role, f"{role}-1", "uri", "0" * 64, "1" * 64) for role in folders}, out, out, "run"))


def test_later_days_leave_every_first_visit_prompt_as_it_is(folders: dict[str, Path], courses: tuple[Path, Path],
                                                            tmp_path: Path) -> None:
    found = []
    for number, cohort in enumerate(courses):
        asked_first({**folders, "cohort": cohort}, tmp_path / str(number))
        found.append(pl.read_parquet(tmp_path / str(number) / "patients.parquet"))
    assert found[0].equals(found[1]) and not found[0]["evidence"].str.contains("summary").any()
    before, after = (read(cohort) for cohort in courses)
    assert before.filled.filter("is_summary").join(before.stays.filter(split="test"), on="stay_id").height > 3
    assert not before.filled.equals(after.filled) and before.scaling == after.scaling


def test_later_days_leave_every_first_risk_of_the_expert_as_it_is(courses: tuple[Path, Path]) -> None:
    section, names = Expert(hidden=8, heads=2, feed_forward=8), catalogue("mimic_iv").names
    torch.manual_seed(0)
    expert = ExpertModel(make_model(len(names), section).eval(), names, "mimic_iv", {}, section)
    before, after = (risks_of(read_stays(one), read_stays(one, FIRST_DAYS), expert) for one in courses)
    assert before["first"].equals(after["first"]) and not before["last"].equals(after["last"])


@pytest.mark.slow
def test_later_days_leave_every_first_risk_of_the_simple_models_as_it_is(courses: tuple[Path, Path]) -> None:
    before, after = (judge_baselines(one, 1, visits=["first"]) for one in courses)
    assert before[0].equals(after[0]) and before[1] == after[1]
    assert all(note.endswith("fitted and judged on each stay's first day alone") for note in before[1].values())


def test_for_stays_without_summary_the_first_day_is_the_first_visit_that_it_was(folders: dict[str, Path],
                                                                                tmp_path: Path) -> None:
    cohort, names = read(folders["cohort"]), catalogue("mimic_iv")
    whole = cohort.filled.filter((pl.col("visit") == 0) & ~pl.col("is_summary"))
    short = cohort.stays.join(whole, on="stay_id", how="semi", maintain_order="left")
    scaling = scale.as_values(cohort.scaling)
    first = cohort.first_days.join(short, on="stay_id", how="semi")
    one, other = (tabulate(short, frame, scaling) for frame in (first, whole))
    assert np.array_equal(one.values, other.values, equal_nan=True) and one.stay_ids == other.stay_ids
    asked_first(folders, tmp_path)
    texts = dict(pl.read_parquet(tmp_path / "patients.parquet").select("stay_id", "evidence").iter_rows())
    shown = chosen_features(cohort.stays, cohort.visits, names, SECTION)
    told = {case.stay_id: render(case, names, SECTION, shown).text for case in cases(short, whole, names)
            if case.split == "test"}
    assert told and all(texts[stay] == text for stay, text in told.items())


def test_a_summary_is_no_first_visit(folders: dict[str, Path]) -> None:
    cohort, names = read(folders["cohort"]), catalogue("mimic_iv")
    known = pl.read_parquet(folders["patients"] / "patients.parquet")
    with pytest.raises(ContractError, match="later days or summaries"):
        first_visits(known, cohort.stays, cohort.filled.filter(pl.col("visit") == 0), names.names, names, SECTION)


def test_a_prompt_shows_the_first_record_and_nothing_later(folders: dict[str, Path], tmp_path: Path) -> None:
    made = asked_first(folders, tmp_path)
    stays, begun = (pl.read_parquet(folders["cohort"] / f"{name}.parquet") for name in ("stays", "first"))
    found = patients_of(pl.read_parquet(tmp_path / "patients.parquet"))
    assert {one.stay_id for one in found} == set(stays.filter(pl.col("split") == "test")["stay_id"])
    whole = {one.stay_id: one for one in patients_of(pl.read_parquet(folders["patients"] / "patients.parquet"))}
    for one in found:
        first = begun.filter(pl.col("stay_id") == one.stay_id).row(0, named=True)
        lines = dict(line.split(": ", 1) for line in one.evidence.splitlines())
        shown = {name.partition(" (")[0]: text for name, text in lines.items()}
        assert all("," not in shown[name] for name in one.shown if name != STATIC)
        assert all(float(shown[name]) == pytest.approx(first[name], rel=1e-3) for name in one.shown if name != STATIC)
        assert one.label == whole[one.stay_id].label
        assert list(one.expert_features) == [name for name in whole[one.stay_id].expert_features if name in one.shown]
    assert made.metrics["stays"] == len(found)


def test_a_stay_that_nobody_knows_is_refused(folders: dict[str, Path]) -> None:
    stays, visits, first = (pl.read_parquet(folders["cohort"] / f"{name}.parquet")
                            for name in ("stays", "visits", "first"))
    known = pl.read_parquet(folders["patients"] / "patients.parquet").head(5)
    names = catalogue("mimic_iv")
    with pytest.raises(ContractError, match="patients"):
        first_visits(known, stays, first, chosen_features(stays, visits, names, SECTION), names, SECTION)


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
