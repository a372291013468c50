"""Training jobs in child processes: started, followed through their progress file, and ended with their parent.

In: a module with a `--job` door and its job. Out: what the job wrote to done.json; a failure raises the error that the
job named, or a JobError with the tail of its log. The child dies with this process, also when that is killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from contracts import errors
from contracts.errors import EagRlError, JobError
from lineage.store import write_json
from models.progress import Progress, read
from serving.supervised import end, start

_POLL_SECONDS = 0.5
_TAIL_LINES = 25
_ERROR_PREFIX = "EAGRL_ERROR "
_LOWER_PREFIX = "EAGRL_LOWER "
# Threads of a training sleep at a barrier instead of spinning, unless the user says otherwise. Measured with two
# threads on two cores: equally fast alone, 2.0 to 2.6 times faster beside other work.
_PATIENT = {"OMP_WAIT_POLICY": "PASSIVE"}

OnProgress = Callable[[Progress], None]


def run_job(module: str, job: Mapping[str, Any], folder: Path, on_progress: OnProgress,
            environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Runs `python -m MODULE --job job.json` to its end.

    Args:
        module: dotted name of a job module.
        job: JSON-ready; `out` is the folder of its files.
        folder: where job.json and the log go.
        on_progress: called for each new line of progress, old ones of a resumed job passed over.
        environment: variables beside this process's own (secrets go here, never into job.json).

    Returns:
        The content of `<out>/done.json`.

    Raises:
        EagRlError: the error that the job reported, of the class it named.
        JobError: it ended in another way.
    """
    out, log = Path(job["out"]), folder / f"{module}.log"
    write_json(folder / "job.json", job)
    seen = len(read(out / "progress.jsonl"))
    child = start([sys.executable, "-m", module, "--job", str(folder / "job.json")], log,
                  {**_PATIENT, **os.environ, **(environment or {})})
    try:
        while child.poll() is None:
            time.sleep(_POLL_SECONDS)
            seen = _report(out, seen, on_progress)
        _report(out, seen, on_progress)
    finally:
        end(child)
    if child.returncode != 0:
        raise _failure(module, child.returncode, log)
    done: dict[str, Any] = json.loads((out / "done.json").read_text(encoding="utf-8"))
    return done


def _report(out: Path, seen: int, on_progress: OnProgress) -> int:
    steps = read(out / "progress.jsonl")
    for step in steps[seen:]:
        on_progress(step)
    return max(seen, len(steps))


def _failure(module: str, code: int, log: Path) -> EagRlError:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in reversed(lines):
        if line.startswith(_ERROR_PREFIX):
            entry = json.loads(line[len(_ERROR_PREFIX):])
            return _class_of(entry["error"])(entry["value"], entry["rule"], entry["next"])
    killed = code in (-signal.SIGKILL, 128 + signal.SIGKILL)
    reason = "was killed (out of memory?)" if killed else f"ended with exit code {code}"
    lower = [line[len(_LOWER_PREFIX):] for line in lines if line.startswith(_LOWER_PREFIX)]
    advice = f"if memory ran out, lower {lower[-1]}; " if killed and lower else f"read {log}; "
    tail = "\n".join(line for line in lines[-_TAIL_LINES:] if not line.startswith(_LOWER_PREFIX))
    return JobError(f"{module} {reason}; its last lines:\n{tail}", "a training job ends with exit code 0",
                    f"{advice}finished parts are kept, run again to go on")


def _class_of(title: str) -> type[EagRlError]:
    for candidate in vars(errors).values():
        if isinstance(candidate, type) and issubclass(candidate, EagRlError) and candidate.title == title:
            return candidate
    return JobError
