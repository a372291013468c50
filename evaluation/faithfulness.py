"""Faithfulness of the overlap with the expert: is it about this patient, and does it go with better prediction?

An arm that names the features which the expert looks at in everybody overlaps with the expert of each patient and has
followed none. So the overlap with the patient's own C_exp (Jaccard, R_att of the method) is held against that with

- swapped: C_exp of another patient, by random derangements of the patients;
- frequent: as many features, drawn by how often training stays have them in C_exp;
- even: as many features, drawn evenly from what the prompt shows.

Each control is drawn many times; its overlap for a stay is the mean over the draws. What a policy cannot see it cannot
name, and neither prompts nor measurements are the same in all patients: with swapped, both C_exp are worked out anew,
from the experts' whole rankings, among what both patients' prompts show and what was measured in both. Else the other's
would lose features to the patient's prompt where the own loses none, and an arm that follows nobody would seem to
follow. p is the share of draws (the arm's own among them) in which the arm overlaps with the control no less than with
its own patient. Arms with the same prompts meet the same draws, and C_exp is that of the study's guides for every arm,
among what its own prompts show.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from contracts.errors import ContractError
from contracts.patients import Patient
from evaluation import statistics
from evaluation.expert_sets import Guides, Ranking, Sets, ranking, sets
from evaluation.metrics import Floats
from evaluation.rank_correlation import correlation
from evaluation.risks import arms_of, readings_of
from evaluation.statistics import Resamples
from prompts.mentions import MentionFinder

SWAPPED, FREQUENT, EVEN = "swapped", "frequent", "even"
SCHEMA: dict[str, Any] = {
    "arm": pl.String, "control": pl.String, "stays": pl.Int64, "naming": pl.Float64, "named": pl.Float64,
    "overlap": pl.Float64, "control_overlap": pl.Float64, "difference": pl.Float64, "low": pl.Float64,
    "high": pl.Float64, "p": pl.Float64, "p_holm": pl.Float64}
OVERLAP: dict[str, Any] = {
    "arm": pl.String, "reading": pl.String, "stays": pl.Int64, "rho": pl.Float64, "low": pl.Float64,
    "high": pl.Float64, "rho_parsed": pl.Float64, "low_parsed": pl.Float64, "high_parsed": pl.Float64}
_EQUAL = 1e-12  # overlaps that differ by less are the same
_RARE = 1e-9  # weight of a feature that no training stay has in C_exp: drawn only where the others do not suffice
Pairs = Iterator[tuple[Sets, Sets]]  # for each draw C_exp of each stay, and the control's set


@dataclass(frozen=True)
class Expected:
    """What the expert looks at in n stays, as sets over F names.

    Attributes:
        names: of the F columns.
        ranking: of the names, for each stay.
        shown: what its prompt shows, (n, F).
        own: C_exp of each stay, (n, F).
        weights: share of training stays with the name in C_exp, (F,).
        members: patient of each stay, by number, (n,).
    """

    names: tuple[str, ...]
    ranking: Ranking
    shown: Sets
    own: Sets
    weights: Floats
    members: NDArray[np.integer]


def named_by(verdicts: pl.DataFrame, mentions: MentionFinder) -> dict[str, list[tuple[str, ...]]]:
    """Canonical features that each arm with language names for each stay, stays in the order of `risks.judged`."""
    return {arm: [mentions.canonical_names(names) for names in part["features"].to_list()]
            for arm, part in arms_of(verdicts).items() if (part["reading"] != "model").any()}


def expected(stay_ids: Sequence[str], patients: Sequence[Patient], members: Mapping[str, str],
             named: Mapping[str, Sequence[Sequence[str]]], guides: Guides) -> Expected:
    """The expert's sets of the judged stays, as some arms were asked about them.

    Args:
        stay_ids: the n judged stays.
        patients: as those arms' prompts show them; holding these and the training stays.
        members: stay to patient.
        named: what the arms named; their names get a column, whether shown or not.
        guides: of the study.

    Raises:
        ContractError: a judged stay is not among the patients, or stands in no readings.
    """
    by_stay = {one.stay_id: one for one in patients}
    missing = [stay for stay in stay_ids if stay not in by_stay]
    if missing:
        raise ContractError(f"{len(missing)} of {len(stay_ids)} judged stays are not among {len(patients)} patients",
                            "the patients hold every judged stay", "judge and report the same cohort")
    judged, train = [by_stay[stay] for stay in stay_ids], [one for one in patients if one.split == "train"]
    written = {name for rows in named.values() for names in rows for name in names}
    names = tuple(sorted(written.union(*(one.shown for one in (*judged, *train)))))
    shown, ranks = sets([one.shown for one in judged], names), ranking(guides, stay_ids, names)
    usual = ranking(guides, [one.stay_id for one in train], names).top(sets([one.shown for one in train], names))
    return Expected(names, ranks, shown, ranks.top(shown), usual.sum(axis=0) / max(1, len(train)),
                    np.unique([members[stay] for stay in stay_ids], return_inverse=True)[1])


def jaccard(one: Sets, other: Sets) -> Floats:
    """(n,): size of the intersection over that of the union; 0 where both are empty, as in the reward."""
    both, either = (one & other).sum(axis=1), (one | other).sum(axis=1)
    return np.divide(both, either, out=np.zeros(len(one)), where=either > 0)


def controls(found: Expected, draws: int, seed: int) -> dict[str, Pairs]:
    """Each control with its draws; swapped is left out where there is one patient alone."""
    made = {FREQUENT: _drawn(found, found.weights + _RARE, draws, np.random.default_rng([seed, 1])),
            EVEN: _drawn(found, np.ones(len(found.names)), draws, np.random.default_rng([seed, 2]))}
    if found.members.max() < 1:
        return made
    return {SWAPPED: _swapped(found, draws, np.random.default_rng([seed, 0])), **made}


def _swapped(found: Expected, draws: int, dice: np.random.Generator) -> Pairs:
    """C_exp of each stay and of a stay of another patient, both among what both prompts show and both rankings know.

    Stay k of a patient gets stay k, counted round, of the patient drawn.
    """
    stays_of = [np.flatnonzero(found.members == person) for person in range(int(found.members.max()) + 1)]
    most = max(map(len, stays_of))
    kth = np.array([np.resize(stays, most) for stays in stays_of])  # a patient's k-th stay, counted round
    place = np.array([np.searchsorted(stays_of[person], stay) for stay, person in enumerate(found.members)])
    seen = found.shown & found.ranking.known.any(axis=0)
    for _ in range(draws):
        other = kth[derangement(len(stays_of), dice)[found.members], place]
        both = seen & seen[other]
        yield found.ranking.top(both), found.ranking.of(other).top(both)


def derangement(size: int, dice: np.random.Generator) -> NDArray[np.integer]:
    """A random order of 0 .. size - 1 in which nobody keeps the place; every one is equally likely. size >= 2."""
    while True:
        order = dice.permutation(size)
        if not (order == np.arange(size)).any():
            return order


def _drawn(found: Expected, weights: Floats, draws: int, dice: np.random.Generator) -> Pairs:
    """C_exp of each stay, and as many names among those shown, without replacement, by weight (Gumbel keys, Yellott
    1977)."""
    size = found.own.sum(axis=1)
    logs = np.where(found.shown, np.log(weights), -np.inf)
    for _ in range(draws):
        keys = logs + dice.gumbel(size=logs.shape)
        least = np.take_along_axis(-np.sort(-keys, axis=1), np.maximum(size - 1, 0)[:, None], axis=1)
        yield found.own, (keys >= least) & found.shown & (size > 0)[:, None]


def faithfulness(named: Mapping[str, Sequence[Sequence[str]]], asked: Sequence[tuple[Sequence[str], Expected]],
                 drawn: Resamples, seed: int) -> pl.DataFrame:
    """Overlap of every arm against each control.

    Args:
        named: `named_by`.
        asked: arms with the same prompts, and what the expert looks at of the stays in these; every arm once.
        drawn: of the stays, for the intervals; there are as many draws of a control as resamples.

    Returns:
        `SCHEMA`: naming is the share of stays for which the arm names a feature, named how many where it does; with
        `SWAPPED` both overlaps are with features that both patients have, so that `overlap` is another than with the
        others. An arm that names none has one row, without overlap. p_holm is corrected over the arms, by control.
    """
    told = [row for arms, found in asked
            for row in _told({arm: sets(named[arm], found.names) for arm in arms if arm in named}, found, drawn, seed)]
    frame = pl.DataFrame(told, schema={name: kind for name, kind in SCHEMA.items() if name != "p_holm"})
    holm = statistics.holm_by(frame["control"].to_list(), frame["p"].to_list())
    return _in_order(frame.with_columns(pl.Series("p_holm", holm, pl.Float64)), list(named))


def _told(chosen: Mapping[str, Sets], found: Expected, drawn: Resamples, seed: int) -> list[dict[str, Any]]:
    """Rows of arms with the same prompts, without p_holm."""
    rows = {arm: _described(arm, held) for arm, held in chosen.items()}
    naming = {arm: held for arm, held in chosen.items() if held.any()}
    told = [row for arm, row in rows.items() if arm not in naming]
    for control, draws in controls(found, len(drawn.counts), seed).items():
        told += [{**rows[arm], "control": control, **_compared(overlaps, drawn)}
                 for arm, overlaps in _against(naming, draws).items()]
    return told


def _described(arm: str, held: Sets) -> dict[str, Any]:
    counts = held.sum(axis=1)
    return {"arm": arm, "control": None, "stays": len(held), "naming": float((counts > 0).mean()),
            "named": float(counts[counts > 0].mean()) if counts.any() else None}


@dataclass(frozen=True)
class _Overlaps:
    """Of one arm against one control.

    Attributes:
        own, control: mean over the draws of each stay's overlap, (n,).
        gaps: mean over the stays of own minus control, for each draw, (D,).
    """

    own: Floats
    control: Floats
    gaps: Floats


def _against(naming: Mapping[str, Sets], draws: Pairs) -> dict[str, _Overlaps]:
    gaps: dict[str, list[float]] = {arm: [] for arm in naming}
    sums = {arm: np.zeros((2, len(held))) for arm, held in naming.items()}
    for pair in draws:
        for arm, held in naming.items():
            overlap = np.stack([jaccard(held, other) for other in pair])
            gaps[arm].append(float((overlap[0] - overlap[1]).mean()))
            sums[arm] += overlap
    return {arm: _Overlaps(own / max(1, len(gaps[arm])), control / max(1, len(gaps[arm])), np.array(gaps[arm]))
            for arm, (own, control) in sums.items()}


def _compared(found: _Overlaps, drawn: Resamples) -> dict[str, float]:
    gaps = found.own - found.control
    low, high = statistics.interval(drawn.counts @ gaps / drawn.counts.sum(axis=1))
    reached = int((found.gaps <= _EQUAL).sum())
    return {"overlap": float(found.own.mean()), "control_overlap": float(found.control.mean()),
            "difference": float(gaps.mean()), "low": low, "high": high, "p": (1 + reached) / (1 + found.gaps.size)}


def _in_order(frame: pl.DataFrame, arms: Sequence[str]) -> pl.DataFrame:
    order = {arm: place for place, arm in enumerate(arms)}
    return frame.sort(pl.col("arm").replace_strict(order, return_dtype=pl.Int64), maintain_order=True)


def overlap_and_score(verdicts: pl.DataFrame, named: Mapping[str, Sequence[Sequence[str]]],
                      asked: Sequence[tuple[Sequence[str], Expected]], drawn: Resamples) -> pl.DataFrame:
    """Whether larger overlap goes with better prediction, for every arm and reading that overlaps at all.

    Better is a larger log score, the logarithm of the probability that the arm gave to what happened; the absolute
    error puts the stays of a label in the same order backwards, so its correlation is the same with the other sign.

    Returns:
        `OVERLAP`: rank correlation within the label, and the same given whether the answer could be read (an unreadable
        answer names nothing and predicts 0.5, which alone makes a correlation).
    """
    rows, prompted = [], {arm: found for arms, found in asked for arm in arms if arm in named}
    for arm, part in arms_of(verdicts).items():
        found = prompted.get(arm)
        overlap = np.zeros(1) if found is None else jaccard(sets(named[arm], found.names), found.own)
        if not overlap.any():
            continue
        labels = part["label"].cast(pl.Int64).to_numpy()
        for reading, column in readings_of(part).items():
            right = np.where(labels == 1, part[column].to_numpy(), 1 - part[column].to_numpy())
            plain = correlation(overlap, right, drawn.counts, labels)
            given = correlation(overlap, right, drawn.counts, labels, 2 * labels + part["parsed"].to_numpy())
            rows.append({"arm": arm, "reading": reading, "stays": part.height, "rho": plain.rho, "low": plain.low,
                         "high": plain.high, "rho_parsed": given.rho, "low_parsed": given.low,
                         "high_parsed": given.high})
    return pl.DataFrame(rows, schema=OVERLAP)
