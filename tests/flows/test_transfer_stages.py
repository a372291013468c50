"""Stages of the transfer experiment without Prefect: what is shared, what is trained on what, what prompts say."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

import tasks.cohort
from configs.load import dump, load, shipped
from configs.schema import Config
from contracts.errors import ConfigError, DataError
from contracts.features import STATIC
from contracts.patients import patients_of
from ehr import validity
from ehr.cohort import Cohort, prepare, read, read_source, write
from evaluation.baselines import judge_baselines, judge_expert
from flows.judge_transfer import asking, finished, target_config
from lineage.artifact import Artifact
from models.expert.training import train
from support.judged import verdicts_of
from support.tjh_sheet import hospital, patients, write_sheet
from tasks.session import session_of
from tasks.shared import shared
from tasks.stage import Made, Stage, Work
from tasks.transfer import transfer
from tasks.transferred import transferred_baselines, transferred_patients, transferred_readings
from tasks.verdicts import verdicts

pytestmark = pytest.mark.slow

DATA = Path(os.environ.get("EAG_RL_DATA", "no-such-folder"))
real = pytest.mark.skipif(not (DATA / "tjh").is_dir() or not (DATA / "mimic-iv-demo-2.2").is_dir(),
                          reason="EAG_RL_DATA names no folder with tjh/ and mimic-iv-demo-2.2/")
SMALL = {"prompts": {"features": 8, "visits": 3, "observed_only": True},
         "evaluation": {"stays": "all", "interval_bootstraps": 20},
         "expert": {"hidden": 8, "heads": 2, "feed_forward": 16, "epochs": 2, "seeds": 1, "permutations": 1}}
HERE = load("demo", ["study.name=here", "cohort.synthetic.stays=80", "transfer.arms=[decomposition, stage1]"])
HERE = Config.model_validate({**dump(HERE), **SMALL})
THERE = Config.model_validate({**dump(HERE), "study": {"name": "there"}, "cohort": {"source": "tjh"}})


@dataclass
class Experiment:
    """Folders of artifacts by role."""

    root: Path
    folders: dict[str, Path] = field(default_factory=dict)

    def make(self, stage: Stage, variant: str, roles: Mapping[str, str], config: Config = THERE) -> Made:
        """Runs a stage's function; its folder is then found under the stage's name and variant."""
        name = f"{stage.name}:{variant}" if variant else stage.name
        out = self.root / name.replace(":", "-").replace(" ", "-") / "out"
        scratch = out.with_name("scratch")
        for folder in (out, scratch):
            folder.mkdir(parents=True, exist_ok=True)
        artifacts = {role: Artifact("kind", f"{place}-1", "uri", "0" * 64, "1" * 64) for role, place in roles.items()}
        made = stage.make(Work(name, cast(Any, SimpleNamespace(config=config)),
                               {role: self.folders[place] for role, place in roles.items()}, artifacts, out, scratch,
                               "run"))
        self.folders[name] = out
        return made

    def frame(self, name: str, file: str) -> pl.DataFrame:
        return pl.read_parquet(self.folders[name] / f"{file}.parquet")

    def cohorts(self, source: Cohort, target: Cohort) -> None:
        for side, cohort in (("source", source), ("target", target)):
            self.folders[side] = write(cohort, self.root / side)
            validity.write(validity.check(cohort), self.folders[side])

    def reduce(self) -> None:
        for side in ("source", "target"):
            self.make(shared, side, {"source": "source", "target": "target"})


def cohort_of(config: Config, data: Path | None = None) -> Cohort:
    return prepare(read_source(config.cohort, config.study.seed, data), config.cohort, config.study.seed)


def even_readings(folder: Path) -> pl.DataFrame:
    """An expert that attends to all tokens of a reduced cohort alike."""
    stays, filled = (pl.read_parquet(folder / f"{name}.parquet") for name in ("stays", "filled"))
    tokens = [*(name for name in filled.columns if name not in ("stay_id", "visit", "day", "is_summary")), STATIC]
    return pl.DataFrame([{"stay_id": stay, "risk": 0.5, "feature": token, "attention": 1 / len(tokens), "rank": rank}
                         for stay in stays["stay_id"] for rank, token in enumerate(tokens, 1)],
                        schema_overrides={"rank": pl.Int32})


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """Generated stays as the source, an invented TJH workbook as the target, all stages up to the result."""
    found = Experiment(tmp_path_factory.mktemp("transfer"))
    data = hospital(found.root / "data")
    found.cohorts(cohort_of(HERE), cohort_of(THERE, data))
    found.reduce()
    found.folders["expert"] = found.root / "expert"
    train({"cohort": str(found.folders["shared:source"]), "out": str(found.folders["expert"]),
           "section": dump(HERE.expert), "seed": 42})
    found.make(transferred_readings, "", {"target": "shared:target", "expert": "expert"})
    found.make(transferred_patients, "", {"source": "source", "cohort": "target", "shared": "shared:target",
                                          "readings": "transferred-readings"})
    found.make(transferred_baselines, "", {"source": "shared:source", "target": "shared:target",
                                           "patients": "transferred-patients", "readings": "transferred-readings"})
    return found


def test_both_sides_have_the_shared_features_in_the_sources_words_units_and_statistics(experiment: Experiment) -> None:
    source, target = read(experiment.folders["source"]), read(experiment.folders["target"])
    for side, whole in (("source", source), ("target", target)):
        filled = experiment.frame(f"shared:{side}", "filled")
        assert filled.columns[4:] == ["Glucose", "pH"] and filled.height == whole.filled.height
        scaling = json.loads((experiment.folders[f"shared:{side}"] / "scaling.json").read_text(encoding="utf-8"))
        assert set(scaling) == {"Glucose", "pH", "age"}
        assert scaling["Glucose"]["mean"] == source.scaling["Glucose"].mean
        assert experiment.frame(f"shared:{side}", "stays").equals(whole.stays)
    there = experiment.frame("shared:target", "filled")
    assert there["Glucose"].to_list() == pytest.approx([18.0156 * value for value in target.filled["glucose"]])
    rows = json.loads((experiment.folders["shared:source"] / "shared.json").read_text(encoding="utf-8"))["features"]
    assert [(row["source"], row["target"]) for row in rows] == [("Glucose", "glucose"), ("pH", "PH value")]
    assert all(0.9 <= row["measured_source"] <= 1.0 and row["measured_target"] == 1.0 for row in rows)


def test_first_days_are_reduced_and_converted_like_all_others(experiment: Experiment) -> None:
    source, target = read(experiment.folders["source"]), read(experiment.folders["target"])
    here, there = (experiment.frame(f"shared:{side}", "first") for side in ("source", "target"))
    assert here.equals(source.first_days.select(here.columns)) and here.columns[4:] == ["Glucose", "pH"]
    glucose = target.first_days["glucose"]
    assert there["Glucose"].is_null().equals(glucose.is_null()) and glucose.count()
    assert there["Glucose"].drop_nulls().to_list() == pytest.approx((18.0156 * glucose.drop_nulls()).to_list())


def test_datasets_that_share_nothing_measured_are_refused(experiment: Experiment, tmp_path: Path) -> None:
    sheet = write_sheet(tmp_path / "sheet.xlsx", patients(60))
    other = Experiment(tmp_path, {"source": experiment.folders["source"]})
    other.folders["target"] = write(cohort_of(THERE, sheet), tmp_path / "target")
    with pytest.raises(DataError, match="share no feature; both know Glucose, pH, but one never measured it"):
        other.make(shared, "source", {"source": "source", "target": "target"})


def test_nobody_whom_the_source_learnt_from_is_judged(tmp_path: Path) -> None:
    def pair(**there: object) -> None:
        values = dump(HERE)
        seed = there.pop("seed", 42)
        target = Config.model_validate({**values, "study": {"name": "x", "seed": seed},
                                        "cohort": {**values["cohort"], **there}})
        case = Experiment(tmp_path)
        case.cohorts(cohort_of(HERE), cohort_of(target))
        case.make(shared, "target", {"source": "source", "target": "target"})

    pair()  # the study's own test stays
    pair(seed=43)  # other people under the same numbers
    for settings in ({"split_seed": 7}, {"split": "external"}):
        with pytest.raises(DataError, match="are among the source's training or validation patients"):
            pair(**settings)


def test_prompts_show_the_targets_features_in_the_sources_words(experiment: Experiment) -> None:
    target = read(experiment.folders["target"])
    found = patients_of(experiment.frame("transferred-patients", "patients"))
    test = target.stays.filter(pl.col("split") == "test")
    assert {one.stay_id for one in found} == set(test["stay_id"])
    for one in found:
        lines = dict(line.split(": ", 1) for line in one.evidence.splitlines())
        last = target.filled.filter(pl.col("stay_id") == one.stay_id).sort("visit").row(-1, named=True)
        glucose = float(lines["Glucose (mg/dL)"].split(", ")[-1])
        assert glucose == pytest.approx(18.0156 * last["glucose"], rel=1e-3)
        assert float(lines["hemoglobin (g/L)"].split(", ")[-1]) == last["hemoglobin"] and "pH" in lines
        assert set(one.expert_features) <= set(one.shown) and set(one.expert_features) <= {"Glucose", "pH", STATIC}
    assert not any(name in one.evidence for one in found for name in test["stay_id"])


def test_a_target_that_trains_nothing_cannot_choose_features_by_their_number(experiment: Experiment, tmp_path: Path
                                                                             ) -> None:
    site = Config.model_validate({**dump(THERE), "cohort": {"source": "tjh", "split": "external"}})
    case = Experiment(tmp_path)
    case.cohorts(read(experiment.folders["source"]), cohort_of(site, experiment.root / "data"))
    case.reduce()
    case.folders["readings"] = tmp_path
    even_readings(case.folders["shared:target"]).write_parquet(tmp_path / "readings.parquet")
    roles = {"source": "source", "cohort": "target", "shared": "shared:target", "readings": "readings"}
    with pytest.raises(ConfigError, match="--set-to prompts.features=all"):
        case.make(transferred_patients, "", roles, site)
    whole = Config.model_validate({**dump(site), "prompts": {"features": "all", "observed_only": True}})
    case.make(transferred_patients, "", roles, whole)
    case.make(transferred_baselines, "", {"source": "shared:source", "target": "shared:target", "readings": "readings",
                                          "patients": "transferred-patients"}, whole)
    assert case.frame("transferred-patients", "patients").height == 60
    assert not (case.folders["transferred-baselines"] / "own.parquet").exists()


def test_transferred_models_learn_from_the_source_alone(experiment: Experiment, tmp_path: Path) -> None:
    found = experiment.frame("transferred-baselines", "verdicts")
    assert set(found["arm"]) == {"expert", "logistic regression", "gradient boosting", "best single feature"}
    other = Experiment(tmp_path, dict(experiment.folders))
    other.folders["flipped"] = tmp_path / "flipped"
    other.folders["flipped"].mkdir()
    stays = experiment.frame("shared:target", "stays")
    stays.with_columns(pl.when(pl.col("split") == "train").then(1 - pl.col("label")).otherwise(pl.col("label"))
                       .cast(pl.Int8).alias("label")).write_parquet(other.folders["flipped"] / "stays.parquet")
    for name in ("filled.parquet", "scaling.json", "meta.json"):
        (other.folders["flipped"] / name).write_bytes((experiment.folders["shared:target"] / name).read_bytes())
    other.make(transferred_baselines, "", {"source": "shared:source", "target": "flipped",
                                           "patients": "transferred-patients", "readings": "transferred-readings"})
    assert other.frame("transferred-baselines", "verdicts").equals(found)
    assert not other.frame("transferred-baselines", "own").equals(experiment.frame("transferred-baselines", "own"))


def test_the_result_has_every_line_and_pairs_it_with_the_target(experiment: Experiment) -> None:
    target = read(experiment.folders["target"])
    for role, arm, seed in (("decomposition", "decomposition@here", 1), ("stage1", "stage1@here", 2),
                            ("own", "stage1", 3)):
        experiment.folders[role] = experiment.root / role
        experiment.folders[role].mkdir(exist_ok=True)
        verdicts_of(arm, target.stays, 1.0, seed).write_parquet(experiment.folders[role] / "verdicts.parquet")
    experiment.folders["baselines"] = experiment.root / "baselines"
    experiment.folders["baselines"].mkdir(exist_ok=True)
    simple, _ = judge_baselines(experiment.folders["target"], 42)
    read_there = even_readings(experiment.folders["shared:target"])
    pl.concat([judge_expert(read_there, target.stays), simple]).write_parquet(
        experiment.folders["baselines"] / "verdicts.parquet")
    made = experiment.make(transfer, "here to there", {
        "source": "source", "cohort": "target", "shared": "shared:target", "models": "transferred-baselines",
        "verdicts.decomposition": "decomposition", "verdicts.stage1": "stage1", "own.stage1": "own",
        "baselines": "baselines"}, target_config(HERE, THERE))
    folder = experiment.folders["transfer:here to there"]
    table = pl.read_parquet(folder / "table.parquet")
    lines = table.select("arm", "study", "reads").unique(maintain_order=True).rows()
    assert lines[:3] == [("decomposition", "nothing", "shared words"), ("stage1", "here", "shared words"),
                         ("stage1", "there", "own words")]
    assert ("logistic regression", "there", "shared features") in lines and len(lines) == 3 + 2 + 3 * 3
    paired = table.filter(pl.col("auroc_target_point").is_not_null())
    assert set(paired["arm"]) == {"stage1", "expert", "logistic regression", "gradient boosting", "best single feature"}
    assert set(table.filter(pl.col("auroc_base_point").is_not_null())["arm"]) == {"stage1"}
    page = (folder / "transfer.html").read_text(encoding="utf-8")
    assert "there has not judged decomposition itself" in page and "PH value" in page
    assert "stage1/source/shared-words/tokens/auroc" in made.metrics
    assert all((folder / name).is_file() for name in made.show)
    for name in ("transfer.html", "transfer.md", "table.csv", "table.json"):
        text = (folder / name).read_text(encoding="utf-8")
        assert not any(stay in text for stay in target.stays["stay_id"])


def test_the_target_is_asked_about_its_own_features_as_the_source_writes_them_and_with_its_policy() -> None:
    changed = {"visits": 5, "digits": 2, "units": False, "observed_only": False}
    source = load("tjh_small", ["evaluation.completion_tokens=99", "prompts.expert_features=3",
                                *(f"prompts.{name}={json.dumps(value)}" for name, value in changed.items())])
    target = target_config(source, load("mimic_demo"))
    assert target.paths.workspace == source.paths.workspace and target.transfer == source.transfer
    assert set(source.transfer.arms) <= set(target.arms)
    found = asking(source, target, "stage1+2")
    assert found.policy == source.policy and found.evaluation.completion_tokens == 99
    assert found.prompts == target.prompts.model_copy(update={"expert_features": 3, **changed})
    source = load("tjh_small", ["prompts.expert_features=3", "transfer.prompts=target"])
    found_there = asking(source, target_config(source, load("mimic_demo")), "stage1+2").prompts
    assert found_there == target.prompts.model_copy(update={"expert_features": 3})
    assert (found.study, found.cohort, found.evaluation.stays) == (target.study, target.cohort, target.evaluation.stays)
    assert found.serving.context == max(source.serving.context, target.serving.context) == 2048


@pytest.mark.parametrize("source", sorted(shipped()))
def test_each_shipped_study_can_be_judged_on_each_other_of_its_outcome(source: str) -> None:
    for other in shipped():
        one, two = load(source), load(other)
        if one.cohort.outcome == two.cohort.outcome:
            for arm in one.transfer.arms:
                assert asking(one, target_config(one, two), arm).study.name == other
        else:
            with pytest.raises(ConfigError, match="what is trained for one outcome is judged on the same"):
                target_config(one, two)


def test_verdicts_of_the_target_are_taken_where_they_are_of_the_same_prompts_and_settings(tmp_path: Path) -> None:
    session = session_of(dump(load("demo", [f"paths.workspace={tmp_path}"])))
    prompts, base = (Artifact(kind, f"{kind}-1", "uri", digit * 64, "1" * 64)
                     for kind, digit in (("patients", "a"), ("base", "b")))
    assert finished(session, "decomposition", prompts) is None
    recipe = verdicts.recipe(session, {"patients": prompts, "base": base}, variant="decomposition")
    with session.store.drafting("verdicts", recipe.key) as draft:
        kept = session.store.commit(draft, "verdicts", recipe, {}, {})
    session.store.remember("demo", "verdicts-decomposition", recipe)
    assert finished(session, "decomposition", prompts) == kept
    other = Artifact("patients", "patients-2", "uri", "c" * 64, "1" * 64)
    assert finished(session, "decomposition", other) is None
    fewer = session_of(dump(load("demo", [f"paths.workspace={tmp_path}", "evaluation.stays=8"])))
    assert finished(fewer, "decomposition", prompts) is None


@pytest.fixture(scope="module")
def real_cohort(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Cohort]:
    """Cohorts of shipped configurations, each prepared once."""
    workspace = tmp_path_factory.mktemp("workspace")

    @cache
    def cohort(name: str) -> Cohort:
        config = load(name, [f"paths.workspace={workspace}", f"paths.data={DATA}"])
        session = session_of(dump(config))
        source = read_source(config.cohort, config.study.seed, session.data, workspace / "cache",
                             tasks.cohort.source_files(session))
        return prepare(source, config.cohort, config.study.seed)

    return cohort


@real
@pytest.mark.real_data
@pytest.mark.parametrize(("source", "target", "count", "names"), [
    ("tjh_small", "mimic_demo", 2, {"PH value", "glucose"}), ("mimic_demo", "tjh_small", 2, {"pH", "Glucose"}),
    ("demo", "tjh_small", 2, {"pH", "Glucose"}), ("demo", "mimic_demo", 16, {"Heart Rate", "pH"}),
    ("tjh_small", "tjh_external", 3, {"Lactate dehydrogenase", "(%)lymphocyte"})])
def test_real_datasets_transfer(tmp_path: Path, real_cohort: Callable[[str], Cohort], source: str, target: str,
                                count: int, names: set[str]) -> None:
    case, there = Experiment(tmp_path), target_config(load(source), load(target))
    case.cohorts(real_cohort(source), real_cohort(target))
    case.reduce()
    filled = case.frame("shared:target", "filled")
    assert len(filled.columns) - 4 == count and names <= set(filled.columns)
    case.folders["readings"] = tmp_path
    even_readings(case.folders["shared:target"]).write_parquet(tmp_path / "readings.parquet")
    case.make(transferred_patients, "", {"source": "source", "cohort": "target", "shared": "shared:target",
                                         "readings": "readings"}, there)
    case.make(transferred_baselines, "", {"source": "shared:source", "target": "shared:target", "readings": "readings",
                                          "patients": "transferred-patients"}, there)
    found = case.frame("transferred-baselines", "verdicts").filter(pl.col("arm") == "logistic regression")
    area = float(roc_auc_score(found["label"], found["probability"]))
    assert area > (0.95 if target == "tjh_external" else 0.0)
    own = (case.folders["transferred-baselines"] / "own.parquet").is_file()
    assert own == (target != "tjh_external")
