"""The GRU with attention: causal, blind to padding and masked values, and trained, saved and read as ConCare is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch

from configs.schema import Expert
from models.expert.architectures import make_model
from models.expert.attention import attention_by_visit
from models.expert.batches import Batch
from models.expert.gru import AttentionGru
from models.expert.health import permutation_importance
from models.expert.loading import ExpertModel, load_weights, read, save_weights
from models.expert.training import fit
from support.expert_cohort import changed_from, padded, random_batch

SECTION = Expert(architecture="gru", hidden=8, heads=2, feed_forward=12, dropout=0.5, epochs=30, lr=0.02)


@pytest.fixture
def model() -> AttentionGru:
    torch.manual_seed(0)
    made = make_model(4, SECTION)
    assert isinstance(made, AttentionGru)
    return made.eval()


def test_a_later_visit_never_changes_an_earlier_reading(model: AttentionGru) -> None:
    batch = random_batch()
    before, after = model(batch), model(changed_from(batch, 3))
    torch.testing.assert_close(after.logits[:, :3], before.logits[:, :3])
    torch.testing.assert_close(after.attention[:, :3], before.attention[:, :3])
    assert not torch.allclose(after.logits[0, 3:], before.logits[0, 3:])


def test_padding_masked_values_and_company_do_not_matter(model: AttentionGru) -> None:
    batch = random_batch()
    risk, attention = read(model, batch)
    longer = padded(batch, 3)
    noisy = replace(batch, values=torch.where(batch.mask, batch.values, 7.0))
    for other in (longer, noisy):
        torch.testing.assert_close(read(model, other)[0], risk)
    for row in range(len(batch)):
        torch.testing.assert_close(read(model, batch.select(torch.tensor([row])))[1], attention[[row]])


def test_attention_sums_to_one_and_passes_over_what_was_never_observed(model: AttentionGru) -> None:
    batch = random_batch()
    mask = batch.mask.clone()
    mask[:, :, 2] = False
    _, attention = read(model, replace(batch, mask=mask))
    assert attention[:, 2].abs().max() == 0.0
    torch.testing.assert_close(attention.sum(dim=1), torch.ones(5))


def test_values_and_gaps_between_visits_matter(model: AttentionGru) -> None:
    batch = random_batch()
    moved = replace(batch, values=torch.where(batch.mask, batch.values + 1.0, batch.values))
    assert not torch.allclose(read(model, moved)[0], read(model, batch)[0])
    assert not torch.allclose(read(model, replace(batch, days=batch.days * 10.0))[0], read(model, batch)[0])


def test_its_attention_at_each_visit_is_written_without_weights_over_visits(model: AttentionGru) -> None:
    batch = random_batch()
    features = tuple(f"feature {number}" for number in range(batch.values.shape[2]))
    expert = ExpertModel(model.eval(), features, "small", {}, SECTION)
    frame = attention_by_visit(expert, batch, [f"stay {number}" for number in range(len(batch))])
    assert frame["weight"].null_count() == frame.height == int((batch.last + 1).sum()) * (len(features) + 1)
    sums = frame.group_by("stay_id", "visit").agg(pl.col("attention").sum())["attention"]
    assert ((sums - 1.0).abs() < 1e-5).all()


def test_it_learns_what_one_feature_tells_and_attends_to_it(tmp_path: Path) -> None:
    torch.manual_seed(1)
    stays = 200
    values = torch.randn(stays, 3, 4)
    labels = (values[:, -1, 1] > 0).float()
    batch = Batch(values, torch.ones(stays, 3, 4, dtype=torch.bool), torch.arange(3.0).expand(stays, -1),
                  torch.ones(stays, 3, dtype=torch.bool), torch.zeros(stays, 2), labels)
    section = SECTION.model_copy(update={"dropout": 0.0})
    trained = fit(batch.select(torch.arange(150)), batch.select(torch.arange(150, 200)), section, seed=0)
    risk, _ = read(trained.model, batch)
    assert ((risk > 0.5).float() == labels).float().mean() > 0.9
    tokens, known = trained.model.tokens(batch, batch.last.unsqueeze(1))
    importance = permutation_importance(trained.model, tokens[:, 0], known[:, 0], repeats=2, seed=0)
    assert int(importance.mean(dim=0).argmax()) == 1
    save_weights(trained.model, tmp_path / "w.safetensors")
    again = load_weights(tmp_path / "w.safetensors", 4, section)
    torch.testing.assert_close(read(again, batch)[0], risk)
