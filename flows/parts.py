"""The parts of a study in their order, by name; without Prefect, so that the command line knows them at once."""

from __future__ import annotations

from enum import StrEnum


class Until(StrEnum):
    """The last part of a study that is wanted."""

    cohort = "cohort"
    expert = "expert"
    trees = "trees"
    policy = "policy"
    report = "report"
