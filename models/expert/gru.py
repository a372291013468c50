"""A second expert: one gated recurrent unit over whole visits, and attention across the features of the visit read.

In and out as for `concare.ConCare`, so that training, readings and health serve both. The recurrence sees all features
of a visit at once (values, masks, days since the visit before, age and sex); the token of a feature is its own value at
the visit, in a direction of its own, on the state of the recurrence. Readout and its attention are ConCare's. Causal:
the reading at visit t depends on visits <= t alone. A feature never observed is no token.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from configs.schema import Expert
from models.expert.batches import Batch
from models.expert.concare import STATIC_SIZE, Reading, TokenMixer, decov


class AttentionGru(nn.Module):
    """The model.

    Args:
        features: F.
        section: sizes and dropout.
    """

    def __init__(self, features: int, section: Expert) -> None:
        super().__init__()
        hidden = section.hidden
        self.recurrence = nn.GRU(2 * features + 1 + STATIC_SIZE, hidden, batch_first=True)
        self.names = nn.Parameter(torch.randn(features + 1, hidden) / hidden**0.5)
        self.scales = nn.Parameter(torch.randn(features, hidden) / hidden**0.5)
        self.state = nn.Linear(hidden, hidden)
        self.static = nn.Linear(STATIC_SIZE, hidden)
        self.mixer = TokenMixer(section)

    def forward(self, batch: Batch, visits: Tensor | None = None, decorrelate: bool = False,
                over_visits: bool = False) -> Reading:  # noqa: ARG002 - it has no attention over visits
        """Reads a batch at every visit, or at those asked for (see `concare.ConCare.forward`)."""
        if visits is None:
            visits = torch.arange(batch.days.shape[1], device=batch.days.device).expand(len(batch), -1)
        tokens, known = self.tokens(batch, visits)
        valid = batch.steps.gather(1, visits) if decorrelate else None
        logits, attention, moments = self.mixer(tokens.flatten(0, 1), known.flatten(0, 1),
                                                None if valid is None else valid.flatten())
        penalty = decov(moments, int(valid.sum())) if valid is not None else logits.new_zeros(())
        return Reading(logits.view(visits.shape), attention.view(*visits.shape, -1), penalty, logits.new_empty(0))

    def tokens(self, batch: Batch, visits: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, Q, F + 1, H), static token last, and which are known (B, Q, F + 1)."""
        values = torch.where(batch.mask, batch.values, 0.0)
        since = functional.pad(batch.days.diff(dim=1), (1, 0)).clamp(min=0.0)
        static = batch.static.unsqueeze(1).expand(-1, values.shape[1], -1)
        entering = torch.cat([values, batch.mask.to(values.dtype), torch.log1p(since).unsqueeze(2), static], dim=2)
        states = self.state(_at(self.recurrence(entering)[0], visits)).unsqueeze(2)
        dynamic = _at(values, visits).unsqueeze(3) * self.scales + self.names[:-1] + states
        still = torch.tanh(self.static(batch.static))[:, None, None] + self.names[-1] + states
        known = functional.pad(_at(batch.mask.to(values.dtype), visits) > 0, (0, 1), value=True)
        return torch.cat([dynamic, still], dim=2), known


def _at(steps: Tensor, visits: Tensor) -> Tensor:
    """(B, Q, X) of (B, T, X) at the visits (B, Q)."""
    return steps.gather(1, visits.unsqueeze(2).expand(-1, -1, steps.shape[2]))
