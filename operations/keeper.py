"""The keeper of a workspace's stack: starts its services, starts again what dies, and ends all when told.

Run as `python -m operations.keeper PLAN`, in a session of its own; PLAN is the JSON that `operations.stack` wrote. The
keeper holds the lock of the stack as long as it lives, so that "does it run?" needs no process id to be believed. Its
children end with it, also after kill -9 (`serving.supervised`).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
from filelock import FileLock, Timeout

from operations.services import Service
from serving.supervised import end, start

POLL_SECONDS = 0.5
START_SECONDS = 600.0
GRACE_SECONDS = 20.0
LONGEST_PAUSE = 60.0
CALM_SECONDS = 300.0


class Keeper:
    """Keeps services alive.

    Args:
        folder: of the stack: its logs and `state.json`.
        services: those with a health address are started at once, the others when these are healthy.
    """

    def __init__(self, folder: Path, services: list[Service]) -> None:
        self.folder, self.services = folder, services
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.deaths: dict[str, list[float]] = {}
        self.due: dict[str, float] = {}
        self.wanted, self.began = True, time.time()

    def keep(self) -> None:
        """Starts all and keeps them until `stop` is called; ends all, last first, however it ends."""
        try:
            self._tell("starting")
            for service in sorted(self.services, key=lambda one: not one.health):  # what others need starts first
                if not service.health:
                    self._wait()
                self._start(service)
            self._wait()
            self._tell("ready" if self.wanted else "ending")
            while self.wanted:
                for service in self.services:
                    self._look_after(service)
                time.sleep(POLL_SECONDS)
        finally:
            for service in reversed(self.services):
                if service.name in self.children:
                    end(self.children[service.name], GRACE_SECONDS)
            (self.folder / "state.json").unlink(missing_ok=True)

    def stop(self, _signum: int, _frame: FrameType | None) -> None:
        """Handler of SIGTERM and SIGINT."""
        self.wanted = False

    def _start(self, service: Service) -> None:
        if self.wanted:
            self.children[service.name] = start(service.command, self.folder / f"{service.name}.log",
                                                service.environment, grace=GRACE_SECONDS)
            print(f"{_now()} {service.name} started", flush=True)

    def _wait(self) -> None:
        """Until what was started and can tell is healthy; what dies meanwhile is started again."""
        limit, begun = time.monotonic() + START_SECONDS, [one for one in self.services if one.name in self.children]
        while self.wanted and time.monotonic() < limit:
            if all(healthy(service.health) for service in begun if service.health):
                return
            for service in begun:
                self._look_after(service)
            time.sleep(POLL_SECONDS)

    def _look_after(self, service: Service) -> None:
        """A service that died is started again, each time after a longer pause."""
        name, now = service.name, time.monotonic()
        if self.children[name].poll() is None:
            return
        if name not in self.due:
            end(self.children[name])  # what a killed supervisor left
            recent = [moment for moment in self.deaths.get(name, []) if now - moment < CALM_SECONDS] + [now]
            self.deaths[name] = recent
            self.due[name] = now + min(2.0 ** (len(recent) - 1), LONGEST_PAUSE)
            print(f"{_now()} {name} ended with {self.children[name].returncode}; it is started again", flush=True)
        elif now >= self.due[name]:
            del self.due[name]
            self._start(service)

    def _tell(self, state: str) -> None:
        pages = {service.name: service.page for service in self.services if service.page}
        values = {"pid": os.getpid(), "since": self.began, "state": state, "pages": pages}
        partial = self.folder / ".state.json.partial"
        partial.write_text(json.dumps(values), encoding="utf-8")
        partial.replace(self.folder / "state.json")


def healthy(address: str) -> bool:
    """Whether an address answers 200 within two seconds."""
    try:
        with httpx.Client(trust_env=False, timeout=2.0) as http:
            return http.get(address).status_code == 200
    except httpx.HTTPError:
        return False


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


def main(plan: Path) -> int:
    """Keeps the services of a plan; 1 if another keeper does already."""
    values: dict[str, Any] = json.loads(plan.read_text(encoding="utf-8"))
    plan.unlink()  # it holds this user's environment
    keeper = Keeper(plan.parent, [Service(**service) for service in values["services"]])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, keeper.stop)
    try:
        with FileLock(plan.parent / "keeper.lock", timeout=0):
            keeper.keep()
    except Timeout:
        print(f"{_now()} another keeper runs in {plan.parent}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
