"""What may be shown of a text: no secret, no patient's row, no sign that forges a line, a colour or a direction.

In: a text, a log record or an exception. Out: the same, fit for a log, a terminal and Prefect's pages. Everything that
prints what others wrote (feature names, files, answers of models) goes through here.
"""

from __future__ import annotations

import logging
import os
import re
import traceback
import unicodedata
from collections.abc import Mapping
from typing import Any

HIDDEN = "[hidden]"
WITHHELD = "(message withheld: it may hold patient values)"
_SECRET_NAME = re.compile(r"(?:TOKEN|SECRET|PASSWORD|API_KEY|AUTH_STRING|ACCESS_KEY(?:_ID)?)$")
_SHORTEST_SECRET = 8
_PATTERNS = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{6,}"), r"\1 " + HIDDEN),
    (re.compile(r"(?i)(\b[\w-]*(?:api[_-]?key|auth[_-]?string|token|password|passwd|secret)[\"']?\s*[=:]\s*[\"']?)"
                r"(?!\[hidden\])[^\s\"',;&)}\]]{6,}"), r"\1" + HIDDEN),
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s/@]+@"), r"\1" + HIDDEN + "@"),
)
# Packages whose errors quote the values that they stumbled over.
_QUOTING = ("polars", "pyarrow", "pydantic", "pydantic_core", "pandas", "fastexcel", "json", "jsonschema")


def printable(text: str) -> str:
    """The text with control signs and marks of direction written out (`\\x1b`), but for line breaks and tabs."""
    return "".join(sign if sign in "\n\t" or not _acts(sign) else sign.encode("unicode_escape").decode()
                   for sign in text)


def one_line(text: str) -> str:
    """`printable`, with line breaks written out as well: nothing in it can pass for a line of its own."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def _acts(sign: str) -> bool:
    """Whether a sign does something to a terminal or a page instead of standing there."""
    return unicodedata.category(sign) in ("Cc", "Cf", "Zl", "Zp", "Cs")


def secrets_of(environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Values of the variables whose names say that they are secrets, longest first.

    Args:
        environment: none: this process's own.
    """
    values = os.environ if environment is None else environment
    found = {value for name, value in values.items() if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET}
    return tuple(sorted(found, key=len, reverse=True))


def redacted(text: str, secrets: tuple[str, ...] | None = None) -> str:
    """The text without secrets: known values, and what stands behind words such as `token=` or `Bearer`.

    Args:
        secrets: values to hide; none: those of the environment.
    """
    for secret in secrets_of() if secrets is None else secrets:
        text = text.replace(secret, HIDDEN)
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text


def quotes_values(error: BaseException) -> bool:
    """Whether an exception is of a library whose messages quote what they read: rows, cells, documents."""
    return any(kind.__module__.partition(".")[0] in _QUOTING for kind in type(error).__mro__)


def traceback_without_rows(error: BaseException) -> str:
    """A traceback that says where and what kind, without the messages that may quote a patient's values."""
    text = "".join(traceback.format_exception(error))
    for one in _chain(error):
        if quotes_values(one) and str(one):
            text = text.replace(str(one), WITHHELD)
    return redacted(text)


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    pending: list[BaseException | None] = [error]
    while pending:
        one = pending.pop()
        if one is not None and one not in found:
            found.append(one)
            pending += [one.__cause__, one.__context__]
    return found


def redact_logs() -> None:
    """Makes every log record of this process safe, whoever logs and whatever handles it; idempotent."""
    before = logging.getLogRecordFactory()
    if getattr(before, "redacts", False):
        return

    def factory(*arguments: Any, **named: Any) -> logging.LogRecord:
        return _safe(before(*arguments, **named))

    factory.redacts = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(factory)


def _safe(record: logging.LogRecord) -> logging.LogRecord:
    """The record without secrets, control signs and line breaks; its traceback without rows."""
    try:
        said = record.getMessage()
    except (TypeError, ValueError, KeyError):
        return record  # arguments that do not fit: logging itself tells the programmer
    shown = one_line(redacted(said))
    if shown != said:  # else the arguments stay: some formatters read them
        record.msg, record.args = shown, ()
    if record.exc_info and record.exc_info[1] is not None:
        record.exc_text = printable(traceback_without_rows(record.exc_info[1]))
        record.exc_info = None
    return record
