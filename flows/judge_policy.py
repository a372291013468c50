"""Flow 5: all arms on the same test patients, and the report."""

from __future__ import annotations

from prefect import flow

from flows.opening import Artifacts, given, handed, open_session
from flows.tune_policy import tune_policy
from tasks.baselines import baselines
from tasks.report import report
from tasks.verdicts import ADAPTER_OF, verdicts


@flow(name="judge-policy", flow_run_name="judge-{config}")
def judge_policy(config: str = "demo", overrides: list[str] | None = None, made: Artifacts | None = None) -> Artifacts:
    """Asks every arm for every test stay, compares them with the simple models, and writes the report.

    Args:
        config: name of a shipped configuration, or path of a YAML file.
        overrides: dotted settings, such as "evaluation.stays=60".
        made: artifacts of the flow before; none: that flow runs first.
    """
    session = open_session(config, overrides or ())
    artifacts = given(made, tune_policy, config, overrides or [])
    arms = {}
    for arm in session.config.evaluation.arms:
        inputs = {name: artifacts[name] for name in ("patients", "base")}
        if arm in ADAPTER_OF:
            inputs["adapter"] = artifacts[ADAPTER_OF[arm]]
        arms[f"verdicts.{arm}"] = verdicts.run(session, inputs, variant=arm)
    artifacts |= arms
    artifacts["baselines"] = baselines.run(
        session, {name: artifacts[name] for name in ("cohort", "patients", "readings")})
    artifacts["report"] = report.run(session, artifacts)
    return handed(artifacts)
