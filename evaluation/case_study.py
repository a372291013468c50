"""Patients in full: what was asked, what several arms answered, and how far each answer meets the expert.

In go verdicts, patients and the finder of mentions; out come `CaseStudy`s in which every stretch of an answer that
mentions a feature is marked. Which patients are shown follows a rule (`RULE`), so that nobody picks a pretty one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from contracts.errors import ContractError
from contracts.patients import Patient
from prompts import templates
from prompts.mentions import MentionFinder
from rewards.attention import attention_reward

RULE = ("Test stays are grouped by outcome and by whether the first arm's risk, read from the tokens, lies on the "
        "right side of 0.5. In each group the stays at the quantiles {quantiles} of that risk are shown (the lower of "
        "two, ties by stay identifier), and one stay whose answer could not be read, if there is any (the middle one "
        "by stay identifier).")
SPLIT = 0.5
Kind = Literal["plain", "expert", "other"]


@dataclass(frozen=True)
class Segment:
    """A stretch of the answer: plain text, a mention of an expert feature, or a mention of another feature."""

    text: str
    kind: Kind
    feature: str = ""


@dataclass(frozen=True)
class Answer:
    """What one arm answered about the stay.

    Attributes:
        probability, token_probability: the risk in both readings; None where the answer could not be read.
        segments: the answer, cut at its mentions; their texts concatenate to it.
        named: features of the answer's list, canonical.
        shared: those among the expert's; overlap: |both| / |either| (Jaccard, R_att of the method).
    """

    arm: str
    probability: float | None
    token_probability: float | None
    segments: tuple[Segment, ...]
    named: tuple[str, ...]
    shared: tuple[str, ...]
    overlap: float


@dataclass(frozen=True)
class CaseStudy:
    """One stay under one arm or several; no identifier.

    Attributes:
        title: the group that it stands for and the first arm's risk.
        prompt: role and text of each message, as the first arm was asked.
        expert_features: C_exp, largest attention first.
        answers: of each arm, the first arm's first.
    """

    title: str
    label: int
    prompt: tuple[tuple[str, str], ...]
    expert_features: tuple[str, ...]
    answers: tuple[Answer, ...]


def study_cases(verdicts: pl.DataFrame, arms: Sequence[str], style: str, patients: Sequence[Patient],
                mentions: MentionFinder, outcome: str, count: int, quantiles: Sequence[float]) -> tuple[CaseStudy, ...]:
    """The case studies that `RULE` picks for the first arm; none where no quantile is asked for.

    Args:
        verdicts: of these arms at least.
        arms: shown side by side; all read the same patients.
        style, outcome, count: as in `verdicts.judge` for the first arm, to show the prompt as it was.

    Raises:
        ContractError: a chosen stay is not among the patients.
    """
    known = {one.stay_id: one for one in patients}
    rows = {(row["arm"], row["stay_id"]): row for row in
            verdicts.filter(pl.col("arm").is_in(list(arms))).iter_rows(named=True)}
    cases = []
    for title, stay in choose(verdicts, arms[0], quantiles):
        if stay not in known:
            raise ContractError(f"a judged stay of arm {arms[0]!r} is not among {len(patients)} patients",
                                "the patients hold every judged stay", "judge and report the same cohort")
        patient = known[stay]
        messages = templates.messages(patient.evidence, style, outcome, count)
        cases.append(CaseStudy(title, patient.label,
                               tuple((message["role"], message["content"]) for message in messages),
                               patient.expert_features,
                               tuple(_answer(rows[arm, stay], patient, mentions) for arm in arms)))
    return tuple(cases)


def choose(verdicts: pl.DataFrame, arm: str, quantiles: Sequence[float]) -> list[tuple[str, str]]:
    """Title and stay of each case that `RULE` picks, outcome 1 before 0, right before wrong; each stay once."""
    own = verdicts.filter(pl.col("arm") == arm).sort("token_probability", "stay_id")
    readable, unread = own.filter(pl.col("parsed")), own.filter(~pl.col("parsed")).sort("stay_id")
    picked = {row["stay_id"]: f"Outcome {row['label']}, {side}, risk {row['token_probability']:.2f}"
              for side, row in _at_quantiles(readable, quantiles)}
    if quantiles and unread.height:
        row = unread.row((unread.height - 1) // 2, named=True)
        picked[row["stay_id"]] = f"Outcome {row['label']}, not readable"
    return [(title, stay) for stay, title in picked.items()]


def _at_quantiles(readable: pl.DataFrame, quantiles: Sequence[float]) -> Iterator[tuple[str, dict[str, Any]]]:
    right = (pl.col("token_probability") >= SPLIT) == (pl.col("label") == 1)
    for label in (1, 0):
        for side, there in (("right", right), ("wrong", ~right)):
            group = readable.filter((pl.col("label") == label) & there)
            for share in sorted(quantiles) if group.height else ():
                yield side, group.row(int(share * (group.height - 1)), named=True)


def _answer(row: Mapping[str, Any], patient: Patient, mentions: MentionFinder) -> Answer:
    named = mentions.canonical_names(row["features"])
    return Answer(arm=row["arm"], probability=row["probability"] if row["parsed"] else None,
                  token_probability=row["token_probability"] if row["parsed"] else None,
                  segments=mark(row["text"], mentions, patient.expert_features), named=named,
                  shared=tuple(name for name in patient.expert_features if name in named),
                  overlap=attention_reward(named, patient.expert_features))


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
