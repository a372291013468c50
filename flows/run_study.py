"""The whole study: hospital files to report."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from prefect import flow

from flows.arms import stages_needed
from flows.grow_trees import grow_trees
from flows.judge_policy import judge_policy
from flows.opening import Artifacts, open_session, study
from flows.parts import Until
from flows.prepare_cohort import prepare_cohort
from flows.train_expert import train_expert
from flows.tune_policy import tune_policy

_Parts = dict[Until, Callable[..., Artifacts]]
_PARTS: _Parts = {
    Until.expert: train_expert, Until.trees: grow_trees, Until.policy: tune_policy, Until.report: judge_policy}


@flow(name="run-study", flow_run_name="study-{config}")
def run_study(config: str = "demo", overrides: list[str] | None = None, until: Until = Until.report) -> Artifacts:
    """Runs a study; what is finished and unchanged is not made again.

    Args:
        config: name of a shipped configuration, or path of a YAML file.
        overrides: dotted settings, such as "policy.grpo.lr=1e-5".
        until: the last part wanted.
    """
    with study(open_session(config, overrides or ())) as session:
        made: Artifacts = prepare_cohort(config, overrides)
        needed = 2 if until is not Until.report else stages_needed(session.config, session.config.evaluation.arms)
        parts: _Parts = {**_PARTS, Until.policy: partial(tune_policy, stage_2=needed == 2)}
        for part, run in parts.items():
            if list(Until).index(part) > list(Until).index(until):
                break
            if part in (Until.trees, Until.policy) and not needed:
                continue  # no arm of the table wants it
            made = run(config, overrides, made)
        if "report" in made and session.study_run:
            figures = session.store.manifest(session.store.resolve(made["report"]["id"]))["metrics"]
            session.tracker.metrics(session.study_run, figures)
        return made
