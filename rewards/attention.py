"""R_att: how well the features that an answer names agree with the expert's. In: two sets of names; out: one number."""

from __future__ import annotations

from collections.abc import Iterable


def attention_reward(features: Iterable[str], expert_features: Iterable[str]) -> float:
    """R_att = |C n C_exp| / |C u C_exp|, the Jaccard index (EAG-RL; method section 5).

    Order and repetition do not matter. Names are compared as they are: map free text to canonical names first
    (`prompts.mentions.MentionFinder.canonical_names`). Two empty sets agree on nothing: 0.

    Args:
        features: C, the names in the answer.
        expert_features: C_exp, the names of the expert's features.

    Returns:
        A number from 0 to 1.

    Raises:
        TypeError: one of the two is a single string, whose letters would be taken for names.
    """
    if isinstance(features, str) or isinstance(expert_features, str):
        raise TypeError("attention_reward takes iterables of names, not one string; wrap it in a list")
    named, expected = set(features), set(expert_features)
    union = named | expected
    return len(named & expected) / len(union) if union else 0.0
