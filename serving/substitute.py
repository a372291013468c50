"""Functions of ours in the place of vLLM's, checked by their signature (see `worker_extension`)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def substitute(owner: Any, replacement: Callable[..., Any], where: str) -> Any:
    """Puts `replacement` where `owner` has a function of its name, and returns that one.

    Args:
        owner: module or class; None where it is missing.
        where: its name, for the error.

    Raises:
        RuntimeError: there is no such function, or its parameters have other names.
    """
    name = replacement.__name__
    original = getattr(owner, name, None)
    if original is None or _names(original) != _names(replacement):
        raise RuntimeError(f"{where}.{name} differs from vLLM 0.31; install the pinned vLLM")
    setattr(owner, name, replacement)
    return original


def _names(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)
