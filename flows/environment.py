"""What must stand in the environment before Prefect is imported: its home, quiet logs, no telemetry."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
from filelock import FileLock

from configs.load import load
from configs.schema import Config
from contracts.errors import ServerError
from contracts.redaction import redact_logs
from flows.prefect_server import OwnPrefect
from lineage.store import Store, storage_errors
from operations.privacy import check_exposure, harden_environment
from operations.stack import running


def prepare(config: str, overrides: Sequence[str]) -> Path:
    """Points Prefect and MLflow at the workspace of a configuration (see `reach`), and Prefect's home and logs with
    them; what the user set stands. Returns the workspace.

    Raises:
        ConfigError, ServerError: of `reach`.
    """
    workspace = Path(reach(config, overrides).paths.workspace).resolve()
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


def reach(config: str, overrides: Sequence[str]) -> Config:
    """Points Prefect and MLflow at the running stack of a configuration's workspace, where one runs; else studies are
    recorded in the workspace's own files. What the user set stands.

    Raises:
        ConfigError: the configuration is not valid.
        ServerError: the workspace's studies are recorded in a database of its own that only the stack's MLflow reaches.
    """
    settings = load(config, overrides)
    workspace = Path(settings.paths.workspace).resolve()
    harden_environment()
    stack = running(workspace)
    if stack is not None and stack["state"] == "ready":
        os.environ.setdefault("PREFECT_HOME", str(workspace / "prefect"))
        for name, service, path in (("PREFECT_API_URL", "prefect", "/api"), ("MLFLOW_TRACKING_URI", "mlflow", "")):
            os.environ.setdefault(name, stack["pages"][service] + path)
    elif settings.operations.mlflow_database and "MLFLOW_TRACKING_URI" not in os.environ:
        raise ServerError("operations.mlflow_database is set, and the stack of this workspace does not run",
                          "runs and champions stand in that database, which MLflow's server reaches",
                          "start it with `eag-rl up`, or name the server: MLFLOW_TRACKING_URI")
    return settings


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
        with reached(os.environ["PREFECT_API_URL"]):
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
        with reached(server.address):
            yield wait
    finally:
        del os.environ["PREFECT_API_URL"]
        server.stop()
        alone.release(force=True)


@contextmanager
def reached(address: str) -> Iterator[None]:
    """Says what to do where Prefect's server stays away longer than its client asks again (about a minute), or refuses.

    Raises:
        ServerError: as said.
    """
    try:
        yield
    except httpx.TransportError as error:
        raise ServerError(f"the Prefect server at {address} does not answer ({type(error).__name__})",
                          "it answers while a command needs it", "start it, then run the same command again: finished "
                          "stages and parts of stages are kept") from error
    except httpx.HTTPStatusError as error:
        if not str(error.request.url).startswith(address):
            raise  # another server's answer
        raise _refused(address, error) from error


def _refused(address: str, error: httpx.HTTPStatusError) -> ServerError:
    """What an answer that is no success means, with its next step."""
    if error.response.status_code == httpx.codes.UNAUTHORIZED:
        return ServerError(f"the Prefect server at {address} does not take the password (401)",
                           "it wants the user and password that it was started with",
                           "set PREFECT_API_AUTH_STRING (docker/compose.yaml's: docker/secrets/prefect_auth)")
    return ServerError(f"the Prefect server at {address} answered {error.response.status_code} to "
                       f"{error.request.method} {error.request.url.path}", "it takes what the pinned Prefect asks",
                       "read its log; use a server of the pinned version (requirements/)")
