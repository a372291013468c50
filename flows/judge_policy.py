"""Flow 5: all arms on the same test patients, and the report."""

from __future__ import annotations

from prefect import flow

from flows.arms import judged, needs_policy, only, other_expert, with_patients
from flows.opening import Artifacts, given, handed, open_session
from flows.train_expert import train_expert
from flows.tune_policy import tune_policy
from tasks.baselines import baselines
from tasks.report import report


@flow(name="judge-policy", flow_run_name="judge-{config}")
def judge_policy(config: str = "demo", overrides: list[str] | None = None, made: Artifacts | None = None) -> Artifacts:
    """Asks every arm for every test stay, compares them with the simple models, and writes the report.

    Args:
        config: name of a shipped configuration, or path of a YAML file.
        overrides: dotted settings, such as "evaluation.stays=60".
        made: artifacts of the flow before; none: that flow runs first.
    """
    session = open_session(config, overrides or ())
    before = tune_policy if needs_policy(session.config, session.config.evaluation.arms) else train_expert
    artifacts = with_patients(session, given(made, before, config, overrides or []))
    for arm in session.config.evaluation.arms:
        artifacts |= judged(session, arm, artifacts)
    others = {f"readings.{name}": other_expert(session, name, artifacts["cohort"])
              for name in session.config.evaluation.experts}
    artifacts["baselines"] = baselines.run(
        session, {**only(artifacts, "cohort", "patients", "readings"), **others})
    artifacts["report"] = report.run(session, artifacts)
    return handed(artifacts)
