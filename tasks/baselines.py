"""Stage `baselines`: the expert and the simple models on the same test stays as the policy arms."""

from __future__ import annotations

import polars as pl

from contracts.patients import stratified
from evaluation.baselines import judge_baselines, judge_expert, judge_first_visit
from lineage.store import write_json
from tasks.people import people, with_both_labels
from tasks.stage import Made, Work, input_file, stage


@stage("baselines", settings=("evaluation.stays", "study.seed"), packages=("scikit-learn", "polars"))
def baselines(work: Work) -> Made:
    """Writes verdicts.parquet of the expert, logistic regression, gradient boosting and the best single feature."""
    seed = work.config.study.seed
    chosen = with_both_labels(stratified(people(work, "test"), work.config.evaluation.stays, seed), "test split")
    stay_ids = [one.stay_id for one in chosen]
    simple, notes = judge_baselines(work.inputs["cohort"], seed, stay_ids)
    expert = judge_expert(pl.read_parquet(input_file(work, "readings", "readings.parquet")),
                          pl.read_parquet(input_file(work, "cohort", "stays.parquet")), stay_ids)
    risks = pl.read_parquet(input_file(work, "readings", "risks.parquet"))
    first = judge_first_visit(risks, pl.read_parquet(input_file(work, "cohort", "stays.parquet")), stay_ids)
    others = [judge_expert(pl.read_parquet(input_file(work, role, "readings.parquet")),
                           pl.read_parquet(input_file(work, "cohort", "stays.parquet")), stay_ids,
                           role.removeprefix("readings."))
              for role in work.inputs if role.startswith("readings.")]
    pl.concat([expert, *others, simple, first]).write_parquet(work.out / "verdicts.parquet")
    write_json(work.out / "notes.json", notes)
    return Made(metrics={"stays": float(len(stay_ids))}, show=("notes.json",),
                summary="\n".join(f"- {arm}: {note}" for arm, note in notes.items()))
