"""Failure signatures of reinforcement learning, seen in the progress of a training (EAG-RL; method section 7).

The item is one warning: what was seen and what to do about it. In: the steps of `progress.jsonl`. Out: warnings for
done.json. A trend counts only where it exceeds both a smallest size and twice its standard error over rollout batches.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from configs.schema import Grpo
from models.progress import Progress

# The last quarter of the rollout batches is held against the first; each has at least two, so that they have a spread.
QUARTERS, FEWEST = 4, 2
# Share of its first entropy [nats per token] below which a policy has collapsed.
ENTROPY_LEFT = 0.3
LOWEST_ATTENTION_REWARD = 0.3
# Smallest change of a mean reward that counts.
SMALLEST_TREND = 0.01

Warned = dict[str, str]


def warnings_of(steps: Sequence[Progress], section: Grpo, weight: float) -> list[Warned]:
    """Entropy collapse, an R_att that stays low, and reward hacking.

    Args:
        steps: of one training, in order; metrics entropy, attention_reward and outcome_reward are read.
        section: how many optimiser steps a rollout batch takes, and which upper bound clips.
        weight: lambda; with 1 nothing rewards R_att, which is then not judged.

    Returns:
        Entries {"signature", "seen", "remedy"}; none where there are too few rollout batches to tell.
    """
    batches = [step.metrics for step in steps if (step.step - 1) % section.steps_per_batch == 0]
    if len(batches) < 2 * FEWEST:
        return []
    size = max(FEWEST, len(batches) // QUARTERS)
    first, last = batches[:size], batches[-size:]
    found = [_collapse(first, last, section)]
    if weight < 1:
        found += [_low_attention(last), _hacking(first, last, weight)]
    return [warning for warning in found if warning is not None]


def _collapse(first: Sequence[dict[str, float]], last: Sequence[dict[str, float]], section: Grpo) -> Warned | None:
    before, after = _values(first, "entropy"), _values(last, "entropy")
    if not before or not after or statistics.mean(after) >= ENTROPY_LEFT * statistics.mean(before):
        return None
    bound = "clip_max" if section.entropy_clip else "clip_min"
    return {"signature": "entropy collapse",
            "seen": f"entropy fell from {statistics.mean(before):.3g} to {statistics.mean(after):.3g} nats per token: "
                    "the rollouts of a prompt are becoming the same",
            "remedy": f"raise policy.grpo.{bound} (now {getattr(section, bound)}) or policy.grpo.kl, or lower "
                      "policy.grpo.lr"}


def _low_attention(last: Sequence[dict[str, float]]) -> Warned | None:
    values = _values(last, "attention_reward")
    if not values or statistics.mean(values) >= LOWEST_ATTENTION_REWARD:
        return None
    return {"signature": "low attention reward",
            "seen": f"R_att is {statistics.mean(values):.3g} at the end, below {LOWEST_ATTENTION_REWARD}",
            "remedy": "check that the prompts name the features as the expert's readings do (same cohort, same "
                      "catalogue) and that parse_rate is high"}


def _hacking(first: Sequence[dict[str, float]], last: Sequence[dict[str, float]], weight: float) -> Warned | None:
    attention, outcome = (_trend(_values(first, name), _values(last, name))
                          for name in ("attention_reward", "outcome_reward"))
    if attention is None or outcome is None or attention <= 0 or outcome >= 0:
        return None
    return {"signature": "reward hacking",
            "seen": f"R_att rose by {attention:.3g} while R_cls fell by {-outcome:.3g}",
            "remedy": f"raise rewards.weight (now {weight:g}) to {_higher(weight)}, or policy.grpo.reward_weight for "
                      "stage 2 alone"}


def _higher(weight: float) -> str:
    return "0.7 to 0.8" if weight < 0.7 else f"{(1 + weight) / 2:.2g}"


def _trend(before: Sequence[float], after: Sequence[float]) -> float | None:
    """Change of the mean; 0 where it is within chance, None where it cannot be told."""
    if len(before) < FEWEST or len(after) < FEWEST:
        return None
    change = statistics.mean(after) - statistics.mean(before)
    error = math.sqrt(statistics.variance(before) / len(before) + statistics.variance(after) / len(after))
    return change if abs(change) > max(SMALLEST_TREND, 2 * error) else 0.0


def _values(batches: Sequence[dict[str, float]], name: str) -> list[float]:
    return [row[name] for row in batches if name in row]
