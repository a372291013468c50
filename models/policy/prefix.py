"""The prompt is read once: exact shared-prefix forward passes, with gradient.

The item is one batch whose rows begin with a prompt. In: ids (B, P + C) and how many columns are prompt. Out: the last
C + 1 columns and a key-value cache of what stands before them, read once for each distinct row and handed to all rows
that share it. Gradients flow through the cache into the adapter, so loss and gradient are those of the plain pass.
Costs U*P + B*C tokens instead of B*(P + C), with U distinct prompts, and the output head sees C + 1 columns only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from trl.trainer.utils import split_tensor_dict


def shareable(model: nn.Module, columns: int) -> bool:
    """Whether a forward pass may be split: a plain model in one process, without recomputation of activations."""
    from torch.distributed import is_available, is_initialized

    many = is_available() and is_initialized()
    return columns >= 1 and not many and not getattr(model, "is_gradient_checkpointing", False)


def split_batch(model: nn.Module, input_ids: Tensor, attention_mask: Tensor, columns: int) -> dict[str, Any]:
    """Reads the first `columns` columns and returns the model inputs that continue them.

    Args:
        input_ids: (B, L). attention_mask: (B, L), 0 over padding.
        columns: columns read once for each distinct row; the last prompt token is not among them, since its output
            scores the first token of the completion.

    Returns:
        input_ids (B, L - columns), attention_mask (B, L) and past_key_values.
    """
    rows = torch.cat([input_ids[:, :columns], attention_mask[:, :columns]], dim=1)
    distinct, owner = torch.unique(rows, dim=0, return_inverse=True)
    cache = model(input_ids=distinct[:, :columns], attention_mask=distinct[:, columns:], use_cache=True,
                  logits_to_keep=1).past_key_values
    cache.batch_select_indices(owner)
    return {"input_ids": input_ids[:, columns:], "attention_mask": attention_mask, "past_key_values": cache}


def by_prompt(batches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of micro-batches dealt anew: those of a prompt beside each other, prompts in the order of their first.

    Args:
        batches: of equal size, with `prompt_ids` (B, P), alike in their other columns; what has no rows is kept as is.
    """
    first = batches[0]
    joined = {name: torch.cat([batch[name] for batch in batches]) for name, value in first.items() if _has_rows(value)}
    _, owner = torch.unique(joined["prompt_ids"], dim=0, return_inverse=True)
    seen = list(dict.fromkeys(owner.tolist()))
    order = torch.tensor([row for prompt in seen for row in (owner == prompt).nonzero().flatten().tolist()],
                         device=owner.device)
    dealt = split_tensor_dict({name: rows[order] for name, rows in joined.items()}, len(batches))
    return [{**before, **rows} for before, rows in zip(batches, dealt, strict=True)]


def _has_rows(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0
