"""The transfer experiment: what one study trained is judged on the test stays of another."""

from __future__ import annotations

from collections.abc import Mapping

from prefect import flow

from configs.load import dump, for_arm, load
from configs.schema import Config
from contracts.errors import ConfigError
from flows.arms import judged, only, policy_of, with_patients, worded
from flows.before_judging import before_judging
from flows.opening import Artifacts, given, handed, open_session, study
from lineage.artifact import Artifact
from lineage.fingerprint import Recipe
from tasks.base import base
from tasks.baselines import baselines
from tasks.cohort import cohort
from tasks.expert import expert
from tasks.readings import readings
from tasks.session import Session
from tasks.shared import shared
from tasks.transfer import transfer
from tasks.transferred import transferred_baselines, transferred_patients, transferred_readings
from tasks.verdicts import verdicts

Roles = dict[str, Artifact]
_LAYOUT = ("visits", "digits", "units", "observed_only")


@flow(name="judge-transfer", flow_run_name="transfer-{config}-to-{to}")
def judge_transfer(config: str = "demo", to: str = "tjh_small", overrides: list[str] | None = None,
                   to_overrides: list[str] | None = None, made: Artifacts | None = None) -> Artifacts:
    """Judges the source study's arms, expert and simple models on the target study's test stays.

    What both studies have already made is taken as it is. The source runs up to what its arms need, the target up to
    its expert and simple models, the upper line; its own policies are compared with where it has judged them, or
    trained if `transfer.train_target` says so.

    Args:
        config: the source: name of a shipped configuration, or path of a YAML file.
        to: the target, likewise.
        overrides: dotted settings of the source, such as "transfer.arms=[stage1+2]".
        to_overrides: dotted settings of the target, such as "evaluation.stays=60".
        made: artifacts of the source's flow before; none: that flow runs first.
    """
    session = open_session(config, overrides or ())
    target = session.of(target_config(session.config, load(to, to_overrides or ())))
    with study(session):
        target.study_run = session.study_run
        sides = {"source": cohort.run(session, {}), "target": cohort.run(target, {}, arm="target")}
        reduced = {side: shared.run(target, sides, variant=side) for side in ("source", "target")}
        before = before_judging(session.config, session.config.transfer.arms)
        source = with_patients(session, given(made, before, config, overrides or []))
        there = {"cohort": sides["target"], **_upper_line(target, sides["target"])}
        found = _models(session, target, reduced)
        for arm in session.config.transfer.arms:
            asked = _asked(session, target, arm, {**sides, **found, "shared": reduced["target"]}, source)
            found |= asked | _own(target, arm, there)
        found["models"] = transferred_baselines.run(target, {**reduced, **only(found, "readings", "patients")})
        wanted = {role: one for role, one in found.items() if role == "models" or "." in role}
        wanted |= {"source": sides["source"], "shared": reduced["target"],
                   **{role: one for role, one in there.items() if role in ("cohort", "baselines")}}
        names = f"{session.config.study.name} to {target.config.study.name}"
        return handed({**found, "transfer": transfer.run(target, wanted, variant=names)})


def target_config(source: Config, target: Config) -> Config:
    """The target study in the source's workspace, with the arms of the source that it does not describe itself.

    Raises:
        ConfigError: the two predict different outcomes.
    """
    if source.cohort.outcome != target.cohort.outcome:
        raise ConfigError(f"{source.study.name} predicts {source.cohort.outcome}, {target.study.name} "
                          f"{target.cohort.outcome}", "what is trained for one outcome is judged on the same",
                          "name a target of the same outcome, or set cohort.outcome (--set, --set-to)")
    values = dump(target)
    arms = {name: dump(source.arms[name]) for name in source.transfer.arms}
    return Config.model_validate({**values, "arms": {**arms, **values["arms"]}, "transfer": dump(source.transfer),
                                  "paths": {**values["paths"], "workspace": source.paths.workspace}})


def asking(source: Config, target: Config, arm: str) -> Config:
    """How a source's arm is asked about the target's stays: features and stays of the target, all else of the source.

    How a stay is written is the source's too, as its policies were trained, unless `transfer.prompts` is "target".
    """
    own, there = for_arm(source, arm)[1], for_arm(target, arm)[0]
    answers = {name: getattr(own.evaluation, name) for name in ("style", "temperature", "completion_tokens")}
    asked = ("expert_features", *(_LAYOUT if source.transfer.prompts == "source" else ()))
    context = max(own.serving.context, there.serving.context)
    return there.model_copy(update={
        "policy": own.policy, "serving": own.serving.model_copy(update={"context": context}),
        "evaluation": there.evaluation.model_copy(update=answers),
        "prompts": there.prompts.model_copy(update={name: getattr(own.prompts, name) for name in asked})})


def _models(session: Session, target: Session, reduced: Mapping[str, Artifact]) -> Roles:
    """The source's expert of the shared features, and what it reads in the target."""
    trained = expert.run(session, {"cohort": reduced["source"]}, arm="shared")
    return {"readings": transferred_readings.run(target, {"target": reduced["target"], "expert": trained})}


def _upper_line(target: Session, made: Artifact) -> Roles:
    """The target's own expert and simple models, of all its features; nothing where it trains nothing."""
    if target.config.cohort.split == "external":
        return {}
    found = {"cohort": made, "expert": expert.run(target, {"cohort": made}, arm="target")}
    found["readings"] = readings.run(target, only(found, "cohort", "expert"), arm="target")
    found["patients"] = worded(target, found, "target")
    return {**found, "baselines": baselines.run(target, only(found, "cohort", "patients", "readings"))}


def _asked(session: Session, target: Session, arm: str, made: Mapping[str, Artifact], source: Mapping[str, Artifact]
           ) -> Roles:
    """The verdicts of a source's arm on the target, and the prompts that it was given."""
    there = target.of(asking(session.config, target.config, arm))
    inputs = {"source": made["source"], "cohort": made["target"], **only(made, "shared", "readings")}
    prompts = transferred_patients.run(there, inputs, arm=arm)
    answers = {**policy_of(session, arm, source), "patients": prompts}
    return {"patients": prompts,
            f"verdicts.{arm}": verdicts.run(there, answers, variant=f"{arm}@{session.config.study.name}")}


def _own(target: Session, arm: str, made: Mapping[str, Artifact]) -> Roles:
    """The target's own verdicts of an arm, trained now if so configured, else if it has made them; else nothing."""
    if "patients" not in made:
        return {}
    if target.config.transfer.train_target:
        trained = judged(target, arm, {**made, "base": base.run(target, {}, arm="target")})
        return {f"own.{arm}": trained[f"verdicts.{arm}"]}
    prepared, own = for_arm(target.config, arm)
    prompts = worded(target.of(prepared), made, arm) if target.config.arms[arm].prepare else made["patients"]
    kept = finished(target.of(own), arm, prompts)
    return {} if kept is None else {f"own.{arm}": kept}


def finished(session: Session, arm: str, prompts: Artifact) -> Artifact | None:
    """The verdicts that a study's last run made of an arm, if they are of these prompts, stays and settings."""
    last = session.store.last_recipe(session.config.study.name, f"verdicts-{arm}")
    if last is None:
        return None
    now = verdicts.recipe(session, {"patients": prompts}, variant=arm)
    same = last["settings"] == now.settings and last["inputs"].get("patients") == prompts.sha256
    return session.store.find(last["stage"], Recipe(**last).key) if same else None
