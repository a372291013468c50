"""The stack of a workspace: started in the background, kept alive, ended whole, and never another's."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from contracts.errors import ServerError
from operations import stack
from operations.keeper import healthy
from operations.services import Service
from serving.server import free_port
from support.waiting import until

SERVE = "import http.server, sys; http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), " \
        "http.server.SimpleHTTPRequestHandler).serve_forever()"


def page(name: str, port: int) -> Service:
    address = f"http://127.0.0.1:{port}"
    return Service(name, [sys.executable, "-c", SERVE, str(port)], dict(os.environ), address, port, address)


def sleeper(seconds: float = 600.0) -> Service:
    return Service("worker", [sys.executable, "-c", f"import time; time.sleep({seconds})"], dict(os.environ))


def tree(pid: int) -> list[psutil.Process]:
    return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    stack.finish(tmp_path)


@pytest.mark.slow
def test_it_runs_in_the_background_until_ended_and_leaves_nothing(workspace: Path) -> None:
    port = free_port(0)
    assert stack.running(workspace) is None and not stack.finish(workspace)
    stack.launch(workspace, [page("prefect", port), sleeper()])
    found = stack.wait(workspace, 120.0)
    assert found["pages"] == {"prefect": f"http://127.0.0.1:{port}"} and healthy(found["pages"]["prefect"])
    assert not (workspace / "stack" / "plan.json").exists()
    processes = tree(found["pid"])
    assert len(processes) == 5  # the keeper, and for each service its supervisor and itself
    assert stack.finish(workspace)
    assert until(lambda: not any(process.is_running() and process.status() != "zombie" for process in processes))
    assert stack.running(workspace) is None and not healthy(found["pages"]["prefect"])
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


@pytest.mark.slow
def test_a_service_that_is_killed_is_started_again(workspace: Path) -> None:
    port = free_port(0)
    stack.launch(workspace, [page("prefect", port)])
    found = stack.wait(workspace, 120.0)
    victim = next(one for one in tree(found["pid"]) if str(port) in one.cmdline() and "-I" not in one.cmdline())
    os.kill(victim.pid, signal.SIGKILL)
    assert until(lambda: not victim.is_running() and healthy(found["pages"]["prefect"]))
    assert "it is started again" in (workspace / "stack" / "keeper.log").read_text()


@pytest.mark.slow
def test_a_keeper_that_is_killed_takes_all_with_it(workspace: Path) -> None:
    port = free_port(0)
    stack.launch(workspace, [page("prefect", port), sleeper()])
    found = stack.wait(workspace, 120.0)
    processes = tree(found["pid"])
    os.kill(found["pid"], signal.SIGKILL)
    assert until(lambda: not any(process.is_running() and process.status() != "zombie" for process in processes))
    assert stack.running(workspace) is None


def test_a_port_in_use_is_refused_before_anything_starts(workspace: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=rf"port {port} is in use.*operations.mlflow_port"):
            stack.launch(workspace, [page("mlflow", port)])
    assert stack.running(workspace) is None
