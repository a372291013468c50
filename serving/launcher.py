"""A supervisor between us and the model server: when we are gone, however that happened, the whole tree goes too.

Run as `python -I launcher.py PARENT_PID GRACE_SECONDS -- COMMAND...` in a session of its own; standard library only.
It starts COMMAND, passes its exit code on, and ends the process group when it gets SIGTERM or when the parent is no
longer PARENT_PID (the kernel hands orphans to another parent, also after kill -9).

Why not PR_SET_PDEATHSIG on the server itself: that signal is bound to the *thread* that forked, so a server that was
(re)started from a worker thread would die with that thread. Here it is set on COMMAND by this single-threaded
supervisor, for the case that the supervisor itself is killed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

POLL_SECONDS = 0.2
DYING_SECONDS = 20.0
PR_SET_PDEATHSIG = 1


class _Ending:
    """Set by SIGTERM and SIGINT."""

    wanted = False

    @classmethod
    def want(cls, signum: int, frame: FrameType | None) -> None:  # noqa: ARG003 the shape of a signal handler
        cls.wanted = True


def _die_with_supervisor() -> None:
    """In the child, before COMMAND runs: the kernel kills it when this supervisor dies."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def group_members(group: int) -> list[int]:
    """Ids of the living processes of a process group, without this one.

    A killed process whose first thread is already a zombie lives on, and holds its port, until its last thread is gone.
    """
    members = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, its_group, threads = fields[0], int(fields[2]), int(fields[17])
        if its_group == group and (state != "Z" or threads > 1):
            members.append(int(entry.name))
    return members


def signal_group(number: int) -> None:
    """Sends a signal to every other process of our group."""
    for pid in group_members(os.getpgrp()):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def supervise(parent: int, grace: float, command: list[str]) -> int:
    """Runs COMMAND until it ends, SIGTERM comes or the parent is gone, then ends what is left of the group."""
    if os.getppid() != parent:
        return 0
    child = subprocess.Popen(command, preexec_fn=_die_with_supervisor)  # noqa: PLW1509 no threads here
    while child.poll() is None and not _Ending.wanted and os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    if child.poll() is None:
        signal_group(signal.SIGTERM)
        deadline = time.monotonic() + grace
        while group_members(os.getpgrp()) and time.monotonic() < deadline:
            child.poll()  # reaps it
            time.sleep(POLL_SECONDS)
    signal_group(signal.SIGKILL)
    code = child.wait()
    deadline = time.monotonic() + DYING_SECONDS
    while group_members(os.getpgrp()) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _Ending.want)
    signal.signal(signal.SIGINT, _Ending.want)
    sys.exit(supervise(int(sys.argv[1]), float(sys.argv[2]), sys.argv[4:]))
