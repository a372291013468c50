"""Validity of a cohort: what would bias a result, named before anything is trained on it.

In: a `Cohort`, and the `Source` it was made of where it is at hand (times are then exact, and the order of its rows is
looked at too). Out: findings. Errors stop (`require`), warnings are kept as `validity.json` beside the cohort.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from contracts.errors import StorageError
from ehr import balance, leaks
from ehr.finding import Finding, as_values, from_values, require, tally
from ehr.folder import Cohort
from ehr.sources.source import Source

__all__ = ["CHECKS", "FILE", "Finding", "as_values", "check", "from_values", "require", "tally", "write"]

FILE = "validity.json"
Check = Callable[[Cohort, Source | None], Iterator[Finding]]
CHECKS: tuple[Check, ...] = (
    balance.torn_patients, leaks.after_discharge, leaks.revealing_rule, leaks.label_anchor, leaks.close_to_outcome,
    leaks.carried_by_order, balance.fitted_beyond_training, balance.unlike_splits, balance.unlike_prevalence,
    balance.missing_features, balance.constant_features)


def check(cohort: Cohort, source: Source | None = None) -> tuple[Finding, ...]:
    """Runs all checks.

    Args:
        source: what the cohort was prepared from.

    Returns:
        what was found, errors first; empty for a cohort in which nothing stands out.
    """
    found = [finding for one in CHECKS for finding in one(cohort, source)]
    return tuple(sorted(found, key=lambda finding: finding.level))


def write(findings: Iterable[Finding], folder: Path) -> Path:
    """Writes the findings beside the cohort; returns the file.

    Raises:
        StorageError: the folder cannot be written.
    """
    path = folder / FILE
    try:
        path.write_text(json.dumps({"findings": as_values(findings)}, indent=1, ensure_ascii=False) + "\n",
                        encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot write {FILE}: {error}", "a writable folder with free space",
                           "free space, or change paths.workspace") from error
    return path
