"""Flow 3: stage 1a, expert-guided tree search writes trajectories."""

from __future__ import annotations

from prefect import flow

from flows.arms import worded
from flows.opening import Artifacts, given, handed, held, open_session
from flows.train_expert import train_expert
from tasks.base import base
from tasks.trajectories import trajectories


@flow(name="grow-trees", flow_run_name="trees-{config}")
def grow_trees(config: str = "demo", overrides: list[str] | None = None, made: Artifacts | None = None) -> Artifacts:
    """Puts patients into words and searches for trajectories with the base model.

    Args:
        config: name of a shipped configuration, or path of a YAML file.
        overrides: dotted settings, such as "search.rollouts=4".
        made: artifacts of the flow before; none: that flow runs first.
    """
    with held(open_session(config, overrides or ())) as session:
        artifacts = given(made, train_expert, config, overrides or [])
        artifacts["patients"] = worded(session, artifacts)
        artifacts["base"] = base.run(session, {})
        artifacts["trajectories"] = trajectories.run(
            session, {name: artifacts[name] for name in ("cohort", "patients", "base")})
        return handed(artifacts)
