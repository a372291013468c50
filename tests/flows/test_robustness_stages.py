"""Stages of the robustness experiment without Prefect: what they share with the study, and what they leave alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest

import tasks.robustness
from configs.load import dump
from configs.schema import Config
from contracts.errors import DataError
from contracts.features import catalogue
from contracts.patients import patients_of
from ehr.cohort import prepare, read, read_source
from ehr.folder import write
from evaluation.baselines import judge_baselines, judge_expert
from lineage.artifact import Artifact
from lineage.fingerprint import code_digests
from models.expert.attention import attend
from models.expert.training import train
from prompts.evidence import patients as render_patients
from support.judged import verdicts_of
from tasks.perturbed import judged, perturbed, perturbed_patients, perturbed_readings
from tasks.robustness import perturbed_baselines, perturbed_verdicts, robustness
from tasks.stage import Made, Stage, Work

pytestmark = pytest.mark.slow

CONFIG = Config.model_validate({
    "cohort": {"synthetic": {"stays": 80}},
    "expert": {"hidden": 8, "heads": 2, "feed_forward": 16, "epochs": 2, "seeds": 1, "permutations": 1},
    "prompts": {"features": 8, "visits": 3, "observed_only": True}, "evaluation": {"stays": 20, "bootstraps": 20},
    "robustness": {"kinds": ["shuffle", "rename"], "shares": [0.0, 0.5], "arms": ["vanilla"]}})
STEPS = ("shuffle-0.5", "rename-0.5")


@dataclass
class Study:
    """Folders of the study's artifacts and of the experiment's, by role."""

    root: Path
    folders: dict[str, Path] = field(default_factory=dict)

    def work(self, name: str, roles: Mapping[str, str], config: Config = CONFIG) -> Work:
        out = self.root / name.replace(":", "-") / "out"
        scratch = out.with_name("scratch")
        for folder in (out, scratch):
            folder.mkdir(parents=True, exist_ok=True)
        artifacts = {role: Artifact("kind", f"{place}-1", "uri", "0" * 64, "1" * 64) for role, place in roles.items()}
        return Work(name, cast(Any, SimpleNamespace(config=config)),
                    {role: self.folders[place] for role, place in roles.items()}, artifacts, out, scratch, "run")

    def make(self, stage: Stage, variant: str, roles: Mapping[str, str], config: Config = CONFIG) -> Made:
        """Runs a stage's function; its folder is then found under the stage's name and variant."""
        name = f"{stage.name}:{variant}" if variant else stage.name
        work = self.work(name, roles, config)
        made = stage.make(work)
        self.folders[name] = work.out
        return made

    def frame(self, name: str, file: str) -> pl.DataFrame:
        return pl.read_parquet(self.folders[name] / f"{file}.parquet")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A cohort, an expert trained a little, its readings, the patients and the baselines of a study."""
    found = Study(tmp_path_factory.mktemp("robust"))
    for role in ("cohort", "expert", "readings", "patients", "baselines", "vanilla"):
        (found.root / role).mkdir()
        found.folders[role] = found.root / role
    folders = {name: str(folder) for name, folder in found.folders.items()}
    write(prepare(read_source(CONFIG.cohort, 42, None), CONFIG.cohort, 42), found.folders["cohort"])
    job = {"cohort": folders["cohort"], "section": dump(CONFIG.expert), "seed": 42}
    train({**job, "out": folders["expert"]})
    attend({**job, "expert": folders["expert"], "out": folders["readings"]})
    cohort, readings = read(found.folders["cohort"]), found.frame("readings", "readings")
    frame = render_patients(cohort.stays, cohort.visits, cohort.filled, [readings], catalogue("mimic_iv"),
                            CONFIG.prompts)
    frame.write_parquet(found.folders["patients"] / "patients.parquet")
    stay_ids = [one.stay_id for one in judged(found.work("judged", {"patients": "patients"}))]
    simple, _ = judge_baselines(found.folders["cohort"], 42, stay_ids)
    pl.concat([judge_expert(readings, cohort.stays, stay_ids), simple]).write_parquet(
        found.folders["baselines"] / "verdicts.parquet")
    verdicts_of("vanilla", cohort.stays, 1.0).filter(pl.col("stay_id").is_in(stay_ids)).write_parquet(
        found.folders["vanilla"] / "verdicts.parquet")
    return found


def run_step(study: Study, step: str) -> None:
    """Perturbed stays, readings, prompts and models of one perturbation."""
    study.make(perturbed, step, {"cohort": "cohort", "patients": "patients"})
    readings = "readings"
    if not step.startswith("rename"):
        study.make(perturbed_readings, step, {"perturbed": f"perturbed:{step}", "expert": "expert"})
        readings = f"perturbed-readings:{step}"
        study.make(perturbed_baselines, step,
                   {"cohort": "cohort", "perturbed": f"perturbed:{step}", "readings": readings})
    study.make(perturbed_patients, step,
               {"cohort": "cohort", "perturbed": f"perturbed:{step}", "readings": readings})


@pytest.fixture(scope="module")
def experiment(study: Study) -> Study:
    for step in STEPS:
        run_step(study, step)
    return study


def by_stay(frame: pl.DataFrame, stay_ids: pl.Series) -> pl.DataFrame:
    return frame.filter(pl.col("stay_id").is_in(stay_ids.to_list())).sort("stay_id")


@pytest.mark.parametrize("step", ["shuffle-0.0", "drop-0.0", "noise-0.0", "rename-0.0"])
def test_at_p_0_prompts_and_readings_are_those_of_the_study(study: Study, step: str) -> None:
    study.make(perturbed, step, {"cohort": "cohort", "patients": "patients"})
    study.make(perturbed_readings, step, {"perturbed": f"perturbed:{step}", "expert": "expert"})
    study.make(perturbed_patients, step, {"cohort": "cohort", "perturbed": f"perturbed:{step}",
                                          "readings": f"perturbed-readings:{step}"})
    patients = study.frame(f"perturbed-patients:{step}", "patients")
    assert patients.height == 20
    assert patients.sort("stay_id").equals(by_stay(study.frame("patients", "patients"), patients["stay_id"]))
    found = study.frame(f"perturbed-readings:{step}", "readings").sort("stay_id", "rank")
    expected = by_stay(study.frame("readings", "readings"), patients["stay_id"]).sort("stay_id", "rank")
    assert found.select("stay_id", "feature", "rank").equals(expected.select("stay_id", "feature", "rank"))
    for column in ("risk", "attention"):  # the same numbers but for the order of sums in a batch of another size
        assert found[column].to_list() == pytest.approx(expected[column].to_list(), abs=1e-6)


def test_at_p_0_the_models_judge_as_in_the_study(study: Study) -> None:
    step = "drop-0.0"
    study.make(perturbed, step, {"cohort": "cohort", "patients": "patients"})
    study.make(perturbed_baselines, step, {"cohort": "cohort", "perturbed": f"perturbed:{step}",
                                           "readings": "readings"})
    found = study.frame(f"perturbed-baselines:{step}", "verdicts").sort("arm", "stay_id")
    assert set(found["arm"]) == {"expert", "logistic regression", "gradient boosting"}
    expected = study.frame("baselines", "verdicts").filter(pl.col("arm").is_in(found["arm"].unique().to_list()))
    assert found.equals(expected.sort("arm", "stay_id"))


def test_expert_prompt_and_models_get_the_same_values(experiment: Study) -> None:
    cohort = read(experiment.folders["cohort"])
    changes = experiment.frame("perturbed:shuffle-0.5", "changes")
    filled = experiment.frame("perturbed:shuffle-0.5", "filled")
    # The expert's tensors and the prompts are both made from this one frame.
    stay = changes["stay_id"][0]
    before = cohort.filled.filter(pl.col("stay_id") == stay)
    after = filled.filter(pl.col("stay_id") == stay)
    for feature, source in changes.filter(pl.col("stay_id") == stay).select("feature", "now").iter_rows():
        assert after[feature].to_list() == before[source].to_list()
    one = next(one for one in patients_of(experiment.frame("perturbed-patients:shuffle-0.5", "patients"))
               if one.stay_id == stay)
    usual = next(one for one in patients_of(experiment.frame("patients", "patients")) if one.stay_id == stay)
    numbers = {name: dict(line.split(": ", 1) for line in text.splitlines()) for name, text in
               (("before", usual.evidence), ("after", one.evidence))}
    lines = {side: {key.split(" (")[0]: value for key, value in found.items()} for side, found in numbers.items()}
    shown = [(feature, source) for feature, source in
             changes.filter(pl.col("stay_id") == stay).select("feature", "now").iter_rows() if feature in one.shown]
    assert shown and all(lines["after"][feature] == lines["before"][source] for feature, source in shown)


def test_labels_static_data_and_trained_parts_are_untouched(experiment: Study) -> None:
    cohort = read(experiment.folders["cohort"])
    for step in STEPS:
        stays = experiment.frame(f"perturbed:{step}", "stays")
        assert stays.sort("stay_id").equals(by_stay(cohort.stays, stays["stay_id"]))
        assert set(stays["split"]) == {"test"}
        folder = experiment.folders[f"perturbed:{step}"]
        for name in ("scaling.json", "meta.json"):
            assert (folder / name).read_bytes() == (experiment.folders["cohort"] / name).read_bytes()


def test_a_rename_shows_aliases_in_the_prompt_and_canonical_names_to_the_reward(experiment: Study) -> None:
    usual = {one.stay_id: one for one in patients_of(experiment.frame("patients", "patients"))}
    changes = experiment.frame("perturbed:rename-0.5", "changes")
    renamed = patients_of(experiment.frame("perturbed-patients:rename-0.5", "patients"))
    assert len(renamed) == 20
    for one in renamed:
        before = usual[one.stay_id]
        assert (one.shown, one.expert_features, one.label) == (before.shown, before.expert_features, before.label)
        words = dict(changes.filter(pl.col("stay_id") == one.stay_id).select("feature", "now").iter_rows())
        lines = zip(one.evidence.splitlines(), before.evidence.splitlines(), strict=True)
        for after, unchanged in lines:
            name = unchanged.partition(": ")[0].partition(" (")[0]
            assert after.partition(": ")[2] == unchanged.partition(": ")[2]
            assert after.partition(": ")[0].partition(" (")[0] == words.get(name, name)


def test_no_identifier_reaches_a_prompt(experiment: Study) -> None:
    stays = read(experiment.folders["cohort"]).stays
    names = [*stays["stay_id"], *stays["patient_id"]]
    for step in STEPS:
        text = "\n".join(experiment.frame(f"perturbed-patients:{step}", "patients")["evidence"])
        assert not any(name in text for name in names)


def test_the_judged_stays_are_the_studys_or_the_first_of_them(study: Study) -> None:
    whole = judged(study.work("judged", {"patients": "patients"}))
    few = Config.model_validate({**dump(CONFIG), "robustness": {"stays": 7}})
    assert len(whole) == 20 and list(judged(study.work("judged", {"patients": "patients"}, few))) == list(whole[:7])
    study.folders["survivors"] = study.root / "survivors"
    study.folders["survivors"].mkdir()
    study.frame("patients", "patients").filter(pl.col("label") == 0).write_parquet(
        study.folders["survivors"] / "patients.parquet")
    with pytest.raises(DataError, match="both labels"):
        judged(study.work("judged", {"patients": "survivors"}))


def test_a_verdict_stage_asks_its_arm_about_every_perturbed_stay(experiment: Study, monkeypatch: pytest.MonkeyPatch
                                                               ) -> None:
    asked: list[Any] = []

    def ask(_work: Work, arm: str, style: str, patients: Any, adapter: Path | None, answers: Path) -> pl.DataFrame:
        asked.append((f"{arm} as {style}", {one.evidence for one in patients}, adapter, answers.name))
        return verdicts_of(arm, read(experiment.folders["cohort"]).stays, 1.0)

    monkeypatch.setattr(tasks.robustness, "ask", ask)
    experiment.folders["adapter"] = experiment.root / "rl"
    made = experiment.make(perturbed_verdicts, "stage1+2@shuffle-0.5", {
        "patients": "perturbed-patients:shuffle-0.5", "base": "cohort", "adapter": "adapter"})
    patients = experiment.frame("perturbed-patients:shuffle-0.5", "patients")
    adapter = experiment.root / "rl" / "adapter"
    assert asked == [("stage1+2 as decomposition", set(patients["evidence"]), adapter, "answers")]
    assert 0.0 < made.metrics["parsed_share"] <= 1.0


def test_the_result_has_every_arm_and_share_and_takes_p_0_from_the_study(experiment: Study) -> None:
    roles = {"cohort": "cohort", "patients": "patients", "baselines": "baselines", "verdicts.vanilla": "vanilla"}
    for step in STEPS:
        roles |= {f"{step}.perturbed": f"perturbed:{step}", f"{step}.verdicts.vanilla": "vanilla"}
    roles["shuffle-0.5.baselines"] = "perturbed-baselines:shuffle-0.5"
    made = experiment.make(robustness, "", roles)
    folder = experiment.folders["robustness"]
    rows = json.loads((folder / "table.json").read_text(encoding="utf-8"))
    assert {(row["kind"], row["share"], row["arm"]) for row in rows} == {
        (kind, share, arm) for kind in ("shuffle", "rename") for share in (0.0, 0.5)
        for arm in ("vanilla", "expert", "logistic regression", "gradient boosting")}
    for row in rows:  # the same verdicts again, so nothing changed; a rename leaves the models where they were
        if row["share"] and (row["arm"] == "vanilla" or row["kind"] == "rename"):
            assert row["auroc_change_point"] == row["auprc_change_point"] == 0.0
    assert any(row["auroc_change_point"] for row in rows if row["arm"] == "expert" and row["kind"] == "shuffle")
    assert pl.read_csv(folder / "table.csv").height == len(rows)
    assert "<svg" in (folder / "robustness.html").read_text(encoding="utf-8")
    assert "expert/model/shuffle-0.5/auroc" in made.metrics and "| shuffle | 0.5 |" in made.summary
    assert all((folder / name).is_file() for name in made.show)


def test_changing_a_perturbation_makes_perturbed_stays_anew_and_not_the_studys_stages() -> None:
    assert "evaluation.perturbations" in code_digests(["tasks.perturbed"])
    assert {"evaluation.robustness", "evaluation.perturbations"} <= set(code_digests(["tasks.robustness"]))
    for stage in ("cohort", "readings", "patients", "verdicts", "baselines", "rl", "report"):
        assert not {"evaluation.perturbations", "evaluation.robustness"} & set(code_digests([f"tasks.{stage}"]))
