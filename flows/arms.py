"""Arms of the result table: for each the stages that make its policy, shared with the study where nothing differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from configs.load import for_arm
from configs.schema import Config
from evaluation.risks import FIRST
from lineage.artifact import Artifact
from tasks.base import base
from tasks.boosting import boosting
from tasks.expert import expert
from tasks.first_visit import first_visit
from tasks.labels import labels
from tasks.patients import patients
from tasks.readings import readings
from tasks.rl import rl
from tasks.session import Session
from tasks.sft import sft
from tasks.trajectories import trajectories
from tasks.verdicts import validation_verdicts, verdicts


def stages_needed(config: Config, arms: Iterable[str]) -> int:
    """How many of the study's own two stages the arms stand on; those that none of them needs do not run.

    An arm with wording of its own makes both by itself, one with a training of its own makes its stage 2.
    """
    standing = [arm for arm in map(config.arms.__getitem__, arms) if arm.from_stage_1 and not arm.prepare]
    if any(arm.adapter == "rl" and not arm.train for arm in standing):
        return 2
    return 1 if standing else 0


def policy_of(session: Session, name: str, study: Mapping[str, Artifact], training: int = 1) -> dict[str, Artifact]:
    """Makes, or finds, what an arm answers with.

    Args:
        name: of the arm, in `session.config.arms`.
        study: artifacts of the study: cohort, readings, patients and base at least; of a further training without the
            study's own sft and rl (see `retrained`).
        training: 1: with the study's seed; 2: with the next. Only what is trained differs.

    Returns:
        patients, base and, unless the base model answers, adapter.
    """
    arm, (config, own) = session.config.arms[name], for_arm(session.config, name)
    prepared, trained, made = session.of(config), session.of(seeded(own, training)), dict(study)
    label, told = name if arm.prepare else "", said(name, training)
    if label:
        made |= {"patients": worded(prepared, made, label), "base": base.run(prepared, {}, arm=label)}
    answering = only(made, "patients", "base")
    from_trajectories = arm.from_stage_1
    if from_trajectories and (label or "sft" not in made):
        made |= stage_1(prepared, made, label, training)
    if arm.adapter == "trajectories":
        if arm.train:
            made["sft"] = sft.run(trained, only(made, "patients", "base", "trajectories"), arm=told)
        return {**answering, "adapter": made["sft"]}
    if arm.adapter == "labels":
        return {**answering, "adapter": labels.run(trained, answering, arm=told)}
    if arm.adapter == "rl":
        start = only(made, "sft") if from_trajectories else {}
        if from_trajectories and not label and not arm.train and "rl" in made:
            return {**answering, "adapter": made["rl"]}
        return {**answering, "adapter": rl.run(trained, {**only(made, "cohort"), **answering, **start}, arm=told)}
    return answering


def stage_1(session: Session, made: Mapping[str, Artifact], arm: str, training: int) -> dict[str, Artifact]:
    """The trajectories, searched with the study's seed whichever training it is, and the adapter trained on them."""
    found = made["trajectories"] if "trajectories" in made and not arm else trajectories.run(
        session, only(made, "cohort", "patients", "base"), arm=arm)
    inputs = {**only(made, "patients", "base"), "trajectories": found}
    return {"trajectories": found,
            "sft": sft.run(session.of(seeded(session.config, training)), inputs, arm=said(arm, training))}


def retrained(session: Session, study: Mapping[str, Artifact], training: int) -> dict[str, Artifact]:
    """The study's artifacts for a further training: stage 1 anew, stage 2 left to the arms; all else is shared."""
    made = {role: artifact for role, artifact in study.items() if role not in ("sft", "check", "rl")}
    if stages_needed(session.config, session.config.evaluation.arms):
        made |= stage_1(session, made, "", training)
    return made


def seeded(config: Config, training: int) -> Config:
    """The configuration with the seed of a training; that of the first is the study's own."""
    study = config.study.model_copy(update={"seed": config.study.seed + training - 1})
    return config.model_copy(update={"study": study})


def said(arm: str, training: int) -> str:
    """What is said of a stage that runs for an arm (empty: for the study) and a training."""
    return ".".join(filter(None, [arm, f"seed{training}" if training > 1 else ""]))


def with_patients(session: Session, made: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """The artifacts with patients and base, which a study makes on its way to trees and the others not."""
    if "patients" in made:
        return dict(made)
    return {**made, "patients": worded(session, made), "base": base.run(session, {})}


def worded(session: Session, made: Mapping[str, Artifact], arm: str = "") -> Artifact:
    """The patients in words, with the features of the study's expert and of all its further guides."""
    guides = {f"readings.{name}": guide(session, name, made["cohort"]) for name in session.config.prompts.guides}
    return patients.run(session, {**only(made, "cohort", "readings"), **guides}, arm=arm)


def guide(session: Session, name: str, cohort: Artifact) -> Artifact:
    """The readings of a further guide: an expert of another architecture, or gradient boosting."""
    if name == "gradient_boosting":
        return boosting.run(session, {"cohort": cohort})
    return other_expert(session, name, cohort)


def other_expert(session: Session, architecture: str, cohort: Artifact) -> Artifact:
    """The readings of an expert of another architecture, trained like the study's own."""
    config = session.config
    named = config.expert.model_copy(update={"architecture": architecture})
    other = session.of(config.model_copy(update={"expert": named}))
    trained = expert.run(other, {"cohort": cohort}, arm=architecture)
    return readings.run(other, {"cohort": cohort, "expert": trained}, arm=architecture)


def judged(session: Session, name: str, study: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """The verdicts of an arm by role: on the test stays, of the first visit alone and on validation stays where these
    are wanted."""
    config, own = for_arm(session.config, name)
    policy, asking = policy_of(session, name, study), session.of(own)
    made = {f"verdicts.{name}": verdicts.run(asking, policy, variant=name)}
    if "first" in session.config.evaluation.visits:
        prompts = first_visit.run(session.of(config), {**only(study, "cohort"), **only(policy, "patients")},
                                  arm=name if session.config.arms[name].prepare else "")
        made[f"verdicts.{name}{FIRST}"] = verdicts.run(asking, {**policy, "patients": prompts},
                                                       variant=f"{name}{FIRST}")
    if session.config.evaluation.recalibrate:
        made[f"validation.{name}"] = validation_verdicts.run(asking, policy, variant=name)
    return made


def judged_again(session: Session, study: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """The verdicts of the second and each further training of every arm that is trained, by role.

    They are asked for the same stays in the same way (the study's seed) as the first.
    """
    section, made = session.config.evaluation, dict[str, Artifact]()
    arms = [name for name in section.arms if session.config.arms[name].adapter != "none"]
    for training in range(2, section.policy_seeds + 1) if arms else ():
        again = retrained(session, study, training)
        for name in arms:
            own = session.of(for_arm(session.config, name)[1])
            made[f"seed{training}.verdicts.{name}"] = verdicts.run(
                own, policy_of(session, name, again, training), variant=name, arm=said("", training))
    return made


def only(artifacts: Mapping[str, Artifact], *roles: str) -> dict[str, Artifact]:
    """The artifacts of some roles."""
    return {role: artifacts[role] for role in roles}
