"""What the report reads of the arms: verdicts on test stays, of each training, and risks on validation stays.

Roles of the inputs: `verdicts.ARM` for the study's own training, `seed2.verdicts.ARM` for the second, and
`validation.ARM` for an arm that was also asked for validation stays; with `FIRST` behind them, those of the first
visit.
"""

from __future__ import annotations

import polars as pl

from contracts.errors import ContractError
from evaluation.appraisal import Validation
from evaluation.baselines import EXPERT
from evaluation.risks import FIRST, MODEL, judged
from tasks.stage import Work, input_file


def verdicts_of(work: Work) -> pl.DataFrame:
    """Verdicts of policy arms, expert and simple models on the test stays, those of the first visit last."""
    arms = [f"verdicts.{arm}" for arm in work.config.evaluation.arms]
    first = [role for role in (f"{arm}{FIRST}" for arm in arms) if role in work.inputs]
    frame = pl.concat([pl.read_parquet(input_file(work, role, "verdicts.parquet"))
                       for role in [*arms, *first, "baselines"]])
    early = pl.col("arm").str.ends_with(FIRST)
    return pl.concat([frame.filter(~early), frame.filter(early)])


def retrained(work: Work) -> list[pl.DataFrame]:
    """Verdicts of the second and each further training of the arms that are trained, one frame a training."""
    section, frames = work.config.evaluation, []
    for number in range(2, section.policy_seeds + 1):
        roles = [f"seed{number}.verdicts.{arm}" for arm in section.arms]
        found = [pl.read_parquet(input_file(work, role, "verdicts.parquet")) for role in roles if role in work.inputs]
        frames += [pl.concat(found)] if found else []
    return frames


def seeds_of(work: Work) -> list[int]:
    """The seed of each training in `retrained`, the study's own before them."""
    return [work.config.study.seed + number for number in range(1 + len(retrained(work)))]


def validation_of(work: Work, stays: pl.DataFrame) -> Validation:
    """Labels and risks on validation stays, on which risks are recalibrated: the expert's, and those of the arms that
    were asked for them, in both readings.

    Args:
        stays: of the cohort: stay_id, label, split.

    Raises:
        ContractError: an arm's verdicts hold a stay that is not of the validation split.
    """
    known = stays.filter(pl.col("split") == "validation")
    readings = pl.read_parquet(input_file(work, "readings", "readings.parquet"))
    risks = readings.group_by("stay_id").agg(pl.col("risk").first())
    expert = known.join(risks, on="stay_id", how="inner").sort("stay_id")
    found: Validation = {(EXPERT, MODEL): (expert["label"].cast(pl.Int64).to_numpy(), expert["risk"].to_numpy())}
    for role in (f"validation.{arm}" for arm in work.config.evaluation.arms):
        if role in work.inputs:
            frame = pl.read_parquet(input_file(work, role, "verdicts.parquet"))
            _refuse_others(role, frame, known)
            told = judged(frame)
            found = {**found, **{key: (told.labels, risks) for key, risks in told.risks.items()}}
    return found


def _refuse_others(role: str, frame: pl.DataFrame, known: pl.DataFrame) -> None:
    others = frame.join(known, on="stay_id", how="anti").height
    if others:
        raise ContractError(f"{role} holds {others} stays that are not of the validation split",
                            "recalibration is fitted on validation stays alone",
                            "remove that artifact's folder and run again")
