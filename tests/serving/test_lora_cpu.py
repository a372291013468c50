"""LoRA grouped by adapter gives the sums of vLLM's token-by-token formula, on numpy-like tensors of torch."""

from __future__ import annotations

import inspect
import sys
import types

import pytest
import torch

from serving import lora_cpu

SLOTS, RANK, IN, OUT = 3, 4, 10, 6


def tensors(tokens, seed=0, dtype=torch.float32):
    noise = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, IN, generator=noise).to(dtype)
    a = torch.randn(SLOTS, 1, RANK, IN, generator=noise).to(dtype)
    b = torch.randn(SLOTS, 1, OUT, RANK, generator=noise).to(dtype)
    return x, a, b


def expected(x, a, b, indices, scaling):
    """y_t = scaling * B_i A_i x_t for the adapter i of token t; nothing without one."""
    rows = [scaling * (b[i, 0] @ (a[i, 0] @ row)) if i >= 0 else torch.zeros(OUT) for row, i in
            zip(x, indices, strict=True)]
    return torch.stack(rows)


@pytest.mark.parametrize("indices", [[0] * 5, [2] * 5, [0, 1, 1, 2, 0], [-1, 1, -1, 0, 2], [-1] * 5])
def test_shrink_then_expand_is_the_low_rank_product_of_each_tokens_adapter(indices):
    x, a, b = tensors(5)
    buffer, output = torch.full((5, RANK), 9.0), torch.ones(5, OUT)
    lora_cpu.bgmv_shrink(x, a, buffer, torch.tensor(indices), 0.5)
    lora_cpu.bgmv_expand(buffer, b, output, torch.tensor(indices), add_inputs=True)
    torch.testing.assert_close(output, 1.0 + expected(x, a, b, indices, 0.5))


def test_a_token_without_adapter_keeps_the_base_models_output():
    x, a, b = tensors(3)
    buffer, output = torch.zeros(3, RANK), torch.ones(3, OUT)
    lora_cpu.bgmv_shrink(x, a, buffer, torch.tensor([-1, 2, -1]))
    lora_cpu.bgmv_expand(buffer, b, output, torch.tensor([-1, 2, -1]))
    assert torch.equal(output[[0, 2]], torch.ones(2, OUT))
    assert not torch.equal(output[1], torch.ones(OUT))


def test_whole_sequences_take_their_adapter_to_all_their_tokens():
    x, a, b = tensors(5)
    lengths, sequences = torch.tensor([2, 3]), torch.tensor([1, -1])
    buffer, output = torch.zeros(5, RANK), torch.zeros(5, OUT)
    lora_cpu.sgmv_shrink(x, a, buffer, torch.tensor([0, 2]), lengths, sequences, 2, 3, 5, 2.0)
    lora_cpu.sgmv_expand(buffer, b, output, torch.tensor([0, 2]), lengths, sequences, 2, 3, 5, add_inputs=True)
    torch.testing.assert_close(output, expected(x, a, b, [1, 1, -1, -1, -1], 2.0))


def test_a_slice_leaves_the_other_columns_alone():
    x, a, b = tensors(4)
    indices, wide = torch.tensor([0, 0, 1, 1]), torch.zeros(4, 3 * OUT)
    buffer = torch.zeros(4, RANK)
    lora_cpu.bgmv_shrink(x, a, buffer, indices)
    lora_cpu.bgmv_expand_slice(buffer, b, wide, indices, OUT, OUT)
    torch.testing.assert_close(wide[:, OUT:2 * OUT], expected(x, a, b, indices.tolist(), 1.0))
    assert wide[:, :OUT].abs().sum() == wide[:, 2 * OUT:].abs().sum() == 0


def test_bfloat16_stays_within_its_precision():
    x, a, b = tensors(64, dtype=torch.bfloat16)
    indices = torch.arange(64) % SLOTS
    buffer, output = torch.zeros(64, RANK), torch.zeros(64, OUT, dtype=torch.bfloat16)
    lora_cpu.bgmv_shrink(x, a, buffer, indices)
    lora_cpu.bgmv_expand(buffer, b, output, indices)
    wanted = expected(x.float(), a.float(), b.float(), indices.tolist(), 1.0)
    torch.testing.assert_close(output.float(), wanted, rtol=0.05, atol=0.15)


def _module(**functions):
    module = types.ModuleType("pretended_punica")
    vars(module).update(functions)
    return module


def test_functions_are_replaced_where_names_and_signatures_are_those_expected(monkeypatch):
    originals = {function.__name__: eval(f"lambda {', '.join(inspect.signature(function).parameters)}: None")
                 for function in lora_cpu.REPLACEMENTS}
    module = _module(**originals)
    monkeypatch.setitem(sys.modules, "pretended_punica", module)
    lora_cpu.install("pretended_punica")
    assert all(getattr(module, function.__name__) is function for function in lora_cpu.REPLACEMENTS)


@pytest.mark.parametrize("functions", [{}, {"bgmv_shrink": len}])
def test_another_vllm_is_refused(monkeypatch, functions):
    monkeypatch.setitem(sys.modules, "pretended_punica", _module(**functions))
    with pytest.raises(RuntimeError, match="bgmv_shrink differs from vLLM 0.31"):
        lora_cpu.install("pretended_punica")
