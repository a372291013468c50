"""LoRA on the CPU at the speed of matrix products, for vLLM's worker process (see `worker_extension`).

vLLM 0.31 applies LoRA on a CPU by gathering a copy of A and B for *every token* (`weights[indices]`, then a batched
matrix-vector product): a prompt of 2,500 tokens streams gigabytes, and prefill with an adapter is many times slower
than without. A token without an adapter (index -1) even gets the last slot's weights. The functions here group the
tokens by adapter and multiply once per adapter: the same sums, no copies.
They have the same names and signatures as vLLM's and replace them in the worker; a vLLM whose functions look otherwise
is refused loudly when the server starts. Nothing here imports vllm or torch: tensors come and go.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from serving.substitute import substitute

PUNICA = "vllm.lora.punica_wrapper.punica_cpu"
Tensor = Any


def _by_adapter(weights: Tensor, indices: Tensor) -> Iterator[tuple[Tensor | slice, Tensor]]:
    """Yields (rows, weight (out, in)) for each adapter that some token uses; index -1 means no adapter."""
    used = indices.unique().tolist()
    for index in used:
        if index >= 0:
            weight = weights[index]
            rows = slice(None) if len(used) == 1 else (indices == index).nonzero().squeeze(1)
            yield rows, weight.squeeze(0) if weight.dim() == 3 else weight


def bgmv_shrink(inputs: Tensor, lora_b_weights: Tensor, output_tensor: Tensor, lora_indices_tensor: Tensor,
                scaling: float = 1.0) -> None:
    """output (B, R) = scaling * inputs (B, H) A^T, with the A (R, H) of each token's adapter; 0 without one."""
    indices = lora_indices_tensor[:inputs.shape[0]]
    output_tensor.zero_()
    for rows, weight in _by_adapter(lora_b_weights, indices):
        product = inputs[rows].to(output_tensor.dtype) @ weight.to(output_tensor.dtype).t()
        output_tensor[rows, :weight.shape[0]] = product.mul_(scaling)


def bgmv_expand(inputs: Tensor, lora_b_weights: Tensor, output_tensor: Tensor, lora_indices_tensor: Tensor,
                add_inputs: bool = True) -> None:
    """output (B, O) += inputs (B, R) B^T, with the B (O, R) of each token's adapter."""
    bgmv_expand_slice(inputs, lora_b_weights, output_tensor, lora_indices_tensor, 0, output_tensor.shape[1], add_inputs)


def bgmv_expand_slice(inputs: Tensor, lora_b_weights: Tensor, output_tensor: Tensor, lora_indices_tensor: Tensor,
                      slice_offset: int, slice_size: int, add_inputs: bool = True) -> None:
    """output[:, offset:offset+size] += inputs (B, R) B^T, with the B (size, R) of each token's adapter."""
    indices = lora_indices_tensor[:inputs.shape[0]]
    target = output_tensor[:, slice_offset:slice_offset + slice_size]
    if not add_inputs:
        target.zero_()
    for rows, weight in _by_adapter(lora_b_weights, indices):
        width = min(weight.shape[0], target.shape[1])
        target[rows, :width] += inputs[rows].to(target.dtype) @ weight[:width].to(target.dtype).t()


def _per_token(lora_indices_tensor: Tensor, seq_len_tensor: Tensor) -> Tensor:
    """The adapter of each token, from that of each sequence."""
    return lora_indices_tensor.repeat_interleave(seq_len_tensor)


def sgmv_shrink(inputs: Tensor, lora_a_weights: Tensor, output_tensor: Tensor, b_seq_start_loc: Tensor,  # noqa: ARG001
                seq_len_tensor: Tensor, lora_indices_tensor: Tensor, batches: int, max_seq_length: int,  # noqa: ARG001
                token_nums: int, scaling: float) -> None:  # noqa: ARG001
    """`bgmv_shrink` for whole sequences."""
    bgmv_shrink(inputs, lora_a_weights, output_tensor, _per_token(lora_indices_tensor, seq_len_tensor), scaling)


def sgmv_expand(inputs: Tensor, lora_b_weights: Tensor, output_tensor: Tensor, b_seq_start_loc: Tensor,  # noqa: ARG001
                seq_len_tensor: Tensor, lora_indices_tensor: Tensor, batches: int, max_seq_length: int,  # noqa: ARG001
                token_nums: int, add_inputs: bool = False) -> None:  # noqa: ARG001
    """`bgmv_expand` for whole sequences."""
    bgmv_expand(inputs, lora_b_weights, output_tensor, _per_token(lora_indices_tensor, seq_len_tensor), add_inputs)


def sgmv_expand_slice(inputs: Tensor, lora_b_weights: Tensor, output_tensor: Tensor,
                      b_seq_start_loc: Tensor, seq_len_tensor: Tensor, lora_indices_tensor: Tensor,  # noqa: ARG001
                      batches: int, max_seq_length: int, token_nums: int, slice_offset: int,  # noqa: ARG001
                      slice_size: int, add_inputs: bool = False) -> None:
    """`bgmv_expand_slice` for whole sequences."""
    bgmv_expand_slice(inputs, lora_b_weights, output_tensor, _per_token(lora_indices_tensor, seq_len_tensor),
                      slice_offset, slice_size, add_inputs)


REPLACEMENTS = (bgmv_shrink, bgmv_expand, bgmv_expand_slice, sgmv_shrink, sgmv_expand, sgmv_expand_slice)


def install(module_name: str = PUNICA) -> None:
    """Puts the functions above into vLLM's CPU LoRA module.

    Raises:
        RuntimeError: that module has no function of one of the names, or with another signature.
    """
    module = importlib.import_module(module_name)
    for replacement in REPLACEMENTS:
        substitute(module, replacement, module_name)
