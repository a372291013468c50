"""Stage `boosting`: gradient boosting as a guide beside the expert, its importances as readings of every stay."""

from __future__ import annotations

from evaluation.importance import effective_tokens, read_boosting
from lineage.store import write_json
from tasks.stage import Made, Work, listed, stage


@stage("boosting", settings=("study.seed",), packages=("scikit-learn", "polars"))
def boosting(work: Work) -> Made:
    """Writes readings.parquet (contract READINGS) and how the model was chosen."""
    frame, note = read_boosting(work.inputs["cohort"], work.config.study.seed)
    frame.write_parquet(work.out / "readings.parquet")
    write_json(work.out / "notes.json", {"gradient boosting": note})
    numbers = {"stays": float(frame["stay_id"].n_unique()), "effective_tokens": effective_tokens(frame)}
    return Made(metrics=numbers, show=("notes.json",), summary=f"{listed(numbers)}\n- {note}")
