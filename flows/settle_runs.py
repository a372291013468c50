"""After a stack was ended or killed: what its worker left running in Prefect's database is told to have crashed.

Nothing else would ever end such a run: it would stand there as running and hold its deployment's slot. Runs that no
worker of this pool had (a command's own, another pool's) are left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Crashed

from operations.services import POOL

WATCH = "watch-extracts"
_MESSAGE = "its worker was ended while it ran; what is finished is kept, run it again to go on"


def settle(since: datetime) -> list[FlowRun]:
    """Ends the runs of the local pool that have not changed since before the stack started; returns them."""
    with get_client(sync_client=True) as client:
        left = [run for run in _runs(client, StateType.RUNNING, StateType.PENDING, StateType.CANCELLING)
                if run.state is not None and run.state.timestamp < since]
        for run in left:
            client.set_flow_run_state(run.id, Crashed(message=_MESSAGE), force=True)
        return left


def begin_watch(settled: Sequence[FlowRun]) -> None:
    """Starts a run of the watch now instead of at the next full hour, unless one runs already.

    Args:
        settled: runs that `settle` ended; a watch among them is started again by its own trigger.
    """
    with get_client(sync_client=True) as client:
        watch = client.read_deployment_by_name(f"{WATCH}/{WATCH}").id
        if not (any(run.deployment_id == watch for run in settled)
                or _runs(client, StateType.RUNNING, StateType.PENDING, deployment=WATCH)):
            client.create_flow_run_from_deployment(watch)


def _runs(client: SyncPrefectClient, *states: StateType, deployment: str | None = None) -> list[FlowRun]:
    named = DeploymentFilter(name=DeploymentFilterName(any_=[deployment])) if deployment else None
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states)))),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL])), deployment_filter=named)
