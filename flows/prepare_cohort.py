"""Flow 1: hospital files to a cohort."""

from __future__ import annotations

from prefect import flow

from flows.opening import Artifacts, handed, held, open_session
from tasks.cohort import cohort


@flow(name="prepare-cohort", flow_run_name="cohort-{config}")
def prepare_cohort(config: str = "demo", overrides: list[str] | None = None) -> Artifacts:
    """Reads the source and writes stays and visits.

    Args:
        config: name of a shipped configuration, or path of a YAML file.
        overrides: dotted settings, such as "cohort.split=stratified".
    """
    with held(open_session(config, overrides or ())) as session:
        return handed({"cohort": cohort.run(session, {})})
