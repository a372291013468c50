"""Whether the expert's attention can be trusted as clinical salience.

In: attention (N, F + 1) of N stays, static token last; the same of the other seeds; importances from elsewhere.
Out: the figures of health.json, and warnings where one passes a threshold stated here.

Peers found readouts that attend to one token, to all alike, or to the static token half the time; labels of salience
that come from such a readout teach a policy nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb
from typing import Any

import torch
from torch import Tensor

from models.expert.architectures import Model

TOP = 5
STAYS_PERTURBED = 512  # most stays whose importances are computed
ROWS_AT_ONCE = 2048  # perturbed stays in one pass of the mixer

COLLAPSED = 2.0  # effective tokens: fewer means that nearly all attention lies on one or two
UNIFORM = 0.9  # share of the known tokens that is effective: more means that nothing is told apart
STATIC_SHARE = 0.5  # of the attention on the static token: more means that the features hardly matter
UNSTABLE = 0.2  # Jaccard at 5 between seeds: less means that another seed names other features
CHANCE_FACTOR = 1.5  # agreement below this multiple of chance is none


def effective_tokens(attention: Tensor) -> Tensor:
    """(N,): exp of the entropy of attention (N, F + 1): 1 where one token has all, F + 1 where all are alike."""
    return torch.special.entr(attention.double()).sum(dim=1).exp()


def top_mask(scores: Tensor, count: int | Tensor = TOP) -> Tensor:
    """(N, F + 1) bool: the `count` largest scores of each row (one count, or (N,)) above 0; the first of equals.

    As in C_exp, a token without attention (never measured) is not among them: seeds would seem to agree on it.
    """
    ranks = scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return (ranks < (count if isinstance(count, int) else count.unsqueeze(1))) & (scores > 0)


def jaccard(one: Tensor, other: Tensor) -> Tensor:
    """(N,): size of the intersection over size of the union of masks (N, F + 1); 1 where both are empty."""
    union = (one | other).sum(dim=1)
    return torch.where(union > 0, (one & other).sum(dim=1) / union.clamp(min=1), 1.0)


def chance_jaccard(tokens: int, count: int = TOP) -> float:
    """Mean Jaccard of two random sets of `count` out of `tokens` tokens."""
    count = min(count, tokens)
    ways = [comb(count, shared) * comb(tokens - count, count - shared) for shared in range(count + 1)]
    return sum(way * shared / (2 * count - shared) for shared, way in enumerate(ways)) / comb(tokens, count)


def rank_correlation(one: Tensor, other: Tensor) -> Tensor:
    """(N,): Spearman's correlation of scores (N, F + 1), row by row; equals get the mean of their ranks."""
    first, second = _ranks(one), _ranks(other)
    first, second = first - first.mean(dim=1, keepdim=True), second - second.mean(dim=1, keepdim=True)
    scale = (first.square().sum(dim=1) * second.square().sum(dim=1)).sqrt()
    return torch.where(scale > 0, (first * second).sum(dim=1) / scale.clamp(min=1e-12), 0.0)


def _ranks(scores: Tensor) -> Tensor:
    ordered = scores.double().contiguous().sort(dim=1).values
    low = torch.searchsorted(ordered, scores.double().contiguous())
    high = torch.searchsorted(ordered, scores.double().contiguous(), right=True)
    return (low + high).double() / 2


def permutation_importance(model: Model, tokens: Tensor, known: Tensor, repeats: int, seed: int) -> Tensor:
    """How far each token moves the logit of each stay, if it were that of another patient.

    For each repeat the stays are shuffled once, and token f of a stay is exchanged for token f of its donor (the whole
    history of feature f in the donor's own time, or the donor's age and sex), one f at a time. The importance is the
    mean over repeats of the absolute change of the logit. It is per stay, as the attention is.

    Args:
        model: the expert, in evaluation mode.
        tokens: (N, F + 1, H), as `ConCare.tokens` returns them at the last visit.
        known: (N, F + 1).
        repeats: donors for each stay.
        seed: of the shuffles.

    Returns:
        (N, F + 1), in logits.
    """
    size, count, _ = tokens.shape
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(size, count)
    with torch.no_grad():
        base = model.mixer(tokens, known, None)[0]
        for _ in range(repeats):
            donors = torch.randperm(size, generator=generator)
            for pairs in torch.arange(size * count).split(ROWS_AT_ONCE):
                stay, token, row = pairs // count, pairs % count, torch.arange(len(pairs))
                changed, seen = tokens[stay], known[stay]
                changed[row, token], seen[row, token] = tokens[donors[stay], token], known[donors[stay], token]
                total.view(-1)[pairs] += (model.mixer(changed, seen, None)[0] - base[stay]).abs()
    return total / repeats


def shape_of(attention: Tensor, known: Tensor) -> dict[str, Any]:
    """Effective number of tokens (mean, quantiles, share of the known ones) and share of the static token."""
    effective = effective_tokens(attention)
    quantiles = effective.quantile(torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)).tolist()
    return {"effective_tokens": {"mean": float(effective.mean()),
                                 **dict(zip(("q05", "q50", "q95"), quantiles, strict=True)),
                                 "share_of_known": float((effective / known.sum(dim=1)).mean())},
            "static_share": {"mean": float(attention[:, -1].mean()), "max": float(attention[:, -1].max())}}


def stability(attentions: Sequence[Tensor]) -> dict[str, Any]:
    """Agreement of S seeds' attentions (N, F + 1), mean over pairs and stays; nothing but the count for one seed."""
    pairs = list(combinations(attentions, 2))
    if not pairs:
        return {"seeds": len(attentions)}
    return {"seeds": len(attentions),
            "jaccard_at_5": _mean([jaccard(top_mask(one), top_mask(other)) for one, other in pairs]),
            "rank_correlation": _mean([rank_correlation(one, other) for one, other in pairs])}


def agreement(attention: Tensor, importance: Tensor) -> dict[str, Any]:
    """Agreement of attention with importances (N, F + 1) of the same stays."""
    return {"stays": len(attention), "jaccard_at_5": _mean([jaccard(top_mask(attention), top_mask(importance))]),
            "rank_correlation": _mean([rank_correlation(attention, importance)]),
            "chance_jaccard_at_5": chance_jaccard(attention.shape[1])}


def truth_agreement(attention: Tensor, effects: Tensor) -> dict[str, Any]:
    """Agreement with the planted truth (N, F + 1): effects in logits, 0 where a token has none.

    A stay with k < 5 planted tokens is compared at k; one without any is left out.
    """
    planted = (effects != 0).sum(dim=1)
    rows = planted > 0
    counts = planted[rows].clamp(max=TOP)
    found = top_mask(attention[rows], counts)
    wanted = top_mask(effects[rows].abs(), counts)
    chances = [chance_jaccard(attention.shape[1], int(count)) for count in counts]
    return {"stays": int(rows.sum()), "jaccard_at_5": _mean([jaccard(found, wanted)]),
            "chance_jaccard_at_5": sum(chances) / max(1, len(chances))}


def warnings(report: dict[str, Any]) -> list[str]:
    """What is wrong with the attention, in words, each with its figure and its threshold."""
    shape, static = report["effective_tokens"], report["static_share"]["mean"]
    checks = [
        (shape["mean"] < COLLAPSED, f"attention collapses: {shape['mean']:.1f} effective tokens (below {COLLAPSED})"),
        (shape["share_of_known"] > UNIFORM, f"attention is nearly uniform: {shape['share_of_known']:.0%} of the known "
                                            f"tokens are effective (above {UNIFORM:.0%})"),
        (static > STATIC_SHARE, f"the static token takes {static:.0%} of the attention (above {STATIC_SHARE:.0%})"),
    ]
    between = report["stability"].get("jaccard_at_5")
    if between is not None:
        checks.append((between < UNSTABLE, f"seeds attend to different features: Jaccard at 5 {between:.2f} "
                                           f"(below {UNSTABLE})"))
    for name, words in (("permutation", "permutation importance"), ("truth", "the planted truth")):
        if name in report:
            found, floor = report[name]["jaccard_at_5"], CHANCE_FACTOR * report[name]["chance_jaccard_at_5"]
            checks.append((found < floor, f"attention hardly agrees with {words}: Jaccard at 5 {found:.2f} "
                                          f"(below {CHANCE_FACTOR} times chance, {floor:.2f})"))
    return [text for wrong, text in checks if wrong]


def _mean(rows: Sequence[Tensor]) -> float:
    return float(torch.cat([row.double() for row in rows]).mean())
