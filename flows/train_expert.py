"""Flow 2: the expert EHR model and what it attends to."""

from __future__ import annotations

from prefect import flow

from contracts.errors import ConfigError
from flows.opening import Artifacts, given, handed, held, open_session
from flows.prepare_cohort import prepare_cohort
from tasks.expert import expert
from tasks.readings import readings


@flow(name="train-expert", flow_run_name="expert-{config}")
def train_expert(config: str = "demo", overrides: list[str] | None = None, made: Artifacts | None = None) -> Artifacts:
    """Trains ConCare and reads its attention for every stay.

    Args:
        config: name of a shipped configuration, or path of a YAML file.
        overrides: dotted settings, such as "expert.seeds=5".
        made: artifacts of the flow before; none: that flow runs first.
    """
    with held(open_session(config, overrides or ())) as session:
        if session.config.cohort.split == "external":
            raise ConfigError(f"cohort.split=external in {config}", "nothing is trained on a second site",
                              f"judge another study's policies on it: `eag-rl transfer --config STUDY --to {config}`")
        artifacts = given(made, prepare_cohort, config, overrides or [])
        artifacts["expert"] = expert.run(session, {"cohort": artifacts["cohort"]})
        artifacts["readings"] = readings.run(session, {name: artifacts[name] for name in ("cohort", "expert")})
        return handed(artifacts)
