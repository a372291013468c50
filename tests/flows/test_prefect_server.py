"""Our own Prefect server is started again when it dies, at the same address, and never after it was stopped."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from contracts.errors import ServerError
from flows import environment, prefect_server
from flows.prefect_server import OwnPrefect

# Answers like Prefect's health check and says who it is.
PRETENDED = """
import os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(str(os.getpid()).encode())
    def log_message(self, *_): pass
HTTPServer(("127.0.0.1", int(sys.argv[1])), Answers).serve_forever()
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OwnPrefect]:
    monkeypatch.setattr(prefect_server, "_command", lambda port: [sys.executable, "-I", "-c", PRETENDED, str(port)])
    one = OwnPrefect(tmp_path / "server.log")
    yield one
    one.stop()


def pid(server: OwnPrefect) -> int | None:
    try:
        return int(httpx.get(f"{server.address}/health", trust_env=False).text)
    except httpx.TransportError:
        return None


def hold(until: Callable[[], bool], seconds: float = 60.0) -> bool:
    limit = time.monotonic() + seconds
    while not until() and time.monotonic() < limit:
        time.sleep(0.1)
    return until()


def test_a_killed_server_is_back_at_the_same_address(server: OwnPrefect) -> None:
    server.wait()
    first, address = pid(server), server.address
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert hold(lambda: pid(server) not in (None, first)) and server.address == address


@pytest.mark.slow
def test_a_stopped_server_stays_away(server: OwnPrefect) -> None:
    server.wait()
    server.stop()
    server.stop()
    assert pid(server) is None
    time.sleep(2.0)
    assert pid(server) is None


def test_a_server_that_dies_again_and_again_is_given_up_and_its_log_named(tmp_path: Path,
                                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefect_server, "_command", lambda _port: [sys.executable, "-c", "raise SystemExit(3)"])
    monkeypatch.setattr(prefect_server, "_MOST_RESTARTS", 2)
    one = OwnPrefect(tmp_path / "server.log")
    try:
        with pytest.raises(ServerError, match="does not answer") as caught:
            one.wait()
    finally:
        one.stop()
    assert "server.log" in caught.value.next_step


def test_a_prefect_that_stays_away_becomes_a_next_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(ServerError, match="127.0.0.1:9/api does not answer") as caught, \
            environment.prefect_api(tmp_path) as wait:
        wait()
        raise httpx.ConnectError("refused")
    assert "run the same command again" in caught.value.next_step
