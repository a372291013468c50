"""What the report reads of the arms: verdicts on test stays, of each training, what was asked for them, and risks on
validation stays.

Roles of the inputs: `verdicts.ARM` for the study's own training, `seed2.verdicts.ARM` for the second, and
`validation.ARM` for an arm that was also asked for validation stays; with `FIRST` behind them, those of the first
visit.
"""

from __future__ import annotations

import polars as pl

from contracts.errors import ContractError
from contracts.patients import Patient, patients_of
from evaluation.appraisal import Validation
from evaluation.baselines import EXPERT
from evaluation.expert_sets import Guides
from evaluation.gain import Asked
from evaluation.risks import FIRST, MODEL, judged
from lineage.artifact import Artifact
from tasks.stage import Work, input_file


def verdicts_of(work: Work) -> pl.DataFrame:
    """Verdicts of policy arms, expert and simple models on the test stays, those of the first visit last."""
    frame = pl.concat([pl.read_parquet(input_file(work, role, "verdicts.parquet"))
                       for role in [*_roles(work).values(), "baselines"]])
    early = pl.col("arm").str.ends_with(FIRST)
    return pl.concat([frame.filter(~early), frame.filter(early)])


def _roles(work: Work) -> dict[str, str]:
    """Each policy arm of the first training with the role of its verdicts, those of the first visit last."""
    arms = work.config.evaluation.arms
    first = [f"{arm}{FIRST}" for arm in arms if f"verdicts.{arm}{FIRST}" in work.inputs]
    return {arm: f"verdicts.{arm}" for arm in (*arms, *first)}


def asked_of(work: Work) -> list[Asked]:
    """For each distinct prompt the arms that were asked with it, and the patients as it shows them.

    An arm of the first visit, or with settings of its own for its prompts, was asked with other patients than the
    study's: its verdicts' manifest says with which.

    Raises:
        ArtifactError: such an artifact is no longer in the workspace.
    """
    store, arms, given = work.session.store, dict[str, list[str]](), dict[str, Artifact]()
    for arm, role in _roles(work).items():
        patients = Artifact.from_json(store.manifest(work.artifacts[role])["inputs"]["patients"])
        given.setdefault(patients.sha256, patients)
        arms.setdefault(patients.sha256, []).append(arm)
    return [Asked(arms[digest], _shown_by(work, patients)) for digest, patients in given.items()]


def _shown_by(work: Work, artifact: Artifact) -> list[Patient]:
    """The patients of an artifact; where it holds no training stays (first visits), those of what it was made from
    besides."""
    own = work.artifacts["patients"]
    folder = work.inputs["patients"] if artifact.sha256 == own.sha256 else work.session.store.folder(artifact)
    patients = patients_of(pl.read_parquet(folder / "patients.parquet"))
    if any(one.split == "train" for one in patients):
        return patients
    before = Artifact.from_json(work.session.store.manifest(artifact)["inputs"]["patients"])
    return [*patients, *(one for one in _shown_by(work, before) if one.split == "train")]


def guides_of(work: Work) -> Guides:
    """The experts whose features the study's prompts count: its own, and the further guides that its patients were made
    with.

    Raises:
        ArtifactError: readings of a further guide are no longer in the workspace.
    """
    section, store = work.config.prompts, work.session.store
    frames = [pl.read_parquet(input_file(work, "readings", "readings.parquet"))]
    if section.guides:
        made_of = store.manifest(work.artifacts["patients"])["inputs"]
        frames += [pl.read_parquet(store.folder(Artifact.from_json(made_of[role])) / "readings.parquet")
                   for role in sorted(made_of) if role.startswith("readings.")]
    return Guides(frames, section.expert_features, section.guide_rule)


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
