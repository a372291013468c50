"""The pages of a workspace, on loopback: Prefect's (flows, tasks, artifacts) and MLflow's (runs, models, inputs)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from contracts.errors import ServerError
from serving.supervised import end, start

_HOST = "127.0.0.1"
_WAIT_SECONDS = 120.0


def serve_pages(workspace: Path, prefect_port: int, mlflow_port: int, tell: Callable[[str], None]) -> None:
    """Serves both pages until Ctrl-C.

    Raises:
        ServerError: a port is in use, or a page does not come up.
    """
    logs = workspace / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    children = []
    try:
        for name, port, command in (("Prefect", prefect_port, _prefect(prefect_port)),
                                    ("MLflow", mlflow_port, _mlflow(workspace, mlflow_port))):
            _check_free(name, port)
            children.append(start(command, logs / f"{name.lower()}.log", _variables(prefect_port)))
            _wait(name, port, children[-1], logs)
            tell(f"{name}: http://{_HOST}:{port}")
        tell("Ctrl-C stops both.")
        while all(child.poll() is None for child in children):
            time.sleep(1.0)
    finally:
        for child in children:
            end(child)


def _variables(prefect_port: int) -> dict[str, str]:
    """The environment, with what Prefect's page needs to find its own server on a port that is not the usual one."""
    address = f"http://{_HOST}:{prefect_port}/api"
    return {**os.environ, "PREFECT_SERVER_API_HOST": _HOST, "PREFECT_SERVER_API_PORT": str(prefect_port),
            "PREFECT_SERVER_UI_API_URL": address, "PREFECT_UI_API_URL": address}


def _prefect(port: int) -> list[str]:
    return [sys.executable, "-m", "prefect", "server", "start", "--host", _HOST, "--port", str(port)]


def _mlflow(workspace: Path, port: int) -> list[str]:
    database = f"sqlite:///{workspace / 'mlflow' / 'mlflow.db'}"
    return [sys.executable, "-m", "mlflow", "server", "--host", _HOST, "--port", str(port), "--workers", "1",
            "--backend-store-uri", database, "--default-artifact-root", (workspace / "mlflow" / "artifacts").as_uri()]


def _check_free(name: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            raise ServerError(f"port {port} is in use", f"{name}'s page needs a free port on {_HOST}",
                              f"choose another with --{name.lower()}-port") from error


def _wait(name: str, port: int, child: subprocess.Popen[bytes], logs: Path) -> None:
    limit = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < limit:
        if child.poll() is not None:
            break
        with socket.socket() as probe:
            probe.settimeout(1.0)
            if probe.connect_ex((_HOST, port)) == 0:
                return
        time.sleep(0.5)
    raise ServerError(f"{name}'s page did not come up on port {port}", f"it answers within {_WAIT_SECONDS:.0f} s",
                      f"read {logs / f'{name.lower()}.log'}")
