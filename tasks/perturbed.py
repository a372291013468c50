"""Stages of the robustness experiment before any model is asked: test stays perturbed, read by the expert, in words.

Each has a variant, the perturbation's name ("shuffle-0.4"), and an artifact for it. Only the judged test stays are in
them; the training split, its statistics and the trained expert are those of the study. The unperturbed stays (p = 0)
have no artifacts here: theirs are the study's. All are judged at their last visit: there are no perturbed first days.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence

import polars as pl

from contracts.features import catalogue
from contracts.frames import STAYS
from contracts.patients import Patient, stratified
from ehr.cohort import Cohort, read
from ehr.impute import carried_forward
from evaluation.perturbations import Perturbation, perturb, words_of
from prompts.evidence import chosen_features, patients_showing
from tasks.people import mean, people, with_both_labels
from tasks.stage import Made, Work, input_file, listed, stage

JUDGED = ("robustness.stays", "evaluation.stays", "study.seed")


def perturbation_of(work: Work) -> Perturbation:
    """The perturbation that the stage's variant names ("shuffle-0.4", or "stage1@shuffle-0.4")."""
    return Perturbation.of(work.name.partition(":")[2].rpartition("@")[2])


def judged(work: Work) -> Sequence[Patient]:
    """Test stays that the experiment judges: those of the study (input `patients`), or the first of them.

    Raises:
        DataError: they are all of one label.
    """
    section, seed = work.config.robustness, work.config.study.seed
    study = stratified(people(work, "test"), work.config.evaluation.stays, seed)
    # Samples nest, so the beginning of the study's is itself a stratified sample.
    return with_both_labels(study if section.stays == "all" else study[:section.stays], "robustness")


@stage("perturbed", settings=(*JUDGED, "prompts.features"), packages=("polars", "numpy"))
def perturbed(work: Work) -> Made:
    """Writes a cohort folder of the judged test stays alone, perturbed, and changes.parquet."""
    cohort, how = read(work.inputs["cohort"]), perturbation_of(work)
    wanted = [one.stay_id for one in judged(work)]
    features = catalogue(cohort.meta["catalogue"])
    shown = chosen_features(cohort.stays, cohort.visits, features, work.config.prompts)
    others = tuple(name for name in features.names if name not in shown)
    stays, visits = (frame.filter(pl.col("stay_id").is_in(wanted)) for frame in (cohort.stays, cohort.visits))
    made = perturb(visits, how, features, (shown, others), _spreads(cohort), work.config.study.seed)
    stays.write_parquet(work.out / "stays.parquet")
    made.visits.write_parquet(work.out / "visits.parquet")
    carried_forward(made.visits, features.names).write_parquet(work.out / "filled.parquet")
    made.changes.write_parquet(work.out / "changes.parquet")
    for name in ("scaling.json", "meta.json"):
        shutil.copy2(input_file(work, "cohort", name), work.out / name)
    metrics = {"stays": float(stays.height), "features_changed_mean": made.changes.height / stays.height,
               "features_changed_in_prompts_mean": made.changes.filter(pl.col("feature").is_in(shown)).height
               / stays.height}
    return Made(metrics=metrics, summary=listed(metrics))


@stage("perturbed-readings", settings=(), packages=("torch",))
def perturbed_readings(work: Work) -> Made:
    """Writes readings.parquet (contract READINGS): the study's trained expert asked about the perturbed stays."""
    # This loads torch, which takes seconds.
    from models.expert.attention import asked

    readings = asked(work.inputs["expert"], work.inputs["perturbed"])
    readings.write_parquet(work.out / "readings.parquet")
    metrics = {"stays": float(readings["stay_id"].n_unique()), "risk_mean": mean(readings["risk"])}
    return Made(metrics=metrics, summary=listed(metrics))


@stage("perturbed-patients", settings=("prompts",), packages=("polars",))
def perturbed_patients(work: Work) -> Made:
    """Writes patients.parquet (contract PATIENTS): the perturbed stays in words, features chosen as in the study."""
    cohort = read(work.inputs["cohort"])
    features = catalogue(cohort.meta["catalogue"])
    stays, filled, changes = (pl.read_parquet(input_file(work, "perturbed", f"{name}.parquet"))
                              for name in ("stays", "filled", "changes"))
    readings = pl.read_parquet(input_file(work, "readings", "readings.parquet"))
    frame = patients_showing(
        chosen_features(cohort.stays, cohort.visits, features, work.config.prompts), STAYS.check(stays), filled,
        [readings.join(stays, on="stay_id", how="semi")], features, work.config.prompts,
        words_of(changes) if perturbation_of(work).kind == "rename" else None)
    frame.write_parquet(work.out / "patients.parquet")
    metrics = {"stays": float(frame.height), "evidence_characters_mean": mean(frame["evidence"].str.len_chars()),
               "features_shown_mean": mean(frame["shown"].list.len())}
    return Made(metrics=metrics, summary=listed(metrics))


def _spreads(cohort: Cohort) -> dict[str, float]:
    """Standard deviation of each feature in the training split; 0 where it is constant or was never measured there."""
    return {name: entry.sd if entry.high > entry.low else 0.0 for name, entry in cohort.scaling.items()}
