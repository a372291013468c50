"""What Prefect's server must know before a worker can work: pools, queues, limits, deployments with their triggers.

In: a server (PREFECT_API_URL) and a type of work pool. All is made if missing and brought up to date if there, so that
calling it again changes nothing. The deployments themselves stand in `prefect.yaml`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import (
    GlobalConcurrencyLimitCreate,
    GlobalConcurrencyLimitUpdate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

from configs.schema import Operations
from contracts.errors import ServerError
from flows.settle_runs import WATCH
from operations.pools import IN_IMAGE, Pool, filled, pool
from operations.services import STUDY_QUEUE, WATCH_QUEUE
from tasks.gpu import LIMIT

ROOT = Path(__file__).resolve().parent.parent
_SECONDS = 300.0


def deploy(section: Operations, kind: str = "process", watched: str = "mimic_iv_mortality") -> list[str]:
    """Registers everything with the server; returns the names of the deployments.

    Args:
        watched: configuration of the studies that new extracts get.

    Raises:
        ConfigError: no such type of pool.
        ServerError: the server refuses, or does not answer.
    """
    wanted = pool(kind)
    with get_client(sync_client=True) as client:
        _pool(client, wanted)
        for queue, limit in ((WATCH_QUEUE, 1), (STUDY_QUEUE, section.studies_at_once)):
            _queue(client, wanted.name, queue, limit)
        _limit(client, LIMIT, section.gpu_runs)
    _deploy_all(wanted, watched)
    with get_client(sync_client=True) as client:
        return sorted(one.name for one in client.read_deployments() if "eag-rl" in one.tags)


def watched_with() -> str | None:
    """The configuration that the registered watch was told to watch with; None where none is registered."""
    with get_client(sync_client=True) as client:
        try:
            found: str | None = client.read_deployment_by_name(f"{WATCH}/{WATCH}").parameters.get("config")
        except ObjectNotFound:
            return None
    return found


def _pool(client: SyncPrefectClient, wanted: Pool) -> None:
    template = filled(wanted, _template(client, wanted.kind))
    try:
        client.read_work_pool(wanted.name)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=wanted.name, type=wanted.kind, description=wanted.description,
                                               base_job_template=template))
        return
    client.update_work_pool(wanted.name, WorkPoolUpdate(description=wanted.description, base_job_template=template))


def _template(client: SyncPrefectClient, kind: str) -> Mapping[str, Any]:
    """Prefect's template of a type: the process worker's own, else as the server lists it."""
    if kind == "process":
        return ProcessWorker.get_default_base_job_template()
    listed = client.read_worker_metadata()
    for workers in listed.values():
        if kind in workers:
            template: dict[str, Any] = workers[kind]["default_base_job_configuration"]
            return template
    raise ServerError(f"the Prefect server knows no workers of type {kind}", "it lists Prefect's own types",
                      "use a server of the pinned version")


def _queue(client: SyncPrefectClient, pool_name: str, name: str, limit: int) -> None:
    known = [queue for queue in client.read_work_queues(work_pool_name=pool_name) if queue.name == name]
    queue = known[0] if known else client.create_work_queue(name=name, work_pool_name=pool_name)
    if queue.concurrency_limit != limit:
        client.update_work_queue(queue.id, concurrency_limit=limit)


def _limit(client: SyncPrefectClient, name: str, slots: int) -> None:
    try:
        client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=slots))
        return
    client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(limit=slots))


def _deploy_all(wanted: Pool, watched: str) -> None:
    """`prefect deploy --all`, with the pool and the folder of the project filled in."""
    variables = {**os.environ, "EAG_RL_POOL": wanted.name, "EAG_RL_WATCHED": watched,
                 "EAG_RL_HOME": str(ROOT) if wanted.kind == "process" else IN_IMAGE}
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file",
               str(ROOT / "prefect.yaml")]
    try:
        done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise ServerError("the deployments were not registered", f"the server takes them within {_SECONDS:.0f} s",
                          "look at its log, then run `eag-rl deploy` again") from error
    if done.returncode:
        raise ServerError(f"the deployments were not registered: {(done.stderr or done.stdout)[-800:]}",
                          "`prefect deploy --all` takes prefect.yaml", "correct what it says, then `eag-rl deploy`")
