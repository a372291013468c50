"""A scripted server in place of the language model for whole studies: each answer is a risk, always the same one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support.openai_server import KEY, ScriptedServer


@contextmanager
def risk_server() -> Iterator[ScriptedServer]:
    """The server, with its key in the environment, for as long as the block lasts."""
    with ScriptedServer(_risk) as scripted, pytest.MonkeyPatch.context() as patch:
        patch.setenv("EAG_RL_API_KEY", KEY)
        yield scripted


def _risk(body: dict[str, Any]) -> str:
    """A risk that depends on prompt and adapter alone."""
    digest = hashlib.sha256(json.dumps([body["model"], body["prompt"]]).encode()).digest()
    return f"<Final answer> 0.{10 + digest[0] % 80} </Final answer>"
