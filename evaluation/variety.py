"""Are an arm's answers about the patient, or the same for everybody?

An arm can rank patients by the number alone and reason in the same words about each of them: its tokens carry the risk,
its text says nothing. AUROC does not show that; the share of the answers with the commonest reasoning does.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import polars as pl

from evaluation.risks import arms_of
from prompts.grammar import reasoning
from prompts.templates import EXAMPLE_FINDINGS

# Share of the answers with one and the same reasoning, and the fewest answers, from which the report warns.
SAME, FEWEST = 0.5, 20
SCHEMA: dict[str, Any] = {
    "arm": pl.String, "answers": pl.Int64, "reasoning": pl.Float64, "distinct": pl.Int64, "same": pl.Float64,
    "example": pl.Float64, "lists": pl.Int64, "same_list": pl.Float64, "numbers": pl.Int64}


def variety(verdicts: pl.DataFrame) -> pl.DataFrame:
    """How much the answers of each arm with language differ between stays.

    Args:
        verdicts: contract VERDICTS with `verdicts.EXTRAS`, every arm of the same stays.

    Returns:
        `SCHEMA`, a row for each arm: answers; share that holds a reasoning, distinct reasonings, share with the
        commonest one, share that repeats a finding of the prompt's example; distinct lists of features and share with
        the commonest (order aside); distinct stated numbers. All shares are of all answers, None where none reasons or
        names features; letter case is ignored.

    Raises: as `risks.arms_of`.
    """
    rows = [_row(arm, part) for arm, part in arms_of(verdicts).items() if (part["reading"] != "model").any()]
    return pl.DataFrame(rows, schema=SCHEMA)


def same_reasoning(part: pl.DataFrame) -> float | None:
    """Share of one arm's answers with its commonest reasoning; None where none holds any."""
    return _commonest(_reasonings(part), part.height)


def warning(rows: pl.DataFrame) -> list[str]:
    """A sentence where one reasoning stands in most answers of an arm; none otherwise.

    Args:
        rows: of `tables.results`, of one arm; may be empty.
    """
    row = next(rows.iter_rows(named=True), None)
    if row is None or row["n"] < FEWEST or (row["same_reasoning"] or 0.0) < SAME:
        return []
    return [f"{row['arm']} reasons in the same words in {100 * row['same_reasoning']:.0f} % of its answers, whoever "
            "the patient is: its figures are those of its number, not of a reasoning about the patient."]


def _row(arm: str, part: pl.DataFrame) -> dict[str, Any]:
    told = _reasonings(part)
    lists = [tuple(sorted({name.casefold() for name in names})) for names in part["features"].to_list() if names]
    copied = [any(finding.casefold() in text for finding in EXAMPLE_FINDINGS) for text in told]
    return {"arm": arm, "answers": part.height, "reasoning": len(told) / part.height, "distinct": len(set(told)),
            "same": _commonest(told, part.height), "example": sum(copied) / part.height if told else None,
            "lists": len(set(lists)), "same_list": _commonest(lists, part.height),
            "numbers": part.filter("parsed")["probability"].n_unique()}


def _reasonings(part: pl.DataFrame) -> list[str]:
    return [text for text in (reasoning(answer).casefold() for answer in part["text"]) if text]


def _commonest(values: list[Any], answers: int) -> float | None:
    return Counter(values).most_common(1)[0][1] / answers if values else None
