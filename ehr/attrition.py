"""Attrition: one `Step` for each rule that was applied, with how many units it met, dropped and left.

In: counts of the readers and of `ehr.cohort`. Out: plain values for JSON and the command line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from contracts.errors import ContractError


@dataclass(frozen=True)
class Step:
    """One rule and its effect.

    Attributes:
        rule: what was looked for and what was done about it, in words.
        unit: what is counted: "columns", "rows", "values", "days", "patients", "stays" or "rules".
        found: units that the rule met.
        dropped: those of them that were removed; smaller than `found` where the rule only counts or corrects.
        kept: units left after the rule.
    """

    rule: str
    unit: str
    found: int
    dropped: int
    kept: int


def as_values(steps: Iterable[Step]) -> list[dict[str, Any]]:
    """The steps as JSON-ready values, in their order."""
    return [asdict(step) for step in steps]


def from_values(values: Iterable[Mapping[str, Any]]) -> tuple[Step, ...]:
    """Reads what `as_values` wrote.

    Raises:
        ContractError: an entry lacks a field or holds an unknown one.
    """
    try:
        return tuple(Step(**entry) for entry in values)
    except TypeError as error:
        raise ContractError(f"attrition: {error}", f"each step holds {list(Step.__dataclass_fields__)}",
                            "recompute the cohort") from error
