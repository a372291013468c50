"""F gated recurrent units at once: one GRU for each clinical feature, all features in one batched product a step.

In: feature values (B, T, F). Out: states (F, B, T, H), where the state of step t depends on steps <= t alone, so that
one pass serves a prediction at every visit. The gates are those of `torch.nn.GRU` (Cho et al. 2014, with the reset gate
applied after the recurrent product). The backward pass is written out: it keeps four gate tensors instead of autograd's
dozen a step, and gathers the weight gradients of all steps in one product.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class FeatureGru(nn.Module):
    """F independent GRUs of input size 1, without a loop over features.

    Args:
        features: F.
        hidden: H, the size of each state.

    The parameters hold the F weights of `torch.nn.GRU(1, H)`, gates in the order reset, update, new: `weight_input`
    (F, 3H), `weight_hidden` (F, H, 3H; transposed), `bias_input` and `bias_hidden` (F, 3H).
    """

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(hidden)
        shapes = {"weight_input": (features, 3 * hidden), "weight_hidden": (features, hidden, 3 * hidden),
                  "bias_input": (features, 3 * hidden), "bias_hidden": (features, 3 * hidden)}
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape).uniform_(-bound, bound)))

    def forward(self, values: Tensor) -> Tensor:
        """States (F, B, T, H) of values (B, T, F), from a zero state."""
        states: Tensor = _Recurrence.apply(values.permute(2, 0, 1).contiguous(), self.weight_input,
                                           self.weight_hidden, self.bias_input, self.bias_hidden)
        return states


class _Recurrence(torch.autograd.Function):
    """The recurrence over T steps; sizes as in `FeatureGru`, values as (F, B, T)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight_input: Tensor, weight_hidden: Tensor, bias_input: Tensor,
                bias_hidden: Tensor) -> Tensor:
        features, batch, steps = values.shape
        hidden = weight_hidden.shape[1]
        states = values.new_empty(features, batch, steps, hidden)
        gates = values.new_empty(steps, features, batch, 4 * hidden)  # reset, update, new, recurrent part of new
        state = values.new_zeros(features, batch, hidden)
        for step in range(steps):
            recurrent = torch.baddbmm(bias_hidden.unsqueeze(1), state, weight_hidden)
            entering = torch.addcmul(bias_input.unsqueeze(1), values[:, :, step, None], weight_input.unsqueeze(1))
            kept = gates[step]
            torch.sigmoid(entering[..., :2 * hidden] + recurrent[..., :2 * hidden], out=kept[..., :2 * hidden])
            reset, update = kept[..., :hidden], kept[..., hidden:2 * hidden]
            kept[..., 3 * hidden:] = recurrent[..., 2 * hidden:]
            new = torch.addcmul(entering[..., 2 * hidden:], reset, kept[..., 3 * hidden:]).tanh_()
            kept[..., 2 * hidden:3 * hidden] = new
            state = torch.lerp(new, state, update)
            states[:, :, step] = state
        ctx.save_for_backward(values, weight_input, weight_hidden, states, gates)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        values, weight_input, weight_hidden, states, gates = ctx.saved_tensors
        arriving = gradients[0]
        features, batch, steps, hidden = states.shape
        weight_back = weight_hidden.transpose(1, 2)
        d_values = torch.empty_like(values) if ctx.needs_input_grad[0] else None
        d_input, d_hidden = torch.zeros_like(weight_input), torch.zeros_like(weight_hidden)
        d_bias_input, d_bias_hidden = torch.zeros_like(weight_input), torch.zeros_like(weight_input)
        carried = torch.zeros_like(states[:, :, 0])
        for step in range(steps - 1, -1, -1):
            reset, update, new, recurrent = gates[step].chunk(4, dim=-1)
            before = states[:, :, step - 1] if step else torch.zeros_like(carried)
            total = carried + arriving[:, :, step]
            d_new = total * (1.0 - update) * (1.0 - new * new)
            d_reset = d_new * recurrent * reset * (1.0 - reset)
            d_update = total * (before - new) * update * (1.0 - update)
            into = torch.cat([d_reset, d_update, d_new], dim=-1)
            back = torch.cat([d_reset, d_update, d_new * reset], dim=-1)
            carried = torch.baddbmm(total * update, back, weight_back)
            if step:
                d_hidden.baddbmm_(before.transpose(1, 2), back)
            d_input += torch.bmm(values[:, :, step].unsqueeze(1), into).squeeze(1)
            d_bias_input += into.sum(dim=1)
            d_bias_hidden += back.sum(dim=1)
            if d_values is not None:
                d_values[:, :, step] = torch.bmm(into, weight_input.unsqueeze(2)).squeeze(2)
        return d_values, d_input, d_hidden, d_bias_input, d_bias_hidden
