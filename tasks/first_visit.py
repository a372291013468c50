"""Stage `first-visit`: the test stays in words as on their first day, for a prediction at the first visit."""

from __future__ import annotations

import polars as pl

from contracts.features import catalogue
from contracts.frames import STAYS
from ehr.cohort import read
from prompts.evidence import chosen_features, first_visits
from tasks.people import mean
from tasks.stage import Made, Work, input_file, listed, stage


@stage("first-visit", settings=("prompts",), packages=("polars",))
def first_visit(work: Work) -> Made:
    """Writes patients.parquet (contract PATIENTS): the test stays of the input `patients`, their first days alone."""
    cohort = read(work.inputs["cohort"])
    features, section = catalogue(cohort.meta["catalogue"]), work.config.prompts
    stays = STAYS.check(cohort.stays).filter(pl.col("split") == "test")
    frame = first_visits(pl.read_parquet(input_file(work, "patients", "patients.parquet")), stays,
                         cohort.first_days.join(stays, on="stay_id", how="semi"),
                         chosen_features(cohort.stays, cohort.visits, features, section), features, section)
    frame.write_parquet(work.out / "patients.parquet")
    metrics = {"stays": float(frame.height), "evidence_characters_mean": mean(frame["evidence"].str.len_chars()),
               "features_shown_mean": mean(frame["shown"].list.len())}
    return Made(metrics=metrics, summary=listed(metrics))
