"""Figures of the attention's health against values known by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy.stats import spearmanr

from configs.schema import Expert
from models.expert import health
from models.expert.concare import ConCare
from support.expert_cohort import random_batch


def test_effective_tokens_counts_equal_weights() -> None:
    weights = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]])
    torch.testing.assert_close(health.effective_tokens(weights), torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64))


def test_jaccard_of_the_largest_scores() -> None:
    one, other = torch.tensor([[4.0, 3.0, 2.0, 1.0]]), torch.tensor([[4.0, 1.0, 2.0, 3.0]])
    found = health.jaccard(health.top_mask(one, 2), health.top_mask(other, 2))
    assert found.item() == pytest.approx(1 / 3)


def test_jaccard_by_chance_is_what_random_sets_have() -> None:
    made = torch.Generator().manual_seed(0)
    one, other = torch.rand(20_000, 18, generator=made), torch.rand(20_000, 18, generator=made)
    measured = health.jaccard(health.top_mask(one), health.top_mask(other)).mean().item()
    assert health.chance_jaccard(18) == pytest.approx(measured, abs=0.005)


def test_rank_correlation_is_that_of_scipy() -> None:
    made = torch.Generator().manual_seed(1)
    one, other = (torch.randint(0, 6, (7, 12), generator=made).float() for _ in range(2))
    expected = [float(spearmanr(one[row], other[row]).statistic) for row in range(7)]
    assert health.rank_correlation(one, other).tolist() == pytest.approx(expected, abs=1e-9)


def test_permutation_importance_is_zero_for_a_token_the_logit_ignores() -> None:
    torch.manual_seed(0)
    model = ConCare(4, Expert(hidden=8, heads=2, feed_forward=12)).eval()
    batch = random_batch(stays=9)
    tokens, known = (part[:, 0].detach() for part in model.tokens(batch, batch.last.unsqueeze(1)))
    tokens[:, 2] = 0.3  # the same for all donors
    known[:, 2] = True
    importance = health.permutation_importance(model, tokens, known, 3, seed=0)
    assert importance[:, 2].abs().max() < 1e-5
    assert importance[:, [0, 1, 3]].mean() > 1e-4


def test_permutation_importance_is_the_change_that_one_exchange_makes() -> None:
    torch.manual_seed(0)
    model = ConCare(4, Expert(hidden=8, heads=2, feed_forward=12)).eval()
    batch = random_batch(stays=6)
    tokens, known = (part[:, 0].detach() for part in model.tokens(batch, batch.last.unsqueeze(1)))
    donors = torch.randperm(6, generator=torch.Generator().manual_seed(4))
    changed, seen = tokens[[3]].clone(), known[[3]].clone()
    changed[0, 1], seen[0, 1] = tokens[donors[3], 1], known[donors[3], 1]
    expected = (model.mixer(changed, seen, None)[0] - model.mixer(tokens[[3]], known[[3]], None)[0]).abs().item()
    importance = health.permutation_importance(model, tokens, known, 1, seed=4)
    assert importance[3, 1].item() == pytest.approx(expected, abs=1e-6)


def test_truth_is_compared_at_the_number_of_planted_tokens() -> None:
    attention = torch.tensor([[0.5, 0.3, 0.1, 0.1], [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]])
    effects = torch.tensor([[2.0, -1.0, 0.0, 0.0], [3.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    found = health.truth_agreement(attention, effects)
    assert found["stays"] == 2 and found["jaccard_at_5"] == pytest.approx(0.5)


def _report(**changes: Any) -> dict[str, Any]:
    report = {"effective_tokens": {"mean": 6.0, "share_of_known": 0.4}, "static_share": {"mean": 0.1},
              "stability": {"seeds": 3, "jaccard_at_5": 0.5},
              "permutation": {"jaccard_at_5": 0.4, "chance_jaccard_at_5": 0.17}}
    return {**report, **changes}


@pytest.mark.parametrize(("changes", "words"), [
    ({"effective_tokens": {"mean": 1.2, "share_of_known": 0.1}}, "collapses"),
    ({"effective_tokens": {"mean": 17.9, "share_of_known": 0.99}}, "nearly uniform"),
    ({"static_share": {"mean": 0.7}}, "static token"),
    ({"stability": {"seeds": 2, "jaccard_at_5": 0.05}}, "seeds attend to different"),
    ({"permutation": {"jaccard_at_5": 0.2, "chance_jaccard_at_5": 0.17}}, "permutation importance"),
    ({"truth": {"jaccard_at_5": 0.1, "chance_jaccard_at_5": 0.17}}, "planted truth"),
])
def test_each_degeneracy_has_its_warning(changes: dict[str, Any], words: str) -> None:
    assert health.warnings(_report()) == []
    found = health.warnings(_report(**changes))
    assert len(found) == 1 and words in found[0]


def test_tokens_without_attention_are_no_agreement() -> None:
    one, other = torch.tensor([[0.0, 0.0, 0.7, 0.3]]), torch.tensor([[0.0, 0.6, 0.0, 0.4]])
    assert health.top_mask(one, 3).tolist() == [[False, False, True, True]]
    assert health.jaccard(health.top_mask(one, 3), health.top_mask(other, 3)).item() == pytest.approx(1 / 3)
