"""The robustness experiment: the study up to its policies, its test stays perturbed step by step and judged again."""

from __future__ import annotations

from collections.abc import Mapping

from prefect import flow

from configs.load import for_arm
from evaluation.perturbations import Perturbation, perturbations
from flows.arms import only, policy_of, with_patients
from flows.before_judging import before_judging
from flows.opening import Artifacts, given, handed, open_session, study
from lineage.artifact import Artifact
from tasks.baselines import baselines
from tasks.perturbed import perturbed, perturbed_patients, perturbed_readings
from tasks.robustness import perturbed_baselines, perturbed_verdicts, robustness
from tasks.session import Session
from tasks.verdicts import verdicts

Roles = dict[str, Artifact]


@flow(name="judge-robustness", flow_run_name="robustness-{config}")
def judge_robustness(config: str = "demo", overrides: list[str] | None = None, made: Artifacts | None = None
                     ) -> Artifacts:
    """Perturbs the test stays, asks the expert, the simple models and the arms again, and writes the result.

    What the study has already made is taken as it is; where nothing was made yet, the study runs up to what the arms
    need: its policies, or only its expert where no arm has an adapter.

    Args:
        config: name of a shipped configuration, or path of a YAML file.
        overrides: dotted settings, such as "robustness.kinds=[shuffle]".
        made: artifacts of the flow before; none: that flow runs first.
    """
    session = open_session(config, overrides or ())
    before = before_judging(session.config, session.config.robustness.arms)
    with study(session):
        artifacts = with_patients(session, given(made, before, config, overrides or []))
        artifacts["baselines"] = baselines.run(session, only(artifacts, "cohort", "patients", "readings"))
        steps = perturbations(session.config.robustness)
        for how in steps:
            artifacts |= _perturbed(session, artifacts, how)
        for arm in session.config.robustness.arms:
            artifacts |= _judged(session, artifacts, arm, steps)
        wanted = [role for role in artifacts if role in ("cohort", "patients", "baselines") or "verdicts." in role
                  or role.endswith((".baselines", ".perturbed"))]
        artifacts["robustness"] = robustness.run(session, only(artifacts, *wanted))
        return handed(artifacts)


def _perturbed(session: Session, artifacts: Mapping[str, Artifact], how: Perturbation) -> Roles:
    """Perturbed stays, what expert and models make of them, and their prompts; a rename reaches only the prompts."""
    stays = perturbed.run(session, only(artifacts, "cohort", "patients"), variant=how.name)
    found = {f"{how.name}.perturbed": stays}
    readings = artifacts["readings"]
    if how.kind != "rename":
        readings = perturbed_readings.run(session, {"perturbed": stays, "expert": artifacts["expert"]},
                                          variant=how.name)
        found[f"{how.name}.baselines"] = perturbed_baselines.run(
            session, {"cohort": artifacts["cohort"], "perturbed": stays, "readings": readings}, variant=how.name)
    found[f"{how.name}.patients"] = perturbed_patients.run(
        session, {"cohort": artifacts["cohort"], "perturbed": stays, "readings": readings}, variant=how.name)
    return found


def _judged(session: Session, artifacts: Mapping[str, Artifact], arm: str, steps: list[Perturbation]) -> Roles:
    """One arm's verdicts: the study's own, then on each perturbation."""
    own, policy = session.of(for_arm(session.config, arm)[1]), policy_of(session, arm, artifacts)
    found = {f"verdicts.{arm}": verdicts.run(own, policy, variant=arm)}
    for how in steps:
        found[f"{how.name}.verdicts.{arm}"] = perturbed_verdicts.run(
            own, {**policy, "patients": artifacts[f"{how.name}.patients"]}, variant=f"{arm}@{how.name}")
    return found
