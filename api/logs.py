"""What the API writes to its log: one line of JSON a request, and errors by kind and place, never by their words.

The words of an error may quote a patient; a path, a body or a header never reaches a line.
"""

from __future__ import annotations

import json
import logging
import traceback
from types import TracebackType
from typing import Any

NAME = "eag-rl.api"


class PlaceFormatter(logging.Formatter):
    """Writes an exception as its type and the places it went through."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; how another formatter wrote the exception is not taken over."""
        record.exc_text = None
        return super().format(record)

    def formatException(  # noqa: N802
            self, ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]) -> str:
        """Type, file, line and function of each frame; neither message nor code."""
        frames = [f"  {frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(ei[2])]
        return "\n".join([ei[0].__name__ if ei[0] else "error", *frames])

    def formatStack(self, stack_info: str) -> str:  # noqa: N802, ARG002
        """Nothing: a stack shows code and values."""
        return ""


def logging_settings() -> dict[str, Any]:
    """Settings for logging.config: everything to standard error through `PlaceFormatter`."""
    handler = {"class": "logging.StreamHandler", "formatter": "places", "stream": "ext://sys.stderr"}
    quiet = {"handlers": ["stderr"], "propagate": False}
    return {"version": 1, "disable_existing_loggers": False,
            "formatters": {"places": {"()": "api.logs.PlaceFormatter", "format": "%(asctime)s %(message)s"}},
            "handlers": {"stderr": handler},
            "loggers": {NAME: {**quiet, "level": "INFO"}, "uvicorn": {**quiet, "level": "WARNING"},
                        "uvicorn.error": {**quiet, "level": "WARNING"}, "asyncio": {**quiet, "level": "ERROR"}}}


def line(request: str, method: str, route: str, status: int, seconds: float) -> str:
    """One request as JSON."""
    return json.dumps({"request": request, "method": method, "route": route, "status": status,
                       "ms": round(1000 * seconds, 1)})
