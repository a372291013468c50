"""Child processes that end with this one, however it ends: started under the supervisor of `serving.launcher`.

In: a command and a log file. Out: the supervisor's process; its exit code is the command's (128 + n for signal n).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from serving import launcher

GRACE_SECONDS = 10.0
SWEEP_SECONDS = 20.0
POLL_SECONDS = 0.2


def start(command: list[str], log: Path, environment: Mapping[str, str], *, folder: Path | None = None,
          grace: float = GRACE_SECONDS) -> subprocess.Popen[bytes]:
    """Starts a command in a process group of its own, its output appended to `log` (readable by its owner only).

    Args:
        environment: the whole of it; secrets go here, never into the command.
        folder: where it runs; None: here.
        grace: between SIGTERM and SIGKILL when the supervisor ends its group [s].
    """
    supervised = [sys.executable, "-I", launcher.__file__, str(os.getpid()), str(grace), "--", *command]
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(supervised, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
                                env=dict(environment), cwd=folder, start_new_session=True)
    finally:
        os.close(stream)


def end(child: subprocess.Popen[bytes], grace: float = GRACE_SECONDS) -> None:
    """Ends a started child with all of its group: SIGTERM, then SIGKILL. Safe to call at any time."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(grace + 2.0)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    if child.returncode < 0:  # a supervisor that was killed did not sweep its group
        _sweep(child.pid)


def _sweep(group: int) -> None:
    """Kills what a killed supervisor left of its group and waits until it is gone: the dying still hold the port."""
    deadline = time.monotonic() + SWEEP_SECONDS
    while (left := launcher.group_members(group)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_SECONDS)
