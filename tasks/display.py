"""What a person sees while a stage works: a rich progress bar, or a line now and then where there is no terminal.

The same progress goes to Prefect as a progress artifact, at most every few seconds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, cast
from uuid import UUID

from httpx import TransportError
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

CONSOLE = Console(stderr=True)
_EVERY_SECONDS = 5.0
_LINE_SECONDS = 15.0


class Advance(Protocol):
    """Shows that `done` of `total` are finished, with a short note (a metric)."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


def say(text: str) -> None:
    """One line for the person who watches (standard error, so that --json output stays clean)."""
    CONSOLE.print(text, highlight=False, soft_wrap=True)


@contextmanager
def progress(label: str) -> Iterator[Advance]:
    """A progress bar.

    Yields:
        advance(done, total, note): shows that `done` of `total` are finished, with a short note (a metric).
    """
    artifact = _PrefectProgress(label)
    if CONSOLE.is_terminal:
        columns = (TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                   TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
        with Progress(*columns, console=CONSOLE, transient=True) as bars:
            bar = bars.add_task(label, total=None, note="")

            def advance(done: int, total: int, note: str = "") -> None:
                bars.update(bar, completed=done, total=total, note=note)
                artifact.update(done, total)

            yield advance
        return
    yield _Lines(label, artifact)


class _Lines:
    """Progress where there is no terminal: a line at the end and every few seconds."""

    def __init__(self, label: str, artifact: _PrefectProgress) -> None:
        self.label, self.artifact, self.last = label, artifact, time.monotonic()

    def __call__(self, done: int, total: int, note: str = "") -> None:
        self.artifact.update(done, total)
        if time.monotonic() - self.last >= _LINE_SECONDS:
            self.last = time.monotonic()
            say(f"  {self.label}: {done}/{total} {note}")


class _PrefectProgress:
    """The progress artifact of the running task, made at the first update."""

    def __init__(self, label: str) -> None:
        self.label, self.last = label, 0.0
        self.id: UUID | None = None

    def update(self, done: int, total: int) -> None:
        if TaskRunContext.get() is None or not total:
            return
        if time.monotonic() - self.last < _EVERY_SECONDS and done < total:
            return
        self.last, share = time.monotonic(), min(100.0, 100.0 * done / total)
        try:
            if self.id is None:
                self.id = cast(UUID, create_progress_artifact(share, description=self.label))
            else:
                update_progress_artifact(self.id, share)
        except TransportError as error:  # hours of training are not given up for a bar in a page
            say(f"  {self.label}: Prefect's server does not take the progress ({type(error).__name__}); going on")
