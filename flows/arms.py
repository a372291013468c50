"""Arms of the result table: for each the stages that make its policy, shared with the study where nothing differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from configs.load import for_arm
from configs.schema import Config
from evaluation.risks import FIRST
from lineage.artifact import Artifact
from tasks.base import base
from tasks.expert import expert
from tasks.first_visit import first_visit
from tasks.labels import labels
from tasks.patients import patients
from tasks.readings import readings
from tasks.rl import rl
from tasks.session import Session
from tasks.sft import sft
from tasks.trajectories import trajectories
from tasks.verdicts import verdicts


def needs_policy(config: Config, arms: Iterable[str]) -> bool:
    """Whether any of the arms answers with an adapter of the study's two stages; if none does, they need not run."""
    return any(config.arms[name].adapter in ("trajectories", "rl") for name in arms)


def policy_of(session: Session, name: str, study: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """Makes, or finds, what an arm answers with.

    Args:
        name: of the arm, in `session.config.arms`.
        study: artifacts of the study: cohort, readings, patients and base at least.

    Returns:
        patients, base and, unless the base model answers, adapter.
    """
    arm, (config, own) = session.config.arms[name], for_arm(session.config, name)
    prepared, trained, made = session.of(config), session.of(own), dict(study)
    label = name if arm.prepare else ""
    if label:
        made |= {"patients": worded(prepared, made, label), "base": base.run(prepared, {}, arm=label)}
    answering = only(made, "patients", "base")
    from_trajectories = arm.adapter == "trajectories" or (arm.adapter == "rl" and arm.start == "trajectories")
    if from_trajectories and (label or "sft" not in made):
        made["trajectories"] = trajectories.run(prepared, only(made, "cohort", "patients", "base"), arm=label)
        made["sft"] = sft.run(prepared, only(made, "patients", "base", "trajectories"), arm=label)
    if arm.adapter == "trajectories":
        if arm.train:
            made["sft"] = sft.run(trained, only(made, "patients", "base", "trajectories"), arm=name)
        return {**answering, "adapter": made["sft"]}
    if arm.adapter == "labels":
        return {**answering, "adapter": labels.run(trained, answering, arm=name)}
    if arm.adapter == "rl":
        start = only(made, "sft") if from_trajectories else {}
        if from_trajectories and not label and not arm.train and "rl" in made:
            return {**answering, "adapter": made["rl"]}
        return {**answering, "adapter": rl.run(trained, {**only(made, "cohort"), **answering, **start}, arm=name)}
    return answering


def with_patients(session: Session, made: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """The artifacts with patients and base, which a study makes on its way to trees and the others not."""
    if "patients" in made:
        return dict(made)
    return {**made, "patients": worded(session, made), "base": base.run(session, {})}


def worded(session: Session, made: Mapping[str, Artifact], arm: str = "") -> Artifact:
    """The patients in words, with the features of the study's expert and of all its further guides."""
    guides = {f"readings.{name}": other_expert(session, name, made["cohort"]) for name in session.config.prompts.guides}
    return patients.run(session, {**only(made, "cohort", "readings"), **guides}, arm=arm)


def other_expert(session: Session, architecture: str, cohort: Artifact) -> Artifact:
    """The readings of an expert of another architecture, trained like the study's own."""
    config = session.config
    named = config.expert.model_copy(update={"architecture": architecture})
    other = session.of(config.model_copy(update={"expert": named}))
    trained = expert.run(other, {"cohort": cohort}, arm=architecture)
    return readings.run(other, {"cohort": cohort, "expert": trained}, arm=architecture)


def judged(session: Session, name: str, study: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """The verdicts of an arm, as `verdicts.NAME`, and those of the first visit alone where they are wanted."""
    config, own = for_arm(session.config, name)
    policy = policy_of(session, name, study)
    found = {f"verdicts.{name}": verdicts.run(session.of(own), policy, variant=name)}
    if "first" in session.config.evaluation.visits:
        prompts = first_visit.run(session.of(config), {**only(study, "cohort"), **only(policy, "patients")},
                                  arm=name if session.config.arms[name].prepare else "")
        found[f"verdicts.{name}{FIRST}"] = verdicts.run(session.of(own), {**policy, "patients": prompts},
                                                        variant=f"{name}{FIRST}")
    return found


def only(artifacts: Mapping[str, Artifact], *roles: str) -> dict[str, Artifact]:
    """The artifacts of some roles."""
    return {role: artifacts[role] for role in roles}
