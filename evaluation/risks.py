"""Who gave which risk: every arm's risks for the same stays, one vector for each reading.

In go verdicts of several arms, out come vectors in one order of the stays, so that arms can be compared in pairs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from configs.schema import Config
from contracts.errors import DataError
from contracts.frames import VERDICTS
from evaluation.metrics import Floats, Ints

REFERENCE = "decomposition"
STATED, TOKENS, MODEL = "stated", "tokens", "model"
COLUMNS = {STATED: "probability", TOKENS: "token_probability"}
FIRST = ", first visit"  # ending of the name of an arm that sees the first visit alone
Key = tuple[str, str]  # arm, reading


@dataclass(frozen=True)
class Judged:
    """All arms on the same n stays.

    Attributes:
        stay_ids: in order.
        labels: (n,).
        risks: (arm, reading) to risks (n,), in order of the arms' appearance.
    """

    stay_ids: tuple[str, ...]
    labels: Ints
    risks: Mapping[Key, Floats]


def judged(verdicts: pl.DataFrame) -> Judged:
    """The risks of all arms by reading: "stated" and "tokens", or "model" for an arm without language.

    Raises:
        ContractError: the verdicts break their contract.
        DataError: no verdicts, or arms judged other stays or labels.
    """
    arms = arms_of(verdicts)
    first = next(iter(arms.values()))
    risks = {(arm, reading): part[column].to_numpy() for arm, part in arms.items()
             for reading, column in readings_of(part).items()}
    return Judged(tuple(first["stay_id"]), first["label"].cast(pl.Int64).to_numpy(), risks)


def arms_of(verdicts: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Verdicts of each arm, sorted by stay, in order of appearance. Raises as `judged` does."""
    parts = by_arm(verdicts)
    same_stays([(f"arm {arm!r}", part) for arm, part in parts.items()])
    return parts


def by_arm(verdicts: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """As `arms_of`, whichever stays the arms judged. Raises ContractError: the verdicts break their contract."""
    return {str(name[0]): part.sort("stay_id")
            for name, part in VERDICTS.check(verdicts).group_by("arm", maintain_order=True)}


def same_stays(parts: Sequence[tuple[str, pl.DataFrame]]) -> pl.DataFrame:
    """The first of several verdicts, once all are seen to be of the same stays with the same labels.

    Args:
        parts: who judged, in words, and the verdicts, sorted by stay.

    Raises:
        DataError: no verdicts, or other stays or labels.
    """
    if not parts:
        raise DataError("no verdicts", "at least one arm", "judge at least one arm")
    first_name, first = parts[0]
    for name, part in parts:
        if not part.select("stay_id", "label").equals(first.select("stay_id", "label")):
            raise DataError(f"{name} judged {part.height} stays, {first_name} {first.height}, and they are not the "
                            "same with the same labels", "all arms judge the same test stays",
                            "judge the arms again on one list of stays")
    return first


def readings_of(part: pl.DataFrame) -> dict[str, str]:
    """Readings of one arm, each with its column."""
    return {MODEL: "probability"} if (part["reading"] == "model").all() else COLUMNS


def reference_of(config: Config) -> str:
    """The arm that a study's others are compared with: the one it names, else `decomposition`, else its first arm."""
    named, arms = config.evaluation.reference, config.evaluation.arms
    return named or (REFERENCE if REFERENCE in arms else arms[0])


def counterpart(key: Key, present: Collection[Key], reference: str = REFERENCE) -> Key | None:
    """What an arm is compared with: the reference in the same reading, its stated number for an arm without language;
    for an arm of the first visit the reference's first visit where it was judged; None for the reference itself and
    where there is no reference."""
    arm, reading = key
    as_asked = STATED if reading == MODEL else reading
    alike = (f"{reference}{FIRST}", as_asked)
    other = alike if arm.endswith(FIRST) and alike in present else (reference, as_asked)
    return other if arm != other[0] and other in present else None
