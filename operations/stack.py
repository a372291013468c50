"""The local stack of a workspace: started, asked after and ended by commands that do not stay.

In: a workspace and services. Out: a keeper in the background (`operations.keeper`), its logs and state under
`<workspace>/stack`. Only what this workspace's keeper started is ever ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from contracts.errors import ServerError
from operations.keeper import GRACE_SECONDS
from operations.services import Service, check_free

READY_SECONDS = 600.0
_POLL_SECONDS = 0.3


def running(workspace: Path) -> dict[str, Any] | None:
    """What the keeper of a workspace says of itself (pid, since, state, pages), None where none lives."""
    lock, state = _folder(workspace) / "keeper.lock", _folder(workspace) / "state.json"
    if not lock.is_file():
        return None
    try:
        with FileLock(lock, timeout=0):
            return None
    except Timeout:
        pass
    try:
        found: dict[str, Any] = json.loads(state.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"pid": 0, "state": "starting", "pages": {}}
    return found


def launch(workspace: Path, services: Sequence[Service]) -> None:
    """Starts a keeper in the background; a user's Ctrl-C here does not reach it.

    Raises:
        ServerError: a port is in use.
    """
    for service in services:
        if service.port:
            check_free(service)
    folder = _folder(workspace)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "state.json").unlink(missing_ok=True)
    plan = folder / "plan.json"
    plan.touch(mode=0o600)
    plan.write_text(json.dumps({"services": [asdict(service) for service in services]}), encoding="utf-8")
    with (folder / "keeper.log").open("a", encoding="utf-8") as log:
        subprocess.Popen([sys.executable, "-m", "operations.keeper", str(plan)], stdin=subprocess.DEVNULL, stdout=log,
                         stderr=log, start_new_session=True)


def wait(workspace: Path, seconds: float = READY_SECONDS) -> dict[str, Any]:
    """Waits until all services are healthy; returns what the keeper says.

    Raises:
        ServerError: it is not ready in time, or ended.
    """
    limit, seen = time.monotonic() + seconds, False
    while time.monotonic() < limit:
        found = running(workspace)
        if found is not None and found["state"] == "ready":
            return found
        if seen and found is None:
            break
        seen = seen or found is not None
        time.sleep(_POLL_SECONDS)
    raise ServerError(f"the stack of {workspace} is not ready", f"all services answer within {seconds:.0f} s",
                      f"read the logs in {_folder(workspace)}, then run ./scripts/down")


def finish(workspace: Path) -> bool:
    """Ends the stack and waits until nothing of it is left; False where none ran.

    Raises:
        ServerError: the keeper does not end.
    """
    found = running(workspace)
    limit = time.monotonic() + 10.0
    while found is not None and not found["pid"] and time.monotonic() < limit:  # it has just begun
        time.sleep(_POLL_SECONDS)
        found = running(workspace)
    if found is None:
        return False
    if found["pid"]:
        os.kill(found["pid"], signal.SIGTERM)
    limit = time.monotonic() + 4 * GRACE_SECONDS
    while running(workspace) is not None:
        if time.monotonic() > limit:
            raise ServerError(f"the keeper of {workspace} (process {found['pid']}) does not end", "it ends when told",
                              f"read {_folder(workspace) / 'keeper.log'}, then end that process")
        time.sleep(_POLL_SECONDS)
    return True


def _folder(workspace: Path) -> Path:
    return workspace / "stack"
