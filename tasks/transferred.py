"""Stages of the transfer experiment before its result: expert and models of the source on the target, stays in words.

The prompt of a target stay shows the target's features, as many as the target's own prompts, each that the source knows
under the source's name and in its unit. Models without language read the shared features alone (stage `shared`).
"""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from contracts.errors import ConfigError
from contracts.features import catalogue
from contracts.frames import STAYS, feature_columns
from contracts.patients import stratified
from ehr import scale
from ehr.cohort import read
from evaluation.baselines import MODEL_ARMS, judge_baselines, judge_expert
from prompts.evidence import chosen_features, patients_showing
from prompts.shared import converted, in_words_of
from tasks.people import mean, people, with_both_labels
from tasks.shared import pairs_of
from tasks.stage import Made, Work, input_file, listed, stage


@stage("transferred-readings", settings=(), packages=("torch",))
def transferred_readings(work: Work) -> Made:
    """Writes readings.parquet (contract READINGS): the source's expert of shared features asked about the target."""
    # This loads torch, which takes seconds.
    from models.expert.attention import asked

    readings = asked(work.inputs["expert"], work.inputs["target"])
    readings.write_parquet(work.out / "readings.parquet")
    metrics = {"stays": float(readings["stay_id"].n_unique()), "risk_mean": mean(readings["risk"])}
    return Made(metrics=metrics, summary=listed(metrics))


@stage("transferred-patients", settings=("prompts",), packages=("polars", "rapidfuzz"))
def transferred_patients(work: Work) -> Made:
    """Writes patients.parquet (contract PATIENTS): the target's test stays in the source's words."""
    cohort, words = read(work.inputs["cohort"]), read(work.inputs["source"]).meta["catalogue"]
    own, pairs, section = catalogue(cohort.meta["catalogue"]), pairs_of(work, "shared"), work.config.prompts
    if section.features != "all" and not (cohort.stays["split"] == "train").any():
        raise ConfigError(f"prompts.features={section.features} in a target that trains nothing",
                          "the most often measured features are counted in a training split",
                          "add `--set-to prompts.features=all` (and prompts.observed_only=true)")
    called = {one.target: one.source for one in pairs}
    features = [called.get(name, name) for name in chosen_features(cohort.stays, cohort.visits, own, section)]
    stays = STAYS.check(cohort.stays).filter(pl.col("split") == "test")
    filled, readings = (frame.join(stays, on="stay_id", how="semi") for frame in (
        converted(cohort.filled, pairs), pl.read_parquet(input_file(work, "readings", "readings.parquet"))))
    frame = patients_showing(features, stays, filled, [readings], in_words_of(own, pairs, catalogue(words)), section)
    frame.write_parquet(work.out / "patients.parquet")
    metrics = {"stays": float(frame.height), "evidence_characters_mean": mean(frame["evidence"].str.len_chars()),
               "features_shown_mean": mean(frame["shown"].list.len())}
    return Made(metrics=metrics, summary=listed(metrics))


@stage("transferred-baselines", settings=("evaluation.stays", "study.seed"), packages=("scikit-learn", "polars"))
def transferred_baselines(work: Work) -> Made:
    """Writes verdicts of the expert and the simple models that read the shared features, on the target's judged stays.

    verdicts.parquet: trained on the source; own.parquet: simple models trained on the target, if it trains at all. The
    difference to models of the target that read everything is then told apart: what the other features are worth, and
    what the other hospital costs.
    """
    seed = work.config.study.seed
    chosen = with_both_labels(stratified(people(work, "test"), work.config.evaluation.stays, seed), "test split")
    stay_ids = [one.stay_id for one in chosen]
    stays = pl.read_parquet(input_file(work, "target", "stays.parquet"))
    simple, notes = judge_baselines(_mixed(work), seed, stay_ids, ("last",))
    expert = judge_expert(pl.read_parquet(input_file(work, "readings", "readings.parquet")), stays, stay_ids)
    frame = pl.concat([expert, simple]).filter(pl.col("arm").is_in(MODEL_ARMS))
    frame.write_parquet(work.out / "verdicts.parquet")
    if (stays["split"] == "train").any():
        judge_baselines(_own(work), seed, stay_ids, ("last",))[0].write_parquet(work.out / "own.parquet")
    return Made(metrics={"stays": float(len(stay_ids))}, summary="\n".join(f"- {arm}: {note}"
                                                                          for arm, note in notes.items()))


def _mixed(work: Work) -> Path:
    """A folder with the source's training stays, its statistics, and the target's test stays."""
    sides = []
    for role, split in (("source", "train"), ("target", "test")):
        stays, filled = (pl.read_parquet(input_file(work, role, f"{name}.parquet")) for name in ("stays", "filled"))
        kept = stays.filter(pl.col("split") == split)
        # Generated stays of two studies may have equal identifiers.
        mark = pl.concat_str(pl.lit("source/" if role == "source" else ""), "stay_id").alias("stay_id")
        sides.append((kept.with_columns(mark), filled.join(kept, on="stay_id", how="semi").with_columns(mark)))
    folder = work.scratch / "mixed"
    folder.mkdir(parents=True, exist_ok=True)
    for place, name in enumerate(("stays", "filled")):
        pl.concat([side[place] for side in sides]).sort("stay_id", maintain_order=True).write_parquet(
            folder / f"{name}.parquet")
    (folder / "scaling.json").write_bytes(input_file(work, "source", "scaling.json").read_bytes())
    return folder


def _own(work: Work) -> Path:
    """A folder of the target alone, with its own training statistics."""
    stays, filled = (pl.read_parquet(input_file(work, "target", f"{name}.parquet")) for name in ("stays", "filled"))
    clip_sd = json.loads(input_file(work, "target", "meta.json").read_text(encoding="utf-8"))["clip_sd"]
    scaling = scale.as_values(scale.fit(filled, stays, feature_columns(filled), clip_sd))
    folder = work.scratch / "own"
    folder.mkdir(parents=True, exist_ok=True)
    stays.write_parquet(folder / "stays.parquet")
    filled.write_parquet(folder / "filled.parquet")
    (folder / "scaling.json").write_text(json.dumps(scaling), encoding="utf-8")
    return folder
