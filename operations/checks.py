"""What the doctor and the data check find: one `Check` for each question asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """The answer to one question.

    Attributes:
        name: what was looked at, in a word or two.
        status: ok; warn = works, with a drawback; fail = must be mended first.
        found: what is there.
        remedy: what the user can do; "" where all is well.
    """

    name: str
    status: Status
    found: str
    remedy: str = ""
