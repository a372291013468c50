"""Do an arm's answers cite the patient's own values, or numbers from nowhere?

Each distinct number that an answer's reasoning holds is looked for in what the prompt showed of that patient, and, to
see what chance gives, in what it showed of each other one. Numbers are compared as values: 1.10 is 1.1.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import polars as pl

from evaluation.risks import arms_of
from prompts.grammar import reasoning

SCHEMA: dict[str, Any] = {"arm": pl.String, "answers": pl.Int64, "citing": pl.Float64, "cited": pl.Int64,
                          "own": pl.Float64, "others": pl.Float64}
_NUMBER = re.compile(r"(?<![\w.])[0-9]{1,9}(?:\.[0-9]{1,9})?(?![\w]|\.[0-9])", re.ASCII)


def citations(verdicts: pl.DataFrame, evidence: Mapping[str, Mapping[str, str]]) -> pl.DataFrame:
    """Which of the numbers that each arm's reasoning holds stand in the record.

    Args:
        verdicts: contract VERDICTS, every arm of the same stays.
        evidence: of each arm with language, each judged stay's data as its prompt shows them.

    Returns:
        `SCHEMA`: answers; share that cites a number; numbers cited, each once an answer; share of them in the patient's
        own data; share of them in another stay's data, mean over the others. None: no number, no other stay.

    Raises: as `risks.arms_of`.
    """
    rows = [_row(arm, part, evidence[arm]) for arm, part in arms_of(verdicts).items() if arm in evidence]
    return pl.DataFrame(rows, schema=SCHEMA)


def numbers(text: str) -> frozenset[float]:
    """The distinct numbers of a text, as values; none of a word such as CD4 or of a version such as 1.2.3."""
    return frozenset(map(float, _NUMBER.findall(text)))


def _row(arm: str, part: pl.DataFrame, evidence: Mapping[str, str]) -> dict[str, Any]:
    cited = [numbers(reasoning(text)) for text in part["text"]]
    known = [numbers(evidence[stay]) for stay in part["stay_id"]]
    holders = Counter(number for held in known for number in held)
    count, others = sum(map(len, cited)), part.height - 1
    own = sum(len(told & held) for told, held in zip(cited, known, strict=True))
    anywhere = sum(holders[number] for told in cited for number in told)
    return {"arm": arm, "answers": part.height, "citing": sum(map(bool, cited)) / part.height, "cited": count,
            "own": own / count if count else None,
            "others": (anywhere - own) / (count * others) if count and others else None}
