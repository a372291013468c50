"""What a stage costs: seconds, tokens, and the largest memory of this process and of its largest child.

A thread looks at the process tree a few times a second. A child that the stage started tells its own peak (VmHWM),
which no look can miss while it lives; of processes that were there before, the largest size seen counts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psutil

_EVERY_SECONDS = 0.5
_MIB = 1 << 20


@dataclass(frozen=True)
class Cost:
    """What was spent.

    Attributes:
        seconds: of the clock on the wall.
        prompt_tokens, completion_tokens: read and written by the model server for this process; written also those of
            stage 2's rollouts, whose prompts are not counted.
        own_mib: largest memory of this process.
        child_mib: largest memory of one of its children, 0.0 where it had none.
    """

    seconds: float
    prompt_tokens: int
    completion_tokens: int
    own_mib: float
    child_mib: float

    def metrics(self) -> dict[str, float]:
        """For MLflow and the manifest."""
        return {f"cost.{name}": float(value) for name, value in vars(self).items()}

    def words(self) -> str:
        """For people."""
        return in_words(self.metrics())


def in_words(metrics: Mapping[str, float]) -> str:
    """A cost, as `Cost.metrics` wrote it, for people; "unknown" where it was not measured."""
    if "cost.seconds" not in metrics:
        return "unknown"
    tokens = metrics["cost.prompt_tokens"] + metrics["cost.completion_tokens"]
    parts = [f"{metrics['cost.seconds']:.1f} s"]
    if tokens:
        parts.append(f"{metrics['cost.prompt_tokens']:.0f} tokens read")
        parts.append(f"{metrics['cost.completion_tokens']:.0f} written")
    parts.append(f"{metrics['cost.own_mib']:.0f} MiB of memory")
    if metrics["cost.child_mib"]:
        parts.append(f"{metrics['cost.child_mib']:.0f} MiB in its largest child process")
    return ", ".join(parts)


class Tokens:
    """Tokens that this process has had read and written so far."""

    prompt, completion = 0, 0

    @classmethod
    def add(cls, prompt: int, completion: int) -> None:
        """Counts those of a client that is closed."""
        cls.prompt, cls.completion = cls.prompt + prompt, cls.completion + completion


class Meter:
    """Measures between `__enter__` and `cost`."""

    def __enter__(self) -> Meter:
        self._began = time.monotonic()
        self._tokens = (Tokens.prompt, Tokens.completion)
        self._process, self._ended = psutil.Process(), threading.Event()
        self._own, self._child = 0.0, 0.0
        self._before = {child.pid for child in self._process.children(recursive=True)}
        self._watcher = threading.Thread(target=self._watch, name="cost", daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._ended.set()
        self._watcher.join()

    def cost(self) -> Cost:
        """What was spent so far."""
        self._look()
        return Cost(time.monotonic() - self._began, Tokens.prompt - self._tokens[0],
                    Tokens.completion - self._tokens[1], self._own, self._child)

    def _watch(self) -> None:
        while not self._ended.wait(_EVERY_SECONDS):
            self._look()

    def _look(self) -> None:
        self._own = max(self._own, self._process.memory_info().rss / _MIB)
        for child in self._process.children(recursive=True):
            try:
                size = child.memory_info().rss / _MIB
                if child.pid not in self._before:
                    size = max(size, _peak_mib(child.pid))
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            self._child = max(self._child, size)


def _peak_mib(pid: int) -> float:
    """VmHWM of a process; 0.0 where the kernel does not say."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return next((float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)
