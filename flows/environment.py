"""What must stand in the environment before Prefect is imported: its home, quiet logs, no telemetry."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
from filelock import FileLock

from configs.load import load
from contracts.errors import ServerError
from contracts.redaction import redact_logs
from flows.prefect_server import OwnPrefect
from lineage.store import Store, storage_errors
from operations.privacy import check_exposure, harden_environment
from operations.stack import running


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
    check_exposure()
    redact_logs()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # children start in seconds, not minutes
    home = workspace / "prefect"
    if "PREFECT_API_URL" not in os.environ:
        os.environ.setdefault("PREFECT_HOME", str(home))
    with storage_errors(workspace):
        home.mkdir(parents=True, exist_ok=True)  # Prefect makes only the last folder of the path
    os.environ.setdefault("PREFECT_LOCAL_STORAGE_PATH", str(home / "storage"))
    # Errors reach the user once, from the command itself; Prefect's own pages keep the full log.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5")  # its server may be away for about a minute
    os.environ.setdefault("TQDM_DISABLE", "1")  # tasks.display shows progress
    return workspace


@contextmanager
def prefect_api(workspace: Path) -> Iterator[Callable[[], None]]:
    """A Prefect server of our own on loopback, unless PREFECT_API_URL names one; it ends with this process, however.

    Prefect's own temporary server outlives a killed parent. Yields a function that waits until the server answers: it
    starts while the flows are still being imported. Two commands that begin at once start their servers one after the
    other: the first makes the tables of the database that both use.

    Raises:
        StorageError: the workspace takes no files.
    """
    Store(workspace).require_writable()
    if "PREFECT_API_URL" in os.environ:
        with _reached(os.environ["PREFECT_API_URL"]):
            yield lambda: None
        return
    with storage_errors(workspace / "prefect"):
        alone = FileLock(workspace / "prefect" / "start.lock")
        alone.acquire()
    server = OwnPrefect(workspace / "prefect" / "server.log")
    os.environ["PREFECT_API_URL"] = server.address

    def wait() -> None:
        server.wait()
        alone.release()

    try:
        with _reached(server.address):
            yield wait
    finally:
        del os.environ["PREFECT_API_URL"]
        server.stop()
        alone.release(force=True)


@contextmanager
def _reached(address: str) -> Iterator[None]:
    """Says what to do where Prefect's server stays away longer than its client asks again (about a minute).

    Raises:
        ServerError: as said.
    """
    try:
        yield
    except httpx.TransportError as error:
        raise ServerError(f"the Prefect server at {address} does not answer ({type(error).__name__})",
                          "it answers while a study runs", "start it, then run the same command again: finished "
                          "stages and parts of stages are kept") from error
