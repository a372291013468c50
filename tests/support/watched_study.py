"""A real study up to its expert, in a child process, that a test follows line by line and hurts in the middle.

In: a configuration. Out: the running command; what it started, found by command line; its end, with what it left.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import yaml

from support.tiny_study import command, tiny_study


def expert_study(folder: Path) -> Path:
    """The tiny study, whose expert trains long enough to be hurt (seconds)."""
    path = tiny_study(folder)
    config: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["expert"] |= {"epochs": 25, "patience": 25, "seeds": 2}
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


class WatchedStudy:
    """`eag-rl run --until expert` of a configuration.

    Attributes:
        process: the running command.
    """

    def __init__(self, path: Path, environment: Mapping[str, str] | None = None) -> None:
        self.path, self.log = path, path.parent / "standard-error.txt"
        self.results = path.parent / "standard-output.txt"
        with self.log.open("wb") as said, self.results.open("wb") as printed:
            self.process = subprocess.Popen(command("run", "--config", str(path), "--json", "--until", "expert"),
                                            stdout=printed, stderr=said, env={**os.environ, **(environment or {})})

    def __enter__(self) -> WatchedStudy:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def wait_until(self, holds: Callable[[], bool], seconds: float = 300.0) -> None:
        """Waits for something that happens while the command runs.

        Raises:
            AssertionError: the command ended before, or the time is over.
        """
        limit = time.monotonic() + seconds
        while not holds():
            assert self.process.poll() is None and time.monotonic() < limit, self.log.read_text()
            time.sleep(0.05)

    def training(self) -> list[psutil.Process]:
        """The training job's process, once its first epochs are on disk."""
        begun = any(self.path.parent.glob("workspace/drafts/expert-*/scratch/training/progress.jsonl"))
        return self.descendants("models.expert.training") if begun else []

    def descendants(self, words: str) -> list[psutil.Process]:
        """Processes below the command whose command line holds `words`, without their supervisors."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                line = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if words in line and "launcher.py" not in line:
                found.append(process)
        return found

    def end(self, seconds: float = 500.0) -> int:
        """The exit code, once the command has ended."""
        return self.process.wait(seconds)

    def said(self) -> str:
        """What it said on standard error so far."""
        return self.log.read_text(encoding="utf-8")


def finished(path: Path) -> dict[str, float]:
    """Artifacts of a study's workspace and when each was finished."""
    return {manifest.parent.name: manifest.stat().st_mtime
            for manifest in path.parent.glob("workspace/artifacts/*/*/manifest.json")}


def left_over(path: Path, seconds: float = 20.0) -> list[str]:
    """Command lines that still name the study's folder after a grace: what dies may take a moment."""
    limit = time.monotonic() + seconds
    while (left := _naming(path.parent)) and time.monotonic() < limit:
        time.sleep(0.5)
    return left


def _naming(folder: Path) -> list[str]:
    return [" ".join(process.info["cmdline"])[:200] for process in psutil.process_iter(["cmdline"])
            if str(folder) in " ".join(process.info["cmdline"] or [])]
