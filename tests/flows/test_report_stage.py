"""Stage `report` writes its tables, page and text from everything a study made."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest
from huggingface_hub import ModelCard

import tasks.cohort
import tasks.report
import tasks.report_inputs
from configs.load import load
from configs.schema import Config
from contracts.errors import ContractError
from contracts.frames import TRAJECTORIES
from contracts.patients import PATIENTS, Patient
from ehr.cohort import read
from evaluation.baselines import judge_expert
from evaluation.gain import Asked
from evaluation.risks import FIRST
from lineage.artifact import Artifact
from lineage.fingerprint import code_digests
from prompts.grammar import render_final
from prompts.templates import messages
from search.records import record_path
from support.judged import POLICY_ARMS, Finder, readings_of, stays_of, verdicts_of
from tasks.report_parts import case_arms, cases, tree
from tasks.stage import Made, Work

pytestmark = pytest.mark.slow
CONFIG = load("demo", ["cohort.synthetic.stays=160", "evaluation.stays=all", "evaluation.interval_bootstraps=50",
                       "evaluation.policy_seeds=2", "evaluation.recalibrate=true", "evaluation.cpu_hour_price=3.6",
                       "evaluation.visits=[last, first]", f"evaluation.arms={json.dumps(list(POLICY_ARMS))}"])
TABLES = ("differences", "calibration", "reliability", "decision", "subgroups", "power", "faithfulness",
          "overlap_and_score", "uncertainty", "uncertainty_curves", "seeds", "cost", "cost_stages")
NAMED = ["heart rate", "PH"]
TRAINED = ("stage1", "stage1+2")
PROMPTS = Artifact("patients", "patients-1", "patients", "0" * 64, "k")
FIRST_PROMPTS = Artifact("first-visit", "first-visit-1", "first-visit", "1" * 64, "k")


def _json(folder: Path, name: str, values: Any) -> None:
    (folder / name).write_text(json.dumps(values), encoding="utf-8")


def _on_validation(stays: pl.DataFrame) -> pl.DataFrame:
    """Verdicts of stage 1 on validation stays."""
    moved = stays.filter(pl.col("split") == "validation").with_columns(split=pl.lit("test"))
    return verdicts_of("stage1", moved, POLICY_ARMS["stage1"])


def _manifest(artifact: Artifact) -> dict[str, Any]:
    """As the store has it: everything comes from the cohort, which cost nothing, and the cohort from one file; verdicts
    took 16 seconds on a CPU; those of trained arms come from an adapter that took 30, each training from its own."""
    role, place = artifact.kind, artifact.kind.removesuffix(FIRST)
    inputs = {} if role == "cohort" else {"cohort": Artifact("cohort", "cohort-1", "cohort", "0" * 64, "k").to_json()}
    if "verdicts." in role or role == "first-visit":
        inputs["patients"] = (FIRST_PROMPTS if role.endswith(FIRST) else PROMPTS).to_json()
    if "verdicts.stage1" in role:
        kind = "rl" if place.endswith("+2") else "sft"
        inputs["adapter"] = Artifact(kind, f"adapter-of-{place}", "", "0" * 64, "k").to_json()
    return {"artifact": artifact.to_json(), "recipe": {"stage": role, "settings": {"policy.sft.epochs": 2.0}},
            "inputs": inputs, "sources": {} if inputs else {"labs.csv": "5a" * 32}, "commit": "c" * 40,
            "tracking_run": "r", "started": 1.0, "finished": 3.0,
            "seconds": 30.0 if inputs else 0.0,
            "metrics": {"judging_seconds": 16.0, "on_gpu": 0.0, "tokens": 500.0}}


def _inputs(folder: Path, session: Any) -> dict[str, Path]:
    """Folders of all artifacts that the report opens; arms and expert are pretended."""
    inputs = {role: folder / role for role in ("cohort", "patients", "readings", "check", "rl", "baselines",
                                               "trajectories",
                                               *(f"verdicts.{arm}" for arm in POLICY_ARMS), "validation.stage1",
                                               *(f"verdicts.{arm}{FIRST}" for arm in POLICY_ARMS),
                                               *(f"seed2.verdicts.{arm}" for arm in TRAINED))}
    for place in inputs.values():
        place.mkdir(parents=True)
    tasks.cohort.cohort.make(Work("cohort", session, {}, {}, inputs["cohort"], inputs["cohort"], "run"))
    stays = read(inputs["cohort"]).stays
    readings = readings_of(stays)
    _with_shown(readings).write_parquet(inputs["readings"] / "readings.parquet")
    _json(inputs["readings"], "health.json", {"effective_tokens": 3.1})
    rows = [{"stay_id": stay, "split": split, "label": label, "evidence": "Lactate: 2", "shown": ["Heart Rate", "pH"],
             "expert_features": ["Heart Rate", "pH"]} for stay, split, label in
            stays.select("stay_id", "split", "label").iter_rows()]
    pl.DataFrame(rows, schema=dict(PATIENTS.dtypes)).write_parquet(inputs["patients"] / "patients.parquet")
    (folder / "first-visit").mkdir()
    pl.DataFrame([{**row, "shown": ["pH"], "expert_features": ["pH"]} for row in rows if row["split"] == "test"],
                 schema=dict(PATIENTS.dtypes)).write_parquet(folder / "first-visit" / "patients.parquet")
    for arm, skill in POLICY_ARMS.items():
        frame = verdicts_of(arm, stays, skill)
        named = pl.Series("features", [NAMED if read else [] for read in frame["parsed"]])
        frame.with_columns(named).write_parquet(inputs[f"verdicts.{arm}"] / "verdicts.parquet")
        verdicts_of(f"{arm}{FIRST}", stays, 0.5 * skill).with_columns(named).write_parquet(
            inputs[f"verdicts.{arm}{FIRST}"] / "verdicts.parquet")
    for arm in TRAINED:
        verdicts_of(arm, stays, POLICY_ARMS[arm], seed=9).write_parquet(inputs[f"seed2.verdicts.{arm}"]
                                                                        / "verdicts.parquet")
    _on_validation(stays).write_parquet(inputs["validation.stage1"] / "verdicts.parquet")
    judge_expert(readings, stays).write_parquet(inputs["baselines"] / "verdicts.parquet")
    _json(inputs["baselines"], "notes.json", {})
    _json(inputs["check"], "check.json", {"before": {"reward": 0.1}, "after": {"reward": 0.2}})
    pl.DataFrame([{"stay_id": f"r{number // 4}", "step": 0, "kept": True, "mention_entropy": number % 7 / 7,
                   "probability": number % 5 / 5} for number in range(80)]).write_parquet(
        inputs["rl"] / "rollouts.parquet")
    _search(inputs["trajectories"], [row["stay_id"] for row in rows if row["split"] == "train"][:3])
    (inputs["rl"] / "progress.jsonl").write_text(
        '{"step": 1, "total": 1, "metrics": {"reward": 0.5}}\n', encoding="utf-8")
    return inputs


def _with_shown(readings: pl.DataFrame) -> pl.DataFrame:
    """The same readings with what the prompts show, which the expert likes best."""
    likes = [readings.group_by("stay_id", maintain_order=True).agg(
        pl.col("risk").first(), pl.lit(name).alias("feature"), pl.lit(0.5).alias("attention"),
        pl.lit(rank, pl.Int32).alias("rank")) for rank, name in ((-1, "Heart Rate"), (0, "pH"))]
    return pl.concat([readings, *(frame.select(readings.columns) for frame in likes)])


def _search(folder: Path, stays: list[str]) -> None:
    """Trees of one rollout, and their harvest."""
    (folder / "trees").mkdir()
    rows = []
    for number, stay in enumerate(stays):
        end = {"path": [0], "visits": 1, "value": 0.1, "prior": 70.0, "terminal": True, "reward": 0.1, "children": [],
               "question": f"Question {number}?", "features": ["Lactate"], "probability": 0.9}
        root = {"path": [], "visits": 1, "value": 0.1, "prior": 0.0, "terminal": False, "reward": None,
                "children": [end], "question": "", "answer": ""}
        record_path(folder / "trees", stay).write_text(json.dumps({"stay_id": stay, "tree": root}), encoding="utf-8")
        rows.append({"stay_id": stay, "rank": 1, "text": render_final(f"Question {number}?", ["Lactate"], 0.9),
                     "reward": float(number), "outcome_reward": 0.0, "attention_reward": 0.0, "probability": 0.9,
                     "features": ["Lactate"], "depth": 1, "rollout": 0})
    pl.DataFrame(rows, schema=dict(TRAJECTORIES.dtypes)).write_parquet(folder / "trajectories.parquet")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Made, set[str]]:
    return _report(tmp_path_factory.mktemp("report"), CONFIG)


def _report(folder: Path, config: Config) -> tuple[Path, Made, set[str]]:
    rollouts = folder / "rollouts"
    rollouts.mkdir()
    pl.DataFrame({"tokens": [40, 60]}).write_parquet(rollouts / "rollouts.parquet")
    places = {"first-visit": folder / "inputs" / "first-visit"}
    store = SimpleNamespace(manifest=_manifest, folder=lambda artifact: places.get(artifact.kind, rollouts))
    session = cast(Any, SimpleNamespace(config=config, data=None, workspace=folder, store=store))
    inputs = _inputs(folder / "inputs", session)
    artifacts = {role: Artifact(role, f"{role}-1", role, "0" * 64, "k") for role in inputs}
    out = folder / "out"
    out.mkdir()
    result = tasks.report.report.make(Work("report", session, inputs, artifacts, out, out, "run"))
    return out, result, set(read(inputs["cohort"]).stays["stay_id"])


def test_page_text_and_every_table_are_written_and_shown(made: tuple[Path, Made, set[str]]) -> None:
    out, result, _ = made
    assert (out / "report.html").stat().st_size
    for name in ("report_to_share.html", "report.md", "tripod.md", "table.csv", "table.json",
                 *(f"{name}.csv" for name in TABLES)):
        assert (out / name).stat().st_size and name in result.show
    assert result.metrics["stage1+2/tokens/auroc"] > 0.5


def test_arms_are_compared_with_the_reference_that_is_asked_for(tmp_path: Path) -> None:
    out, _, _ = _report(tmp_path, CONFIG.model_copy(update={
        "evaluation": CONFIG.evaluation.model_copy(update={"reference": "stage1"})}))
    compared = pl.read_csv(out / "differences.csv")
    assert set(compared["reference"]) == {"stage1", f"stage1{FIRST}"}
    assert "stage1" not in set(compared["arm"]) and {"stage1+2", "decomposition"} <= set(compared["arm"])
    assert "Differences to stage1 are paired" in (out / "report.md").read_text(encoding="utf-8")
    assert "differs from stage1 by" in (out / "tripod.md").read_text(encoding="utf-8")


def test_page_and_text_say_how_each_arm_is_made_and_asked(made: tuple[Path, Made, set[str]]) -> None:
    for name in ("report.html", "report.md"):
        text = (made[0] / name).read_text(encoding="utf-8")
        assert "decomposition prompt; an adapter trained by reinforcement learning answers, begun from stage 1" in text
        assert "Vanilla prompt" in text


def test_names_are_read_as_the_catalogue_spells_them_and_rollouts_as_training_left_them(
        made: tuple[Path, Made, set[str]]) -> None:
    overlap = pl.read_csv(made[0] / "faithfulness.csv").filter(pl.col("control") == "swapped")
    assert set(overlap["arm"]) == {f"{arm}{when}" for arm in POLICY_ARMS for when in ("", FIRST)}
    assert overlap.filter(~pl.col("arm").str.ends_with(FIRST))["overlap"].min() > 0.1  # type: ignore[operator]
    found = pl.read_csv(made[0] / "uncertainty.csv")
    assert dict(found.select("source", "n").iter_rows()) == {"stage-2 rollouts": 80, "stage-2 groups": 20}
    for name in ("report.html", "report.md"):
        assert "overlaps with the expert" in (made[0] / name).read_text(encoding="utf-8")


def test_an_arm_is_held_against_what_its_own_prompts_show(made: tuple[Path, Made, set[str]]) -> None:
    rows = {row["arm"]: row for row in pl.read_csv(made[0] / "faithfulness.csv").filter(
        pl.col("control") == "even").iter_rows(named=True)}
    for arm in POLICY_ARMS:  # every readable answer names both, of which the first visit's prompt shows one
        whole, first = rows[arm], rows[f"{arm}{FIRST}"]
        assert whole["overlap"] == pytest.approx(whole["naming"])
        assert first["overlap"] == first["control_overlap"] == pytest.approx(first["naming"] / 2)


def test_the_report_finds_what_each_arm_was_asked_and_training_stays_with_it(made: tuple[Path, Made, set[str]]) -> None:
    inputs = made[0].parent / "inputs"
    roles = ("patients", *(f"verdicts.{arm}{when}" for arm in POLICY_ARMS for when in ("", FIRST)))
    store = SimpleNamespace(manifest=_manifest, folder=lambda artifact: inputs / artifact.kind)
    session = cast(Any, SimpleNamespace(config=CONFIG, store=store))
    work = Work("report", session, {role: inputs / role for role in roles},
                {role: Artifact(role, f"{role}-1", role, "0" * 64, "k") for role in roles}, inputs, inputs, "run")
    whole, first = tasks.report_inputs.asked_of(work)
    assert whole.arms == list(POLICY_ARMS) and first.arms == [f"{arm}{FIRST}" for arm in POLICY_ARMS]
    assert {one.shown for one in first.patients if one.split == "test"} == {("pH",)}
    assert {one.stay_id: one for one in whole.patients if one.split == "train"} == {
        one.stay_id: one for one in first.patients if one.split != "test"} != {}


def test_the_guides_of_a_study_are_all_experts_whose_features_its_patients_have(tmp_path: Path) -> None:
    config, roles = load("demo", ["prompts.guides=[gru]"]), ("readings", "readings.gru", "readings.gradient_boosting")
    for role in roles:
        (tmp_path / role).mkdir()
        pl.DataFrame({"of": [role]}).write_parquet(tmp_path / role / "readings.parquet")
    made_of = {role: Artifact(role, role, "", role, "k").to_json() for role in (*roles, "cohort")}
    store = SimpleNamespace(manifest=lambda _: {"inputs": made_of}, folder=lambda artifact: tmp_path / artifact.id)
    work = Work("report", cast(Any, SimpleNamespace(config=config, store=store)), {"readings": tmp_path / "readings"},
                {"patients": PROMPTS}, tmp_path, tmp_path, "run")
    found = tasks.report_inputs.guides_of(work)
    assert [frame["of"][0] for frame in found.readings] == ["readings", "readings.gradient_boosting", "readings.gru"]
    assert (found.count, found.rule) == (config.prompts.expert_features, "rank")


def test_nothing_that_is_written_names_a_stay(made: tuple[Path, Made, set[str]]) -> None:
    out, _, stays = made
    for path in out.rglob("*.*"):
        if path.suffix != ".parquet":
            text = path.read_text(encoding="utf-8")
            assert [stay for stay in stays if stay in text] == [], path.name


def test_the_settings_of_the_cohort_and_the_resamples_reach_the_tables(made: tuple[Path, Made, set[str]]) -> None:
    out, _, _ = made
    table = pl.read_csv(out / "table.csv")
    assert (table["resamples"][0], table["interval_resamples"][0]) == (100, 50)
    groups = pl.read_csv(out / "subgroups.csv")
    assert groups["hidden"].any() and groups["n"].min() >= 5  # type: ignore[operator]
    assert "Counts of fewer than 5 patients" in (out / "report.md").read_text(encoding="utf-8")


def test_expert_and_arms_are_recalibrated_on_validation_stays_in_both_readings(made: tuple[Path, Made, set[str]]
                                                                               ) -> None:
    rows = pl.read_csv(made[0] / "calibration.csv").filter(pl.col("validation_stays").is_not_null())
    assert set(rows.select("arm", "reading").iter_rows()) == {("expert", "model"), ("stage1", "stated"),
                                                              ("stage1", "tokens")}
    assert set(rows["recalibration"]) == {"platt", "isotonic"}
    validation = read(made[0].parent / "inputs" / "cohort").stays.filter(pl.col("split") == "validation")
    assert set(rows["validation_stays"]) == {validation.height} and validation.height < 50
    for name in ("report.html", "report.md"):
        text = (made[0] / name).read_text(encoding="utf-8")
        assert f"Only {validation.height} validation stays: the maps are mostly noise" in text


def test_a_map_never_learns_from_a_test_stay(made: tuple[Path, Made, set[str]]) -> None:
    inputs = made[0].parent / "inputs"
    stays = read(inputs / "cohort").stays
    config = cast(Any, SimpleNamespace(config=CONFIG))
    folders = {role: inputs / role for role in ("readings", "validation.stage1")}
    work = Work("report", config, folders, {}, inputs, inputs, "run")
    held = tasks.report_inputs.validation_of(work, stays)
    assert {len(labels) for labels, _ in held.values()} == {stays.filter(pl.col("split") == "validation").height}
    leaking = Work("report", config, {**folders, "validation.stage1": inputs / "verdicts.stage1"}, {}, inputs, inputs,
                   "run")
    with pytest.raises(ContractError, match="stays that are not of the validation split"):
        tasks.report_inputs.validation_of(leaking, stays)


def test_rows_of_trained_arms_are_means_over_their_seeds_and_say_so(made: tuple[Path, Made, set[str]]) -> None:
    out, result, _ = made
    table = pl.read_csv(out / "table.csv")
    assert dict(table.select("arm", "seeds").iter_rows()) == {
        **dict.fromkeys(POLICY_ARMS, 1), **dict.fromkeys(TRAINED, 2), "expert": 1,
        **{f"{arm}{FIRST}": 1 for arm in POLICY_ARMS}}
    each = pl.read_csv(out / "seeds.csv").filter((pl.col("arm") == "stage1") & (pl.col("reading") == "tokens"))
    assert each["seed"].to_list() == [CONFIG.study.seed, CONFIG.study.seed + 1]
    assert result.metrics["stage1/tokens/auroc"] == pytest.approx(each["auroc"].mean())
    assert result.metrics["stage1/tokens/auroc_seed_sd"] == pytest.approx(each["auroc"].std())
    assert "vanilla/tokens/auroc_seed_sd" not in result.metrics
    assert "over 2 seeds" in (out / "report.md").read_text(encoding="utf-8")
    assert "how many trainings a row is the mean of" in (out / "report.html").read_text(encoding="utf-8")


def test_each_arm_has_its_cost_on_the_page_and_in_the_text(made: tuple[Path, Made, set[str]]) -> None:
    out = made[0]
    rows = {row["arm"]: row for row in pl.read_csv(out / "cost.csv").iter_rows(named=True)}
    stays = pl.read_csv(out / "table.csv")["n"][0]
    assert rows["vanilla"]["training_seconds"] == 0.0 and rows["stage1"]["training_seconds"] == 30.0
    assert (rows["stage1"]["training_tokens"], rows["stage1+2"]["training_tokens"]) == (1000.0, 100.0)
    assert rows["vanilla"]["seconds_per_patient"] == pytest.approx(16.0 / stays)
    assert rows["vanilla"]["price_per_1000"] == pytest.approx(16.0 / stays)  # an hour's 3,600 seconds cost 3.6
    for name in ("report.html", "report.md"):
        assert "Price of judging 1,000 patients" in (out / name).read_text(encoding="utf-8")


def test_warnings_about_the_cohort_stand_on_the_page_and_in_the_text(made: tuple[Path, Made, set[str]]) -> None:
    out = made[0]
    assert "- warning: " in (out / "report.md").read_text(encoding="utf-8")
    assert "What may bias the results" in (out / "report.html").read_text(encoding="utf-8")


def test_cases_tree_lineage_and_checklists_are_on_the_page(made: tuple[Path, Made, set[str]]) -> None:
    text = (made[0] / "report.html").read_text(encoding="utf-8")
    assert text.count('class="panel"') >= 6 and 'type="radio" name="case" id="case-pick-1" checked' in text
    assert "Question 1?" in text and "Question 0?" not in text  # the median reward of three
    assert "5a" * 32 in text and 'href="#made-' in text and "labs.csv" in text
    assert "TRIPOD+AI: " in text and "TRIPOD-LLM: " in text


def test_what_goes_to_mlflow_shows_no_patient(made: tuple[Path, Made, set[str]]) -> None:
    evidence, question = "Lactate: 2\n", "Question 1?"
    assert all(words in (made[0] / "report.html").read_text(encoding="utf-8") for words in (evidence, question))
    for name in made[1].show:
        text = (made[0] / name).read_text(encoding="utf-8")
        assert evidence not in text and question not in text, name


def test_the_text_holds_the_lineage_as_a_drawing_and_for_each_arm(made: tuple[Path, Made, set[str]]) -> None:
    text = (made[0] / "report.md").read_text(encoding="utf-8")
    assert "flowchart LR" in text and "- stage1+2: labs.csv (5a5a5a5a5a5a) → cohort-1 (000000000000) → " in text


def test_each_adapter_has_a_model_card_and_other_arms_have_none(made: tuple[Path, Made, set[str]]) -> None:
    cards = {path.parent.name: path for path in (made[0] / "cards").glob("*/README.md")}
    assert set(cards) == {"stage1", "stage1+2"}
    data = ModelCard.load(cards["stage1+2"]).data
    assert data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct" and len(data.eval_results) == 6
    assert "policy.grpo.lr" in cards["stage1+2"].read_text(encoding="utf-8")
    assert "policy.grpo.lr" not in cards["stage1"].read_text(encoding="utf-8")


def test_a_card_has_the_figures_and_the_lineage_of_its_own_adapter_alone(made: tuple[Path, Made, set[str]]) -> None:
    out = made[0]
    each = pl.read_csv(out / "seeds.csv").filter((pl.col("arm") == "stage1") & (pl.col("reading") == "tokens"))
    first, second = each["auroc"]
    text = (out / "cards" / "stage1" / "README.md").read_text(encoding="utf-8")
    told = {one.metric_name: one.metric_value for one in ModelCard(text).data.eval_results}
    value = next(value for name, value in told.items() if name.startswith("AUROC, risk tokens"))
    assert value == pytest.approx(first, abs=1e-4) and abs(first - (first + second) / 2) > 1e-3
    assert "the first of 2 trainings, whose own figures stand below" in text
    assert "adapter-of-verdicts.stage1" in text and "adapter-of-seed2" not in text


def test_the_lineage_of_an_arm_of_two_trainings_names_both_adapters(made: tuple[Path, Made, set[str]]) -> None:
    text = (made[0] / "report.md").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith("- stage1:") and "→" in line)
    assert "adapter-of-verdicts.stage1" in line and "adapter-of-seed2.verdicts.stage1" in line
    assert "adapter-of-seed2" not in next(line for line in text.splitlines() if line.startswith("- vanilla: labs"))
    page = (made[0] / "report.html").read_text(encoding="utf-8")
    assert page.count('title="What this arm\'s figures rest on"') == 2 * len(POLICY_ARMS) + len(TRAINED) + 1


def test_a_case_shows_the_prompt_that_was_sent_also_where_every_arm_has_prompts_of_its_own() -> None:
    config = load("demo", ["arms={own: {title: Own, prepare: {prompts.expert_features: 3, prompts.visits: 1}}}",
                           "evaluation.arms=[own]", "evaluation.cases=[0.5]"])
    stays = stays_of(30)
    verdicts = verdicts_of("own", stays, 1.0)
    asked = [Asked(arms, [Patient(stay, "test", 0, words, ("Lactate",), ("Lactate",)) for stay in stays["stay_id"]])
             for arms, words in ((["other"], "what the study would show"), (["own"], "what was sent"))]
    found = cases(config, verdicts, asked, cast(Any, Finder()))
    assert found
    for one in found:
        text = " ".join(words for _, words in one.prompt)
        assert "what was sent" in text and "what the study would show" not in text
        assert one.prompt[-1][1] == messages("what was sent", "decomposition", "mortality", 3)[-1]["content"]


def test_case_studies_show_the_method_the_reference_and_others_of_the_same_patients() -> None:
    assert case_arms(CONFIG) == ["stage1+2", "decomposition", "stage1", "think"]
    other = load("demo", ['evaluation.arms=["vanilla", "two_experts"]'])
    assert case_arms(other) == ["vanilla"]


def test_no_patient_is_shown_where_none_is_asked_for(made: tuple[Path, Made, set[str]]) -> None:
    config = CONFIG.model_copy(update={"evaluation": CONFIG.evaluation.model_copy(update={"cases": ()})})
    folder = made[0].parent / "inputs" / "trajectories"
    work = SimpleNamespace(config=config, inputs={"trajectories": folder})
    assert tree(cast(Any, work), [], cast(Any, None)) is None
    assert cases(config, pl.read_parquet(folder.parent / "verdicts.vanilla" / "verdicts.parquet"), [],
                 cast(Any, None)) == ()


def test_changing_a_statistic_or_a_checklist_makes_the_report_anew_and_no_verdict() -> None:
    wanted = {"evaluation.tripod", "evaluation.model_card", "evaluation.descent",
              "evaluation.calibration", "evaluation.subgroups", "evaluation.wording", "evaluation.power",
              "evaluation.gain", "evaluation.faithfulness", "evaluation.expert_sets", "evaluation.uncertainty",
              "evaluation.seeds", "evaluation.cost"}
    assert wanted <= set(code_digests(["tasks.report"]))
    assert not wanted & set(code_digests(["tasks.verdicts"]))
