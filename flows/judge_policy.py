"""Flow 5: all arms on the same test patients, and the report."""

from __future__ import annotations

from prefect import flow

from flows.arms import judged, judged_again, only, other_expert, with_patients
from flows.before_judging import before_judging
from flows.opening import Artifacts, given, handed, held, open_session
from tasks.baselines import baselines
from tasks.report import report


@flow(name="judge-policy", flow_run_name="judge-{config}")
def judge_policy(config: str = "demo", overrides: list[str] | None = None, made: Artifacts | None = None) -> Artifacts:
    """Asks every arm (each training of it) for every test stay, compares them with the simple models, and writes the
    report.

    Args:
        config: name of a shipped configuration, or path of a YAML file.
        overrides: dotted settings, such as "evaluation.stays=60".
        made: artifacts of the flow before; none: that flow runs first.
    """
    with held(open_session(config, overrides or ())) as session:
        before = before_judging(session.config, session.config.evaluation.arms)
        artifacts = with_patients(session, given(made, before, config, overrides or []))
        asked = [judged(session, arm, artifacts) for arm in session.config.evaluation.arms]
        for verdicts in [*asked, judged_again(session, artifacts)]:
            artifacts |= verdicts
        others = {f"readings.{name}": other_expert(session, name, artifacts["cohort"])
                  for name in session.config.evaluation.experts}
        artifacts["baselines"] = baselines.run(
            session, {**only(artifacts, "cohort", "patients", "readings"), **others})
        artifacts["report"] = report.run(session, artifacts)
        return handed(artifacts)
