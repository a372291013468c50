"""Progress of a training job: one JSON line a step, appended to `progress.jsonl` in the job's folder.

In: the number of the step, of how many, and metrics. Out: lines {"step": 3, "total": 60, "metrics": {"loss": 0.41}}
that the launcher streams to a progress bar and to MLflow. A line is written whole, so that a reader that follows the
file, or one that comes after a kill, finds complete lines (the last one may be cut; `read` passes it over).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

from contracts.errors import StorageError


@dataclass(frozen=True)
class Progress:
    """One reported step: its number, of how many, and its metrics."""

    step: int
    total: int
    metrics: dict[str, float] = field(default_factory=dict)


class ProgressLog:
    """Appends steps to a progress file; a rerun of a killed job goes on appending to the same file.

    Args:
        path: the file, usually `<out>/progress.jsonl`; its folder is made if missing.
        total: number of steps of the whole job.
    """

    def __init__(self, path: Path, total: int) -> None:
        self.path, self.total = Path(path), total
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._end_cut_line()
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def log(self, step: int, **metrics: float) -> None:
        """Appends one step; metrics that are no finite number are left out (JSON has no NaN).

        Raises:
            StorageError: the disk is full or not writable.
        """
        finite = {name: float(value) for name, value in metrics.items() if math.isfinite(float(value))}
        line = json.dumps({"step": step, "total": self.total, "metrics": finite})
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def _end_cut_line(self) -> None:
        """Ends a line that a kill cut short, so that the next one does not stick to it."""
        if self.path.is_file() and self.path.stat().st_size and not self.path.read_bytes().endswith(b"\n"):
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n")


def read(path: Path) -> list[Progress]:
    """All complete steps of a progress file, oldest first; none where there is no file. A cut line is passed over."""
    if not path.is_file():
        return []
    steps = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        steps.append(Progress(row["step"], row["total"], row["metrics"]))
    return steps


def _unwritable(path: Path, error: OSError) -> StorageError:
    return StorageError(f"{path}: {error.strerror or error}", "the job's folder is writable and has space left",
                        "free disk space or choose another paths.workspace, then run again")
