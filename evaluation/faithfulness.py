"""Faithfulness of the overlap with the expert: is it about this patient, and does it go with better prediction?

An arm that names the features which the expert looks at in everybody overlaps with the expert of each patient and has
followed none. So the overlap with the patient's own C_exp (Jaccard, R_att of the method) is held against that with

- swapped: C_exp of another patient, by random derangements of the patients;
- frequent: as many features, drawn by how often training stays have them in C_exp;
- even: as many features, drawn evenly from what the prompt shows.

Swapped sets count as far as the patient's prompt shows them: what a policy cannot see it cannot name. Each control is
drawn many times; its overlap for a stay is the mean over the draws, p is the share of draws (the arm's own among them)
whose mean overlap over all stays reaches the arm's. All arms meet the same draws, and C_exp is that of the study's
guides for every arm.
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
_RARE = 1e-9  # weight of a feature that no training stay has in C_exp: drawn only where the others do not suffice
Sets = NDArray[np.bool_]  # (n, F): which of F names are in the set of each stay


@dataclass(frozen=True)
class Expected:
    """What the expert looks at in n stays, as sets over F names.

    Attributes:
        names: of the F columns.
        own: C_exp of each stay, (n, F).
        shown: what its prompt shows, (n, F).
        weights: share of training stays with the name in C_exp, (F,).
        members: patient of each stay, by number, (n,).
    """

    names: tuple[str, ...]
    own: Sets
    shown: Sets
    weights: Floats
    members: NDArray[np.integer]


def named_by(verdicts: pl.DataFrame, mentions: MentionFinder) -> dict[str, list[tuple[str, ...]]]:
    """Canonical features that each arm with language names for each stay, stays in the order of `risks.judged`."""
    return {arm: [mentions.canonical_names(names) for names in part["features"].to_list()]
            for arm, part in arms_of(verdicts).items() if (part["reading"] != "model").any()}


def expected(stay_ids: Sequence[str], patients: Sequence[Patient], members: Mapping[str, str],
             named: Mapping[str, Sequence[Sequence[str]]]) -> Expected:
    """The expert's sets of the judged stays.

    Args:
        stay_ids: the n judged stays.
        patients: holding these and the training stays.
        members: stay to patient.
        named: what the arms named; their names get a column, whether shown or not.

    Raises:
        ContractError: a judged stay is not among the patients.
    """
    by_stay = {one.stay_id: one for one in patients}
    missing = [stay for stay in stay_ids if stay not in by_stay]
    if missing:
        raise ContractError(f"{len(missing)} of {len(stay_ids)} judged stays are not among {len(patients)} patients",
                            "the patients hold every judged stay", "judge and report the same cohort")
    judged = [by_stay[stay] for stay in stay_ids]
    written = {name for rows in named.values() for names in rows for name in names}
    names = tuple(sorted(written.union(*(one.shown for one in judged), *(one.expert_features for one in judged))))
    train = sets([one.expert_features for one in patients if one.split == "train"], names)
    return Expected(names, sets([one.expert_features for one in judged], names),
                    sets([one.shown for one in judged], names), train.sum(axis=0) / max(1, len(train)),
                    np.unique([members[stay] for stay in stay_ids], return_inverse=True)[1])


def sets(rows: Sequence[Sequence[str]], names: Sequence[str]) -> Sets:
    """Sets over `names`; what is not among them is left out."""
    column = {name: place for place, name in enumerate(names)}
    found = np.zeros((len(rows), len(names)), dtype=bool)
    for row, held in enumerate(rows):
        found[row, [column[name] for name in held if name in column]] = True
    return found


def jaccard(one: Sets, other: Sets) -> Floats:
    """(n,): size of the intersection over that of the union; 0 where both are empty, as in the reward."""
    both, either = (one & other).sum(axis=1), (one | other).sum(axis=1)
    return np.divide(both, either, out=np.zeros(len(one)), where=either > 0)


def controls(found: Expected, draws: int, seed: int) -> dict[str, Iterator[Sets]]:
    """Each control with its draws; swapped is left out where there is one patient alone."""
    size = found.own.sum(axis=1)
    made = {FREQUENT: _drawn(found, size, found.weights + _RARE, draws, np.random.default_rng([seed, 1])),
            EVEN: _drawn(found, size, np.ones(len(found.names)), draws, np.random.default_rng([seed, 2]))}
    if found.members.max() < 1:
        return made
    return {SWAPPED: _swapped(found, draws, np.random.default_rng([seed, 0])), **made}


def _swapped(found: Expected, draws: int, dice: np.random.Generator) -> Iterator[Sets]:
    """C_exp of a stay of another patient: stay k of a patient gets stay k, counted round, of the patient drawn."""
    stays_of = [np.flatnonzero(found.members == person) for person in range(int(found.members.max()) + 1)]
    most = max(map(len, stays_of))
    kth = np.array([np.resize(stays, most) for stays in stays_of])  # a patient's k-th stay, counted round
    place = np.array([np.searchsorted(stays_of[person], stay) for stay, person in enumerate(found.members)])
    for _ in range(draws):
        others = derangement(len(stays_of), dice)
        yield found.own[kth[others[found.members], place]] & found.shown


def derangement(size: int, dice: np.random.Generator) -> NDArray[np.integer]:
    """A random order of 0 .. size - 1 in which nobody keeps the place; every one is equally likely. size >= 2."""
    while True:
        order = dice.permutation(size)
        if not (order == np.arange(size)).any():
            return order


def _drawn(found: Expected, size: NDArray[np.integer], weights: Floats, draws: int, dice: np.random.Generator
           ) -> Iterator[Sets]:
    """As many names as C_exp has, among those shown, without replacement, by weight (Gumbel keys, Yellott 1977)."""
    logs = np.where(found.shown, np.log(weights), -np.inf)
    for _ in range(draws):
        keys = logs + dice.gumbel(size=logs.shape)
        least = np.take_along_axis(-np.sort(-keys, axis=1), np.maximum(size - 1, 0)[:, None], axis=1)
        yield (keys >= least) & found.shown & (size > 0)[:, None]


def faithfulness(named: Mapping[str, Sequence[Sequence[str]]], found: Expected, drawn: Resamples, seed: int
                 ) -> pl.DataFrame:
    """Overlap of every arm against each control.

    Args:
        named: `named_by`.
        found: of the same stays.
        drawn: of the stays, for the intervals; there are as many draws of a control as resamples.

    Returns:
        `SCHEMA`: naming is the share of stays for which the arm names a feature, named how many where it does. An arm
        that names none has one row, without overlap. p_holm is corrected over the arms, for each control.
    """
    chosen = {arm: sets(rows, found.names) for arm, rows in named.items()}
    rows = {arm: _described(arm, held) for arm, held in chosen.items()}
    naming = {arm: held for arm, held in chosen.items() if held.any()}
    own = {arm: jaccard(held, found.own) for arm, held in naming.items()}
    told = [row for arm, row in rows.items() if arm not in naming]
    for control, draws in controls(found, len(drawn.counts), seed).items():
        means, stays = _against(naming, draws)
        told += [{**rows[arm], "control": control, **_compared(own[arm], stays[arm], means[arm], drawn)}
                 for arm in naming]
    frame = pl.DataFrame(told, schema={name: kind for name, kind in SCHEMA.items() if name != "p_holm"})
    holm = statistics.holm_by(frame["control"].to_list(), frame["p"].to_list())
    return _in_order(frame.with_columns(pl.Series("p_holm", holm, pl.Float64)), list(named))


def _described(arm: str, held: Sets) -> dict[str, Any]:
    counts = held.sum(axis=1)
    return {"arm": arm, "control": None, "stays": len(held), "naming": float((counts > 0).mean()),
            "named": float(counts[counts > 0].mean()) if counts.any() else None}


def _against(naming: Mapping[str, Sets], draws: Iterator[Sets]) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """For each arm the mean overlap of each draw (D,), and of each stay over the draws (n,)."""
    means: dict[str, list[float]] = {arm: [] for arm in naming}
    stays = {arm: np.zeros(len(held)) for arm, held in naming.items()}
    for other in draws:
        for arm, held in naming.items():
            overlap = jaccard(held, other)
            means[arm].append(float(overlap.mean()))
            stays[arm] += overlap
    return ({arm: np.array(values) for arm, values in means.items()},
            {arm: total / max(1, len(means[arm])) for arm, total in stays.items()})


def _compared(own: Floats, control: Floats, means: Floats, drawn: Resamples) -> dict[str, float]:
    gaps = own - control
    low, high = statistics.interval(drawn.counts @ gaps / drawn.counts.sum(axis=1))
    reached = int((means >= own.mean() - 1e-12).sum())
    return {"overlap": float(own.mean()), "control_overlap": float(control.mean()), "difference": float(gaps.mean()),
            "low": low, "high": high, "p": (1 + reached) / (1 + means.size)}


def _in_order(frame: pl.DataFrame, arms: Sequence[str]) -> pl.DataFrame:
    order = {arm: place for place, arm in enumerate(arms)}
    return frame.sort(pl.col("arm").replace_strict(order, return_dtype=pl.Int64), maintain_order=True)


def overlap_and_score(verdicts: pl.DataFrame, named: Mapping[str, Sequence[Sequence[str]]], found: Expected,
                      drawn: Resamples) -> pl.DataFrame:
    """Whether larger overlap goes with better prediction, for every arm and reading that overlaps at all.

    Better is a larger log score, the logarithm of the probability that the arm gave to what happened; the absolute
    error puts the stays of a label in the same order backwards, so its correlation is the same with the other sign.

    Returns:
        `OVERLAP`: rank correlation within the label, and the same given whether the answer could be read (an unreadable
        answer names nothing and predicts 0.5, which alone makes a correlation).
    """
    rows = []
    for arm, part in arms_of(verdicts).items():
        overlap = jaccard(sets(named[arm], found.names), found.own) if arm in named else np.zeros(1)
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
