"""Seeded draws follow the probabilities, hang on the request's own generator alone, and stay in what is allowed."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from scipy.stats import chisquare

from serving import sampling_cpu
from serving.sampling_cpu import BLOCK, drawn


def generators(*seeds: int) -> dict[int, torch.Generator]:
    return {row: torch.Generator().manual_seed(seed) for row, seed in enumerate(seeds)}


@pytest.mark.slow
@pytest.mark.parametrize("words", [5, BLOCK, BLOCK + 1, 3 * BLOCK + 7])
def test_draws_follow_the_probabilities(words: int) -> None:
    torch.manual_seed(1)
    logits = torch.randn(words) * 1.5
    mine = generators(7)
    found = torch.cat([drawn(logits.unsqueeze(0), mine) for _ in range(20_000)])
    expected = logits.double().softmax(dim=0) * 20_000
    often = expected >= 5
    counts = torch.bincount(found, minlength=words).double()
    seen = [*counts[often].tolist(), float(counts[~often].sum())]
    wanted = [*expected[often].tolist(), float(expected[~often].sum())]
    pairs = [(one, other) for one, other in zip(seen, wanted, strict=True) if other > 0]
    assert chisquare([one for one, _ in pairs], [other for _, other in pairs]).pvalue > 1e-4


def test_a_seed_gives_the_same_tokens_whatever_else_is_in_the_batch() -> None:
    torch.manual_seed(2)
    logits = torch.randn(6, 1000)
    whole, mine = generators(*range(6)), generators(*range(6))
    together = [drawn(logits, whole) for _ in range(5)]
    alone = [torch.cat([drawn(logits[row:row + 1], {0: mine[row]}) for row in range(6)]) for _ in range(5)]
    assert all(torch.equal(one, other) for one, other in zip(together, alone, strict=True))
    assert len({tuple(one.tolist()) for one in together}) == 5


def test_rows_without_a_generator_are_drawn_too() -> None:
    logits = torch.zeros(2, 50)
    found = torch.stack([drawn(logits, {0: torch.Generator().manual_seed(3)}) for _ in range(30)])
    assert len(found[:, 0].unique()) == 1 and len(found[:, 1].unique()) > 10


@pytest.mark.parametrize("uniform", [0.0, 0.25, 0.5, 1.0 - 2.0**-53])
@pytest.mark.parametrize("allowed", [[0], [BLOCK - 1], [BLOCK], [700], [3, 700], [255, 256, 769]])
def test_only_what_is_allowed_is_drawn(uniform: float, allowed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda self, **_: self.fill_(uniform))
    logits = torch.full((1, 770), -torch.inf)
    logits[0, allowed] = torch.randn(len(allowed))
    assert drawn(logits, {}).item() in allowed


def test_the_uniform_number_walks_through_the_words_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.log(torch.tensor([[0.1, 0.0, 0.2, 0.3, 0.4]]))
    for uniform, word in ((0.0, 0), (0.09, 0), (0.11, 2), (0.29, 2), (0.31, 3), (0.61, 4), (0.999, 4)):
        monkeypatch.setattr(torch.Tensor, "uniform_", lambda self, uniform=uniform, **_: self.fill_(uniform))
        assert drawn(logits, {}).item() == word


def pretended(monkeypatch: pytest.MonkeyPatch, **functions: object) -> type:
    module = types.ModuleType("pretended_sampler")
    sampler = type("TopKTopPSampler", (), functions)
    vars(module).update(TopKTopPSampler=sampler, apply_top_k_top_p=lambda logits, k, p: logits + k + p)
    monkeypatch.setitem(sys.modules, "pretended_sampler", module)
    return sampler


def original(self: object, logits: object, generators: object, k: object, p: object  # noqa: ARG001
             ) -> tuple[str, None]:
    return "original", None


def test_vllms_sampler_keeps_what_is_not_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = pretended(monkeypatch, forward_cpu=original)
    sampling_cpu.install("pretended_sampler")
    one, logits = sampler(), torch.zeros(2, 9)
    one.use_fp64_gumbel, one.logprobs_mode = False, "raw_logprobs"
    assert one.forward_cpu(logits, {}, 0, 0) == ("original", None)
    forbidden = torch.full((9,), -torch.inf)
    forbidden[4] = 0.0
    tokens, logprobs = one.forward_cpu(logits, generators(1, 2), forbidden, 0)
    assert tokens.tolist() == [4, 4] and logprobs is None
    one.logprobs_mode = "processed_logprobs"
    assert one.forward_cpu(logits, generators(1), 0, 0) == ("original", None)


@pytest.mark.parametrize("functions", [{}, {"forward_cpu": len}])
def test_a_sampler_of_another_vllm_is_refused(monkeypatch: pytest.MonkeyPatch, functions: dict[str, object]) -> None:
    pretended(monkeypatch, **functions)
    with pytest.raises(RuntimeError, match="forward_cpu differs from vLLM 0.31"):
        sampling_cpu.install("pretended_sampler")
