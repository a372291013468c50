"""One patient in full: what was asked, what was answered, and how far it meets the expert.

In go verdicts, patients and the finder of mentions; out comes a `CaseStudy` in which every stretch of the answer that
mentions a feature is marked. Which patient is shown follows a rule (`RULE`), so that nobody picks a pretty one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from contracts.errors import ContractError
from contracts.patients import Patient
from prompts import templates
from prompts.mentions import MentionFinder

RULE = ("Among the arm's readable answers for test stays with outcome 1 (with any outcome if there are none), the stay "
        "with the median risk read from the tokens; the lower of two, ties by stay identifier.")
Kind = Literal["plain", "expert", "other"]


@dataclass(frozen=True)
class Segment:
    """A stretch of the answer: plain text, a mention of an expert feature, or a mention of another feature."""

    text: str
    kind: Kind
    feature: str = ""


@dataclass(frozen=True)
class CaseStudy:
    """One stay under one arm; no identifier.

    Attributes:
        prompt: role and text of each message.
        segments: the answer, cut at its mentions; their texts concatenate to it.
        named: features of the answer's list, canonical.
        expert_features: C_exp, largest attention first.
        shared: features in both; overlap: |both| / |either| (Jaccard, R_att of the method).
    """

    arm: str
    rule: str
    label: int
    probability: float
    token_probability: float
    prompt: tuple[tuple[str, str], ...]
    segments: tuple[Segment, ...]
    named: tuple[str, ...]
    expert_features: tuple[str, ...]
    shared: tuple[str, ...]
    overlap: float


def study_case(verdicts: pl.DataFrame, arm: str, style: str, patients: Sequence[Patient], mentions: MentionFinder,
               outcome: str, count: int) -> CaseStudy | None:
    """The case study of one policy arm; None if none of its answers could be read.

    Args:
        verdicts: of this arm at least.
        patients: holding the judged stays.
        style, outcome, count: as in `verdicts.judge`, to show the prompt as it was.

    Raises:
        ContractError: the chosen stay is not among the patients.
    """
    row = choose(verdicts, arm)
    if row is None:
        return None
    patient = next((one for one in patients if one.stay_id == row["stay_id"]), None)
    if patient is None:
        raise ContractError(f"a judged stay of arm {arm!r} is not among {len(patients)} patients",
                            "the patients hold every judged stay", "judge and report the same cohort")
    named = mentions.canonical_names(row["features"])
    shared = tuple(name for name in patient.expert_features if name in named)
    union = len(set(named) | set(patient.expert_features))
    messages = templates.messages(patient.evidence, style, outcome, count)
    return CaseStudy(arm=arm, rule=RULE, label=row["label"], probability=row["probability"],
                     token_probability=row["token_probability"],
                     prompt=tuple((message["role"], message["content"]) for message in messages),
                     segments=mark(row["text"], mentions, patient.expert_features), named=named,
                     expert_features=patient.expert_features, shared=shared,
                     overlap=len(shared) / union if union else 0.0)


def choose(verdicts: pl.DataFrame, arm: str) -> dict[str, Any] | None:
    """The verdict that `RULE` picks, None if the arm has no readable answer."""
    readable = verdicts.filter((pl.col("arm") == arm) & pl.col("parsed"))
    positive = readable.filter(pl.col("label") == 1)
    pool = (positive if positive.height else readable).sort("token_probability", "stay_id")
    return pool.row((pool.height - 1) // 2, named=True) if pool.height else None


def mark(text: str, mentions: MentionFinder, expert_features: Sequence[str]) -> tuple[Segment, ...]:
    """The text cut at its mentions; empty stretches are left out."""
    segments, edge = [], 0
    for found in sorted(mentions.find(text), key=lambda mention: mention.start):
        segments.append(Segment(text[edge:found.start], "plain"))
        kind: Kind = "expert" if found.feature in expert_features else "other"
        segments.append(Segment(text[found.start:found.end], kind, found.feature))
        edge = found.end
    segments.append(Segment(text[edge:], "plain"))
    return tuple(segment for segment in segments if segment.text)
