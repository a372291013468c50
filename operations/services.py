"""The servers around a workspace, each as a command with the address that tells whether it works.

In: a workspace and the section `operations`. Out: commands, environments, health addresses; nothing is started here.
All listen on 127.0.0.1 alone. Without a database's address each has an SQLite file in the workspace.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from configs.load import WORKSPACE
from configs.schema import Operations
from contracts.errors import ServerError

HOST = "127.0.0.1"
POOL = "local"
WATCH_QUEUE, STUDY_QUEUE = "watch", "studies"


@dataclass(frozen=True)
class Service:
    """A server or worker.

    Attributes:
        command: starts it.
        environment: all of its variables.
        health: address that answers 200 when it works; "": it has none.
        port: it listens on; 0: on none.
        page: address for people; "": it has none.
    """

    name: str
    command: list[str]
    environment: Mapping[str, str]
    health: str = ""
    port: int = 0
    page: str = ""


def prefect_server(workspace: Path, section: Operations) -> Service:
    """Prefect's server with its page."""
    port, address = section.prefect_port, api_address(section)
    variables = {**_plain_environment(), "PREFECT_HOME": str(workspace / "prefect"),
                 "PREFECT_SERVER_API_HOST": HOST, "PREFECT_SERVER_API_PORT": str(port), "PREFECT_API_URL": address,
                 "PREFECT_SERVER_UI_API_URL": address, "PREFECT_UI_API_URL": address}
    if section.prefect_database:
        variables["PREFECT_API_DATABASE_CONNECTION_URL"] = section.prefect_database
    # `prefect server start`, with transactions that wait for each other on SQLite.
    command = [sys.executable, "-m", "flows.prefect_sqlite", "server", "start", "--host", HOST, "--port", str(port)]
    return Service("prefect", command, variables, f"{address}/health", port, f"http://{HOST}:{port}")


def mlflow_server(workspace: Path, section: Operations) -> Service:
    """MLflow's server with its page; artifacts lie in the workspace."""
    port, folder = section.mlflow_port, workspace / "mlflow"
    database = section.mlflow_database or f"sqlite:///{folder / 'mlflow.db'}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1",
               "--backend-store-uri", database, "--default-artifact-root", (folder / "artifacts").as_uri()]
    return Service("mlflow", command, _plain_environment(), f"{tracking_address(section)}/health", port,
                   tracking_address(section))


def worker(workspace: Path, section: Operations) -> Service:
    """The worker that runs flow runs as processes of this machine, with this workspace and this MLflow."""
    variables = {**_plain_environment(), "PREFECT_HOME": str(workspace / "prefect"),
                 "PREFECT_LOCAL_STORAGE_PATH": str(workspace / "prefect" / "storage"),
                 "PREFECT_API_URL": api_address(section), "MLFLOW_TRACKING_URI": tracking_address(section),
                 "PREFECT_WORKER_QUERY_SECONDS": "5", WORKSPACE: str(workspace), "TQDM_DISABLE": "1",
                 "MLFLOW_LOGGING_LEVEL": "WARNING"}
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process",
               "--name", f"worker-of-{workspace.name.lstrip('.')}"]
    return Service("worker", command, variables)


def api_address(section: Operations) -> str:
    """Of Prefect's API."""
    return f"http://{HOST}:{section.prefect_port}/api"


def tracking_address(section: Operations) -> str:
    """Of MLflow's server."""
    return f"http://{HOST}:{section.mlflow_port}"


def check_free(service: Service) -> None:
    """Refuses a port that something else listens on.

    Raises:
        ServerError: as said.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, service.port))
        except OSError as error:
            raise ServerError(f"port {service.port} is in use", f"{service.name} needs a free port on {HOST}",
                              f"choose another: --set operations.{service.name}_port=PORT") from error


def _plain_environment() -> dict[str, str]:
    """This process's variables without those that would point a server at another one or hush its log."""
    ours = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL",
            "PREFECT_SERVER_LOGGING_LEVEL")
    return {name: value for name, value in os.environ.items() if name not in ours}
