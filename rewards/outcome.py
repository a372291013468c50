"""R_cls: how good a stated probability is, given what happened. In: probability and label; out: one number."""

from __future__ import annotations

import math

from contracts.errors import ContractError

FLOOR, CEILING, THRESHOLD = 0.01, 0.99, 0.5


def outcome_reward(probability: float | None, label: int, beta: float = 1.0) -> float:
    """R_cls = log(y p + (1 - y)(1 - p)) + Delta, with p clamped to [0.01, 0.99] (EAG-RL; method section 5).

    Delta = beta (p - 0.5) if y = 1 and p > 0.5; beta (0.5 - p) if y = 0 and p < 0.5; else 0.

    Args:
        probability: predicted probability of y = 1; None where the answer could not be read: log 0.01, no Delta.
        label: y, 0 or 1.
        beta: scale of the bonus.

    Returns:
        A number from log 0.01 to log 0.99 + 0.49 beta [nats].

    Raises:
        ContractError: the label is neither 0 nor 1, or the probability is not a number.
    """
    if label not in (0, 1):
        raise ContractError(f"label {label!r}", "a label is 0 or 1", "look at the label column of the stays")
    if probability is None:
        return math.log(FLOOR)
    if math.isnan(probability):
        raise ContractError("probability nan", "a number, or None where the answer could not be read",
                            "read answers with prompts.grammar.parse")
    clamped = min(max(probability, FLOOR), CEILING)
    likelihood = clamped if label else 1.0 - clamped
    return math.log(likelihood) + beta * max(likelihood - THRESHOLD, 0.0)
