"""Seeded sampling on the CPU with one random number a token, for vLLM's worker process (see `worker_extension`).

vLLM 0.31 draws a token of a request with a seed by exponential noise over the whole vocabulary, and makes that noise
twice: 98,304 logarithms a token with 49,152 words, more than a 135M model's forward pass costs. Here one uniform
number of the request's own generator is looked up in the cumulated probabilities, first those of blocks of words, then
those within one: the same distribution, and a seed still gives the same tokens whatever else is in the batch.
Nothing here imports vllm or torch: tensors come and go.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from serving.substitute import substitute

SAMPLER = "vllm.v1.sample.ops.topk_topp_sampler"
BLOCK = 256
_BELOW_ONE = 1.0 - 2.0**-52  # times a total, it stays below that total
Tensor = Any


def drawn(logits: Tensor, generators: Mapping[int, Any]) -> Tensor:
    """One token for each row of logits (B, V), drawn with the probabilities softmax(logits); ids (B,).

    Args:
        logits: -inf where a token is not allowed.
        generators: of the rows that have one of their own; the others share the process's.
    """
    rows, words = logits.shape
    uniform = logits.new_empty(rows).double().uniform_()
    for row, generator in generators.items():
        uniform[row:row + 1].uniform_(generator=generator)
    probabilities = logits.float().softmax(dim=-1)
    if words % BLOCK:
        padded = probabilities.new_zeros(rows, words + BLOCK - words % BLOCK)
        padded[:, :words] = probabilities
        probabilities = padded
    blocks = probabilities.view(rows, -1, BLOCK)
    upto = blocks.sum(dim=-1, dtype=uniform.dtype).cumsum(dim=-1)
    target = (uniform.clamp(max=_BELOW_ONE) * upto[:, -1]).unsqueeze(1)
    block = (upto <= target).sum(dim=-1, keepdim=True)
    inside = blocks.gather(1, block.unsqueeze(2).expand(-1, -1, BLOCK)).squeeze(1)
    within = inside.cumsum(dim=-1, dtype=uniform.dtype)
    before = upto.gather(1, block) - within[:, -1:]
    # Summed in another order, the block's end may lie a rounding below its own target: its last possible word then.
    last = BLOCK - 1 - (inside.flip(-1) > 0).byte().argmax(dim=-1)
    word = (within + before <= target).sum(dim=-1).minimum(last)
    return block.squeeze(1) * BLOCK + word


def install(module_name: str = SAMPLER) -> None:
    """Lets vLLM's CPU sampler draw rows with a generator by `drawn`; all else stays its own.

    Raises:
        RuntimeError: the module is not that of vLLM 0.31.
    """
    module = importlib.import_module(module_name)
    restrict = getattr(module, "apply_top_k_top_p", None)
    if restrict is None:
        raise RuntimeError(f"{module_name}.apply_top_k_top_p is missing; install the pinned vLLM 0.31")

    def forward_cpu(self: Any, logits: Tensor, generators: Mapping[int, Any], k: Tensor | None, p: Tensor | None
                    ) -> tuple[Tensor, Tensor | None]:
        if not generators or self.use_fp64_gumbel or self.logprobs_mode.startswith("processed"):
            found: tuple[Tensor, Tensor | None] = original(self, logits, generators, k, p)
            return found
        return drawn(restrict(logits, k, p), generators), None

    original = substitute(getattr(module, "TopKTopPSampler", None), forward_cpu, f"{module_name}.TopKTopPSampler")
