"""What must stand in the environment before Prefect is imported: its home, quiet logs, no telemetry."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import httpx

from configs.load import load
from contracts.errors import ServerError
from operations.privacy import harden_environment
from operations.stack import running
from serving.server import free_port
from serving.supervised import end, start

_WAIT_SECONDS = 180.0


def prepare(config: str, overrides: Sequence[str]) -> Path:
    """Points Prefect and MLflow at the workspace of a configuration: at its stack, where that runs, else at its files;
    what the user set stands. Returns the workspace."""
    settings = load(config, overrides)
    workspace = Path(settings.paths.workspace).resolve()
    harden_environment()
    stack = running(workspace)
    if stack is not None and stack["state"] == "ready":
        os.environ.setdefault("PREFECT_HOME", str(workspace / "prefect"))
        for name, service, path in (("PREFECT_API_URL", "prefect", "/api"), ("MLFLOW_TRACKING_URI", "mlflow", "")):
            os.environ.setdefault(name, stack["pages"][service] + path)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # children start in seconds, not minutes
    home = workspace / "prefect"
    if "PREFECT_API_URL" not in os.environ:
        os.environ.setdefault("PREFECT_HOME", str(home))
    home.mkdir(parents=True, exist_ok=True)  # Prefect makes only the last folder of the path
    os.environ.setdefault("PREFECT_LOCAL_STORAGE_PATH", str(home / "storage"))
    # Errors reach the user once, from the command itself; Prefect's own pages keep the full log.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("TQDM_DISABLE", "1")  # tasks.display shows progress
    return workspace


@contextmanager
def prefect_api(workspace: Path) -> Iterator[Callable[[], None]]:
    """A Prefect server of our own on loopback, unless PREFECT_API_URL names one; it ends with this process, however.

    Prefect's own temporary server outlives a killed parent. Yields a function that waits until the server answers: it
    starts while the flows are still being imported.
    """
    if "PREFECT_API_URL" in os.environ:
        yield lambda: None
        return
    port, log = free_port(0), workspace / "prefect" / "server.log"
    child = start(_command(port), log, {**os.environ, "PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1",
                                        "PREFECT__SERVER_FINAL": "1"})
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    try:
        yield lambda: _wait(child, port, log)
    finally:
        del os.environ["PREFECT_API_URL"]
        end(child)


def _command(port: int) -> list[str]:
    found = find_spec("prefect")
    if found is None or found.origin is None:
        raise ServerError("the package prefect is not installed", "a study runs on Prefect", "run scripts/setup")
    return [sys.executable, "-m", "uvicorn", "--app-dir", str(Path(found.origin).parent.parent), "--factory",
            "prefect.server.api.server:create_app", "--host", "127.0.0.1", "--port", str(port), "--log-level", "error",
            "--lifespan", "on"]


def _wait(child: subprocess.Popen[bytes], port: int, log: Path) -> None:
    limit = time.monotonic() + _WAIT_SECONDS
    with httpx.Client(trust_env=False, timeout=5.0) as http:
        while time.monotonic() < limit and child.poll() is None:
            try:
                if http.get(f"http://127.0.0.1:{port}/api/health").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.2)
    raise ServerError("the Prefect server does not answer", f"it answers within {_WAIT_SECONDS:.0f} s", f"read {log}")
