"""The harvest: the k best distinct trajectories of each patient, as a frame, and what the search was like, as numbers.

In: `Grown` records, one a patient. Out: a frame of contract TRAJECTORIES; statistics.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from contracts.frames import TRAJECTORIES
from search.wording import same

_BINS = 10


@dataclass(frozen=True)
class Trajectory:
    """What one rollout ended in.

    Attributes:
        rollout: its number, from 0.
        reward, outcome_reward, attention_reward: R, R_cls, R_att.
        features: canonical names, as the reward read them.
        depth: subquestions, the final one included.
        well_formed: whether the grammar's parser accepts the text.
        revisit: an earlier rollout ended in the same node.
    """

    rollout: int
    text: str
    reward: float
    outcome_reward: float
    attention_reward: float
    probability: float
    features: tuple[str, ...]
    depth: int
    well_formed: bool
    revisit: bool


@dataclass(frozen=True)
class Grown:
    """One patient's finished search.

    Attributes:
        tree: search.tree.as_json of the root.
        calls: requests by kind; faults: see search.asking.Tally.
    """

    stay_id: str
    trajectories: tuple[Trajectory, ...]
    tree: dict[str, Any]
    calls: dict[str, int]
    faults: dict[str, int]
    prompt_tokens: int
    completion_tokens: int


def best(trajectories: Sequence[Trajectory], keep: int) -> list[Trajectory]:
    """The `keep` best distinct trajectories: higher R first, equal ones in rollout order.

    Two are the same if their texts are, case, blanks and punctuation aside; the earlier one stays.
    """
    distinct: dict[str, Trajectory] = {}
    for trajectory in sorted(trajectories, key=lambda one: one.rollout):
        distinct.setdefault(same(trajectory.text), trajectory)
    return sorted(distinct.values(), key=lambda one: (-one.reward, one.rollout))[:keep]


def harvest(grown: Sequence[Grown], keep: int) -> pl.DataFrame:
    """The k best trajectories of every patient, rank 1 first; contract TRAJECTORIES, patients in the given order."""
    rows = [{"stay_id": patient.stay_id, "rank": rank, "text": one.text, "reward": one.reward,
             "outcome_reward": one.outcome_reward, "attention_reward": one.attention_reward,
             "probability": one.probability, "features": list(one.features), "depth": one.depth,
             "rollout": one.rollout}
            for patient in grown for rank, one in enumerate(best(patient.trajectories, keep), start=1)]
    return TRAJECTORIES.check(pl.DataFrame(rows, schema=dict(TRAJECTORIES.dtypes)))


def statistics(grown: Sequence[Grown], keep: int) -> dict[str, float]:
    """What the search was like, over all patients: rewards before and after best-of-k, form, spread and cost.

    `reward_all` and its parts are means over all rollouts, `reward_kept` over the harvest; `probability_entropy` is
    that of the stated probabilities of all rollouts in ten equal bins [nat, at most ln 10]: near 0 the policy says one
    number to everybody. `calls_*` and `fault_*` are sums.
    """
    rollouts = [one for patient in grown for one in patient.trajectories]
    kept = [one for patient in grown for one in best(patient.trajectories, keep)]
    calls, faults = Counter[str](), Counter[str]()
    for patient in grown:
        calls.update(patient.calls)
        faults.update(patient.faults)
    return {
        "patients": len(grown), "rollouts": len(rollouts), "kept": len(kept),
        **{f"{part}_{name}": _mean([getattr(one, part) for one in group]) for name, group in
           (("all", rollouts), ("kept", kept)) for part in ("reward", "outcome_reward", "attention_reward")},
        "well_formed": _mean([float(one.well_formed) for one in rollouts]),
        "distinct": _mean([len(best(one.trajectories, len(one.trajectories))) / len(one.trajectories)
                           for one in grown if one.trajectories]),
        "revisits": _mean([float(one.revisit) for one in rollouts]),
        "depth": _mean([float(one.depth) for one in rollouts]),
        "probability_entropy": _entropy([one.probability for one in rollouts]),
        "prompt_tokens": sum(one.prompt_tokens for one in grown),
        "completion_tokens": sum(one.completion_tokens for one in grown),
        "calls": calls.total(), "calls_per_patient": calls.total() / len(grown) if grown else 0.0,
        **{f"calls_{kind}": count for kind, count in sorted(calls.items())},
        **{f"fault_{kind}": count for kind, count in sorted(faults.items())}}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _entropy(probabilities: Sequence[float]) -> float:
    bins = Counter(min(int(probability * _BINS), _BINS - 1) for probability in probabilities)
    shares = [count / len(probabilities) for count in bins.values()]
    return -sum(share * math.log(share) for share in shares) + 0.0
