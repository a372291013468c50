"""ConCare: causal, blind to padding and to masked values, equal to a loop over features and prefixes."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from configs.schema import Expert
from models.expert import concare
from models.expert.batches import Batch
from models.expert.concare import ConCare, decov
from models.expert.loading import read
from support.expert_cohort import changed_from, padded, random_batch

SECTION = Expert(hidden=8, heads=2, time_rank=3, feed_forward=12, dropout=0.5)


@pytest.fixture
def model() -> ConCare:
    torch.manual_seed(0)
    return ConCare(4, SECTION).eval()


def _benchmark() -> object:
    path = Path(__file__).parents[3] / "benchmarks" / "concare.py"
    spec = importlib.util.spec_from_file_location("concare_benchmark", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


def test_one_causal_pass_equals_a_loop_over_features_and_prefixes(model: ConCare) -> None:
    batch, loop = random_batch(), _benchmark()
    theirs = loop.loop_over_prefixes(model, loop.feature_grus(model), batch)  # type: ignore[attr-defined]
    torch.testing.assert_close(model(batch).logits[batch.steps], theirs[batch.steps], atol=1e-5, rtol=1e-5)


def test_chunks_give_the_same_readings_and_gradients(model: ConCare, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = random_batch(stays=7)
    whole = model(batch, decorrelate=True)
    (whole.logits[batch.steps].sum() + whole.decov).backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    monkeypatch.setattr(concare, "CHUNK", 1)
    parts = model(batch, decorrelate=True)
    (parts.logits[batch.steps].sum() + parts.decov).backward()
    torch.testing.assert_close(parts.logits, whole.logits)
    torch.testing.assert_close(parts.attention, whole.attention)
    torch.testing.assert_close(parts.decov, whole.decov)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], msg=name, atol=1e-5, rtol=1e-4)


def test_a_later_visit_never_changes_an_earlier_reading(model: ConCare) -> None:
    batch = random_batch()
    before, after = model(batch), model(changed_from(batch, 3))
    torch.testing.assert_close(after.logits[:, :3], before.logits[:, :3])
    torch.testing.assert_close(after.attention[:, :3], before.attention[:, :3])
    assert not torch.allclose(after.logits[0, 3:], before.logits[0, 3:])


def test_a_value_under_the_mask_does_not_matter(model: ConCare) -> None:
    batch = random_batch()
    noisy = replace(batch, values=torch.where(batch.mask, batch.values, 7.0))
    torch.testing.assert_close(model(noisy).logits, model(batch).logits)


def test_an_observed_value_does_matter(model: ConCare) -> None:
    batch = random_batch()
    moved = replace(batch, values=torch.where(batch.mask, batch.values + 1.0, batch.values))
    assert not torch.allclose(read(model, moved)[0], read(model, batch)[0])


def test_padding_does_not_matter(model: ConCare) -> None:
    batch = random_batch()
    longer = padded(batch, 3)
    for ours, theirs in zip(read(model, batch), read(model, longer), strict=True):
        torch.testing.assert_close(theirs, ours)


def test_a_batch_of_one_reads_as_it_does_among_others(model: ConCare) -> None:
    batch = random_batch()
    risk, attention = read(model, batch)
    for row in range(len(batch)):
        alone = read(model, batch.select(torch.tensor([row])))
        torch.testing.assert_close(alone[0], risk[[row]])
        torch.testing.assert_close(alone[1], attention[[row]])


def test_the_readings_asked_for_are_those_of_the_full_pass(model: ConCare) -> None:
    batch = random_batch()
    visits = torch.stack([torch.zeros_like(batch.last), batch.last], dim=1)
    torch.testing.assert_close(model(batch, visits).logits, model(batch).logits.gather(1, visits))


def test_elapsed_days_count_and_not_steps(model: ConCare) -> None:
    batch = random_batch()
    spread = replace(batch, days=batch.days * 10.0)
    moved = replace(batch, days=batch.days + 100.0)
    assert not torch.allclose(read(model, spread)[0][0], read(model, batch)[0][0])
    torch.testing.assert_close(read(model, moved)[0], read(model, batch)[0])


def test_an_older_visit_weighs_less_than_a_recent_one_of_equal_content(model: ConCare) -> None:
    steady = Batch(torch.zeros(1, 3, 4), torch.ones(1, 3, 4, dtype=torch.bool), torch.tensor([[0.0, 9.0, 10.0]]),
                   torch.ones(1, 3, dtype=torch.bool), torch.zeros(1, 2), torch.zeros(1))
    torch.nn.init.zeros_(model.time_attention.key)  # equal scores, so that only the decay is left
    weights = model(steady, over_visits=True).over_visits[0, -1]
    assert bool((weights[:, 0] < weights[:, 1]).all()) and bool((weights[:, 1] < weights[:, 2]).all())


def test_attention_and_time_attention_sum_to_one(model: ConCare) -> None:
    batch = random_batch()
    reading = model(batch, over_visits=True)
    torch.testing.assert_close(reading.attention.sum(dim=2), torch.ones(5, 6))
    torch.testing.assert_close(reading.over_visits.sum(dim=3), torch.ones(5, 6, 4))


def test_a_feature_never_observed_gets_no_attention(model: ConCare) -> None:
    batch = random_batch()
    mask = batch.mask.clone()
    mask[:, :, 2] = False
    _, attention = read(model, replace(batch, mask=mask))
    assert attention[:, 2].abs().max() == 0.0
    torch.testing.assert_close(attention.sum(dim=1), torch.ones(5))


def test_a_stay_without_any_value_still_reads(model: ConCare) -> None:
    batch = random_batch()
    risk, attention = read(model, replace(batch, mask=torch.zeros_like(batch.mask)))
    assert bool(torch.isfinite(risk).all())
    torch.testing.assert_close(attention[:, -1], torch.ones(5))


def test_dropout_acts_in_training_alone(model: ConCare) -> None:
    batch = random_batch()
    torch.testing.assert_close(model(batch).logits, model(batch).logits)
    model.train()
    assert not torch.allclose(model(batch).logits, model(batch).logits)


def test_both_layer_norms_act(model: ConCare) -> None:
    batch = random_batch()
    before = read(model, batch)[0]
    for norm in (model.mixer.norm_attention, model.mixer.norm_forward):
        with torch.no_grad():
            norm.weight.mul_(2.0)
        after = read(model, batch)[0]
        assert not torch.allclose(after, before)
        before = after


def test_every_parameter_gets_a_gradient(model: ConCare) -> None:
    reading = model(random_batch(), decorrelate=True)
    (reading.logits.square().sum() + reading.decov).backward()
    without = {name for name, parameter in model.named_parameters() if not bool(parameter.grad.abs().sum() > 0)}
    # Adding one number to all scores of a softmax changes nothing: these biases have no effect, by construction.
    assert without <= {"mixer.read_key.bias"}


def _moments(heads: torch.Tensor) -> torch.Tensor:
    return concare._moments(heads, torch.ones(len(heads), dtype=torch.bool))


def test_decov_is_the_covariance_over_visits_off_the_diagonal() -> None:
    heads = torch.randn(50, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    heads[:, :, 1] += heads[:, :, 0]
    covariances = [torch.cov(heads[:, token].T) for token in range(3)]
    expected = sum(0.5 * (matrix.square().sum() - matrix.diag().square().sum()) for matrix in covariances) / 3
    torch.testing.assert_close(decov(_moments(heads), 50), expected)


def test_decov_vanishes_for_independent_heads_and_pushes_dependent_ones_apart() -> None:
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]).unsqueeze(1)
    torch.testing.assert_close(decov(_moments(signs), 4), torch.tensor(0.0))
    alike = signs[..., [0, 0]].clone().requires_grad_()
    penalty = decov(_moments(alike), 4)
    penalty.backward()
    assert penalty > 0.5 and bool((alike.grad.sign() == alike.detach().sign()).all())


def test_decov_of_one_visit_is_zero(model: ConCare) -> None:
    single = random_batch(stays=1)
    assert model(single, single.last.unsqueeze(1), decorrelate=True).decov == 0.0
