"""A finding: something about a cohort that would bias a result, or may.

Errors stop the cohort, warnings are kept beside it. A finding names counts and features, never a patient.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from contracts.errors import ContractError, DataError


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        level: "error": results would be wrong; "warning": they have to be read with it in mind.
        rule: what would have been right.
        value: what was found, with its numbers.
        next_step: what can be done about it.
        count: how many units (patients, stays, records, features; `value` says which) it concerns.
    """

    level: Literal["error", "warning"]
    rule: str
    value: str
    next_step: str
    count: int


def require(findings: Iterable[Finding]) -> None:
    """Does nothing if no finding is an error.

    Raises:
        DataError: names all errors, each with its next step.
    """
    errors = [finding for finding in findings if finding.level == "error"]
    if errors:
        raise DataError(_listed([finding.value for finding in errors]), _listed([finding.rule for finding in errors]),
                        _listed([finding.next_step for finding in errors]))


def tally(findings: Iterable[Finding]) -> dict[str, int]:
    """Number of errors and of warnings."""
    levels = [finding.level for finding in findings]
    return {"errors": levels.count("error"), "warnings": levels.count("warning")}


def as_values(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """The findings as JSON-ready values, in their order."""
    return [asdict(finding) for finding in findings]


def from_values(values: Iterable[Mapping[str, Any]]) -> tuple[Finding, ...]:
    """Reads what `as_values` wrote.

    Raises:
        ContractError: an entry lacks a field or holds an unknown one.
    """
    try:
        return tuple(Finding(**entry) for entry in values)
    except TypeError as error:
        raise ContractError(f"validity: {error}", f"each finding holds {list(Finding.__dataclass_fields__)}",
                            "recompute the cohort") from error


def some(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _listed(parts: Sequence[str]) -> str:
    """One part as it is; several numbered, so that value, rule and next step can be matched."""
    return parts[0] if len(parts) == 1 else "; ".join(f"({number}) {part}" for number, part in enumerate(parts, 1))
