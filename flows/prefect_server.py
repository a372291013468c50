"""A Prefect server of our own on loopback: started, watched, started again when it dies, ended with this process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import httpx

from contracts.errors import ServerError
from serving.server import free_port
from serving.supervised import end, start

_ROOT = Path(__file__).resolve().parents[1]
_WAIT_SECONDS = 180.0
_LOOK_SECONDS = 0.5
_MOST_RESTARTS = 5


class OwnPrefect:
    """A Prefect server on 127.0.0.1 that is started again, on the same port and database, when it dies.

    Prefect's client asks again for about a minute, so a flow outlives a killed server.

    Attributes:
        address: of its API.

    Args:
        log: file of its output.
    """

    def __init__(self, log: Path) -> None:
        self._log, self._port, self._restarts = log, free_port(0), 0
        self.address = f"http://127.0.0.1:{self._port}/api"
        self._over, self._lock = threading.Event(), threading.Lock()
        self._child = self._start()
        self._keeper = threading.Thread(target=self._keep, name="keeper of the Prefect server", daemon=True)
        self._keeper.start()

    def wait(self) -> None:
        """Returns once the server answers.

        Raises:
            ServerError: it does not, within _WAIT_SECONDS.
        """
        limit = time.monotonic() + _WAIT_SECONDS
        with httpx.Client(trust_env=False, timeout=5.0) as http:
            while time.monotonic() < limit and self._restarts < _MOST_RESTARTS:
                try:
                    if http.get(f"{self.address}/health").status_code == 200:
                        return
                except httpx.TransportError:
                    time.sleep(0.2)
        raise ServerError("the Prefect server does not answer", f"it answers within {_WAIT_SECONDS:.0f} s",
                          f"read {self._log}")

    def stop(self) -> None:
        """Ends the server for good. Safe to call more than once."""
        self._over.set()
        with self._lock:
            end(self._child)
        self._keeper.join()

    def _start(self) -> subprocess.Popen[bytes]:
        return start(_command(self._port), self._log, {**os.environ, "PREFECT_UI_ENABLED": "0",
                                                       "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"})

    def _keep(self) -> None:
        while not self._over.wait(_LOOK_SECONDS) and self._restarts < _MOST_RESTARTS:
            with self._lock:
                if not self._over.is_set() and self._child.poll() is not None:
                    end(self._child)  # what a killed supervisor left of its group
                    self._restarts += 1
                    self._child = self._start()


def _command(port: int) -> list[str]:
    if find_spec("prefect") is None:
        raise ServerError("the package prefect is not installed", "a study runs on Prefect", "run scripts/setup")
    return [sys.executable, "-m", "uvicorn", "--app-dir", str(_ROOT), "--factory", "flows.prefect_sqlite:create_app",
            "--host", "127.0.0.1", "--port", str(port), "--log-level", "error", "--lifespan", "on"]
