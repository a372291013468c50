"""What the API answers when it does not answer: one JSON form, each problem with value, rule and next step.

    {"error": "patient", "problems": [{"value": ..., "rule": ..., "next": ...}], "request": id}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from starlette.responses import JSONResponse

from contracts.errors import DataError, EagRlError, PromptTooLongError, ServerError


class Problem(BaseModel):
    """One thing that is wrong."""

    value: str
    rule: str
    next: str


class Problems(BaseModel):
    """The body of every answer of status 400 and above."""

    error: str
    problems: list[Problem]


class RefusedError(EagRlError):
    """A request that is turned away with an HTTP status.

    Args:
        status: of the answer.
        headers: added to it, such as Retry-After.
    """

    title = "request"

    def __init__(self, status: int, value: str, rule: str, next_step: str,
                 headers: Mapping[str, str] | None = None) -> None:
        super().__init__(value, rule, next_step)
        self.status, self.headers = status, dict(headers or {})

    def __reduce__(self) -> Any:
        return type(self), (self.status, self.value, self.rule, self.next_step, self.headers)


class PatientError(DataError):
    """A patient with one fault or several.

    Args:
        faults: at least one.
    """

    title = "patient"

    def __init__(self, faults: Sequence[DataError]) -> None:
        super().__init__(faults[0].value, faults[0].rule, faults[0].next_step)
        self.faults = tuple(faults)

    def __reduce__(self) -> Any:
        return type(self), (self.faults,)


def answer_to(error: EagRlError) -> JSONResponse:
    """The answer to an error; what a server's log or a path might show stays inside."""
    if isinstance(error, RefusedError):
        return _answer(error.status, error.title, [error], error.headers)
    if isinstance(error, PatientError):
        return _answer(422, error.title, error.faults)
    if isinstance(error, PromptTooLongError | DataError):
        return _answer(422, error.title, [error])
    if isinstance(error, ServerError):
        told = RefusedError(503, "the language model does not answer", "it answers", "try again; its log on the "
                            "serving machine says more", {"Retry-After": "10"})
        return _answer(503, error.title, [told], told.headers)
    return unforeseen(error.title)


def unforeseen(title: str = "internal") -> JSONResponse:
    """The answer to what should not happen: nothing of it is told."""
    told = RefusedError(500, "something failed on the serving machine", "requests are answered",
                        "its log has the place; run `eag-rl doctor` there")
    return _answer(500, title, [told])


def _answer(status: int, title: str, faults: Sequence[EagRlError], headers: Mapping[str, str] | None = None
            ) -> JSONResponse:
    problems = [{"value": one.value, "rule": one.rule, "next": one.next_step} for one in faults]
    return JSONResponse({"error": title, "problems": problems}, status, dict(headers or {}))
