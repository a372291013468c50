"""Entropy-aware upper clip bounds of GRPO as pure tensor functions (EAG-RL, stage 2; method section 7).

The item is one trajectory tau of a group of G that share a prompt. In: entropies of the old policy at its T completion
tokens, and which of them lie in a mention of a clinical feature. Out: e(tau), how far the importance ratio may rise.

    Hbar   = mean of H_t over the key clinical tokens of tau
    e(tau) = e_min + (e_max - e_min) * (Hbar - H_min) / (H_max - H_min)      H_min, H_max over the group
    phi(r) = max(1 - e, min(r, 1 + e(tau)))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from models.policy.spelling import Speller

# Groups whose entropies differ by less than float noise count as equal [nats].
SAME_ENTROPY = 1e-6


class Mentioned(Protocol):
    """A mention of a feature in a text: characters [start, end)."""

    @property
    def start(self) -> int: ...

    @property
    def end(self) -> int: ...


class FindMentions(Protocol):
    """Finds feature mentions in a text; implemented by prompts.mentions.MentionFinder."""

    def find(self, text: str) -> Sequence[Mentioned]: ...


def upper_bounds(mean_entropy: Tensor, group_size: int, low: float = 0.2, high: float = 0.4) -> Tensor:
    """e(tau) of every trajectory.

    Args:
        mean_entropy: Hbar (B,) [nats]; NaN where a trajectory has no clinical token. Groups stand together.
        group_size: G; divides B.
        low, high: e_min and e_max.

    Returns:
        (B,) in [low, high], without gradient. `low` where Hbar is NaN (left out of H_min and H_max) and for a whole
        group whose entropies are all equal.

    Raises:
        ValueError: B is no multiple of G.
    """
    if mean_entropy.dim() != 1 or mean_entropy.numel() % group_size:
        raise ValueError(f"mean_entropy of shape {tuple(mean_entropy.shape)} does not hold groups of {group_size}")
    grouped = mean_entropy.detach().float().view(-1, group_size)
    absent = grouped.isnan()
    smallest = grouped.masked_fill(absent, torch.inf).amin(dim=1, keepdim=True)
    largest = grouped.masked_fill(absent, -torch.inf).amax(dim=1, keepdim=True)
    spread = largest - smallest
    share = (grouped - smallest) / spread
    flat = absent | (spread <= SAME_ENTROPY)
    return (low + (high - low) * share.masked_fill(flat, 0.0)).clamp(low, high).view(-1)


def mention_token_mask(completions: Sequence[Sequence[int]], speller: Speller, finder: FindMentions,
                       width: int | None = None) -> Tensor:
    """Key clinical tokens: those with a character in a mention of a dataset feature, anywhere in the completion.

    Args:
        completions: B lists of token ids, unpadded.
        width: T; none: the longest completion.

    Returns:
        (B, T) bool, False over padding.
    """
    width = max((len(ids) for ids in completions), default=0) if width is None else width
    mask = torch.zeros(len(completions), width, dtype=torch.bool)
    for row, ids in enumerate(completions):
        text, spans = speller.spell(ids)
        covered = _covered(text, finder)
        for column, (start, end) in enumerate(spans):
            mask[row, column] = covered[end] > covered[start]
    return mask


def mean_mention_entropy(entropies: Tensor, mask: Tensor) -> Tensor:
    """Hbar: mean entropy over the masked tokens.

    Args:
        entropies: H_t (B, T) [nats] under the old policy.
        mask: (B, T) bool, the key clinical tokens.

    Returns:
        (B,) [nats], NaN where a row has no such token; without gradient.
    """
    chosen = entropies.detach().float().masked_fill(~mask, 0.0)
    count = mask.sum(dim=1)
    return torch.where(count > 0, chosen.sum(dim=1) / count.clamp(min=1), torch.nan)


def clipped(ratio: Tensor, advantages: Tensor, mask: Tensor, low: float, bounds: Tensor) -> tuple[Tensor, Tensor]:
    """Which tokens the clip takes out of the gradient: below where A < 0, above where A > 0.

    Args:
        ratio: r_t (B, T). advantages: A (B,). mask: (B, T), completion tokens.
        low: e. bounds: e(tau) (B,).

    Returns:
        (below, above), each (B, T) bool.
    """
    sign, real = advantages.view(-1, 1), mask.bool()
    return (ratio < 1 - low) & (sign < 0) & real, (ratio > 1 + bounds.view(-1, 1)) & (sign > 0) & real


def _covered(text: str, finder: FindMentions) -> list[int]:
    """How many characters before each position lie in a mention, len(text) + 1 numbers."""
    inside = bytearray(len(text))
    for mention in finder.find(text):
        inside[mention.start:mention.end] = b"\1" * (min(mention.end, len(text)) - mention.start)
    counts = [0]
    for flag in inside:
        counts.append(counts[-1] + flag)
    return counts
