import json
from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from configs.load import load
from evaluation import tables
from evaluation.baselines import judge_expert
from evaluation.descent import Link
from evaluation.study_facts import Known, base_model, facts, hub_name
from evaluation.tripod import checklists
from support.judged import readings_of, stays_of, verdicts_of


@pytest.fixture(scope="module")
def known() -> Known:
    stays = stays_of(120)
    verdicts = pl.concat([verdicts_of("decomposition", stays, 1.0), verdicts_of("stage1", stays, 2.0),
                          judge_expert(readings_of(stays), stays)])
    table = tables.results(verdicts, 10, 1, interval_bootstraps=20)
    splits = {name: {"patients": 40, "positive": 18} for name in ("train", "validation", "test")}
    step = {"rule": "no label", "unit": "stays", "found": 9, "dropped": 2, "kept": 7}
    links = [Link("labs.csv", "source file", (), "a" * 64, None, None, ()),
             Link("cohort-1", "cohort", (), "b" * 64, "c" * 40, "r", ("labs.csv",), 1800.0),
             Link("model.safetensors", "source file", (), "d" * 64, None, None, ()),
             Link("base-1", "base", (), "e" * 64, "c" * 40, "r", ("model.safetensors",), 1800.0)]
    power = pl.DataFrame({"arm": ["stage1"], "smallest_difference": [0.125]})
    calibration = pl.DataFrame({"arm": ["stage1", "expert", "expert"], "recalibration": ["none", "none", "platt"]})
    return Known(load("tjh_small", ['evaluation.arms=["decomposition", "stage1"]']), table,
                 {"splits": splits, "attrition": [step]}, [{"value": "an odd column"}], ["Lactate", "Urea"], "tjh",
                 [("decomposition", "D", "base answers"), ("stage1", "S", "an adapter answers")], links, power,
                 calibration, ["It is so."], None)


def test_every_item_of_both_checklists_finds_its_facts(known: Known) -> None:
    found = checklists(facts(known))
    assert all("{" not in item.filled for one in found for item in one.items)
    assert sum(bool(item.filled) for one in found for item in one.items) > 60


@pytest.mark.parametrize(("name", "words"), [
    ("splits", "test 40 patients (18 with outcome 1)"), ("attrition", "no label: 2 of 9 stays"),
    ("findings", "an odd column"), ("features", "2 clinical features"), ("compute", "1.0 hours"),
    ("source_digests", "Files: labs.csv (sha256 aaaaaaaaaaaa)."), ("base_digest", "sha256 dddddddddddd"),
    ("power", "12.5 points"), ("licence", "MIT"), ("adapters", "stage1"), ("simple", "expert"),
    ("reference", "decomposition"), ("split_rule", "paper")])
def test_facts_come_from_the_artifacts(known: Known, name: str, words: str) -> None:
    assert words in str(facts(known)[name])


def test_what_the_study_does_not_know_is_none(known: Known) -> None:
    bare = facts(replace(known, links=(), headline=()))
    assert {name for name, value in bare.items() if value is None} >= {"commit", "compute", "headline", "paper",
                                                                      "base_digest"}


@pytest.mark.parametrize(("source", "words"), [("mimic_iv", "data use agreement"), ("synthetic", "no patient"),
                                               ("meds", "data use agreement")])
def test_the_licence_is_that_of_the_data(known: Known, source: str, words: str) -> None:
    cohort = known.config.cohort.model_copy(update={"source": source, "split": "stratified"})
    config: Any = known.config.model_copy(update={"cohort": cohort})
    assert words in str(facts(replace(known, config=config))["licence"])


@pytest.mark.parametrize(("model", "name"), [
    ("smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct"), ("Qwen/Qwen2.5-7B-Instruct@main",
                                                            "Qwen/Qwen2.5-7B-Instruct"),
    ("/data/models/mine", None), ("./mine/model", None)])
def test_a_path_of_a_machine_is_never_named(model: str, name: str | None) -> None:
    assert hub_name(model) == name
    assert base_model(model) == (name or "a model of a local folder")


def test_facts_are_plain_text(known: Known) -> None:
    assert json.loads(json.dumps(facts(known))) == facts(known)


def _told(known: Known, *overrides: str) -> dict[str, str]:
    """The facts under other settings of the study."""
    config = load("tjh_small", ['evaluation.arms=["decomposition", "stage1"]', *overrides])
    return {name: str(value) for name, value in facts(replace(known, config=config)).items()}


@pytest.mark.parametrize(("features", "words"), [
    ("all", "all features, the newest"), ("12", "the 12 features measured most often, the"),
    ("[Lactate, Urea]", "2 named features: Lactate, Urea, the newest"), ("[Urea]", "1 named feature: Urea, the")])
def test_the_features_of_a_prompt_are_told_as_they_were_chosen(known: Known, features: str, words: str) -> None:
    assert words in _told(known, f"prompts.features={features}")["shown"]


def test_the_arms_that_were_recalibrated_are_named_and_no_other(known: Known) -> None:
    assert facts(known)["recalibration"] == (
        "Recalibrated (Platt, isotonic) on validation stays: expert; their rows say so.")
    both = known.calibration.with_columns(recalibration=pl.lit("isotonic"))
    assert "stays: stage1, expert;" in str(facts(replace(known, calibration=both))["recalibration"])
    none = known.calibration.with_columns(recalibration=pl.lit("none"))
    assert facts(replace(known, calibration=none))["recalibration"] == "No arm was recalibrated."


def test_the_limits_tell_of_the_visits_that_were_judged(known: Known) -> None:
    assert "a single prediction, at the last visit;" in _told(known)["limits"]
    both = _told(known, "evaluation.visits=[last, first]")["limits"]
    assert "the first visit alone" in both and "a single prediction" not in both


@pytest.mark.parametrize(("arms", "words"), [
    ("[vanilla, decomposition]", "Judged: "), ("[vanilla, sft_labels]", "Judged: "),
    ("[decomposition, stage1]", "Searched: 24 training stays; Judged: "),
    ("[without_stage1]", "Reinforcement learning: 24 training stays; Judged: "),
    ("[stage1+2]", "Searched: 24 training stays; Reinforcement learning: 24 training stays; Judged: ")])
def test_search_and_reinforcement_learning_are_told_only_where_an_arm_stands_on_them(known: Known, arms: str,
                                                                                     words: str) -> None:
    assert _told(known, f"evaluation.arms={arms}")["used"].startswith(words)


def test_arms_with_settings_of_their_own_tell_their_own_stays(known: Known) -> None:
    own = "arms={wide: {title: w, adapter: rl, train: {policy.grpo.stays: 7}, prepare: {search.stays: all}}}"
    told = _told(known, own, "evaluation.arms=[stage1+2, wide]")["used"]
    assert told.startswith("Searched: 24 or all training stays; Reinforcement learning: 24 or 7 training stays;")
