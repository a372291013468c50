"""ConCare (Ma et al., AAAI 2020), the expert: one GRU per feature, time-aware attention, attention across features.

In: a `Batch` (values, masks, elapsed days, static data). Out: a `Reading`: a logit at every visit (or at the visits
asked for) and the attention of the readout over the F + 1 tokens, which is what EAG-RL takes for clinical salience.

Everything is causal: the reading at visit t depends on visits <= t alone. So one pass over the GRUs serves all visits,
and the time attention of all prefixes is one (T, T) lower triangle. Where F + 1 tokens for each of B*T visits would
fill the memory, the visits are worked off in chunks that are recomputed in the backward pass.

Which reading of the published formula: sources disagree whether the elapsed time stands inside the logarithm of the
decay. We use the form of the released code, with dt + 1 as a factor outside of it (see `TimeAttention`), and no tanh or
ReLU around the quotient. Two choices are ours: scores of the readout are divided by sqrt(H), and a feature that was
never observed up to a visit is no token of that visit (its attention is 0): nothing is known that could be attended to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from configs.schema import Expert
from models.expert.batches import Batch
from models.expert.recurrence import FeatureGru

STATIC_SIZE = 2  # age (standardised), sex
CHUNK = 8_000_000  # numbers in the tokens of one chunk: visits * (F + 1) * H


@dataclass(frozen=True)
class Reading:
    """What the expert reads at Q visits of each of B stays.

    Attributes:
        logits: (B, Q); of label 1.
        attention: (B, Q, F + 1); the readout's weights, static token last, sums to 1.
        decov: scalar; the DeCov penalty of the heads, 0 where it was not asked for.
        over_visits: (B, Q, F, T); time attention of each feature, sums to 1 over T; empty unless asked for.
    """

    logits: Tensor
    attention: Tensor
    decov: Tensor
    over_visits: Tensor


class TimeAttention(nn.Module):
    """Time-aware attention of each feature over its own visits.

    For the queried visit i and a visit j <= i, dt = days(i) - days(j), and the feature's learnable rate beta:

        s = sigmoid(q_i . k_j)
        logit = s / (sigmoid(beta) * ln(2.72 + 1 - s) * (dt + 1))

    softmax over the visits j <= i at which the feature had been observed (over all visits j <= i if there is none).

    Args:
        features: F.
        hidden: H.
        rank: size of queries and keys.
    """

    def __init__(self, features: int, hidden: int, rank: int) -> None:
        super().__init__()
        self.query = nn.Parameter(_uniform(features, hidden, rank))
        self.key = nn.Parameter(_uniform(features, hidden, rank))
        self.rate = nn.Parameter(torch.full((features,), 0.8))

    def forward(self, states: Tensor, batch: Batch, visits: Tensor) -> Tensor:
        """Weights (F, B, Q, T) from states (F, B, T, H) at the queried visits (B, Q)."""
        features, size, steps, hidden = states.shape
        flat = states.reshape(features, size * steps, hidden)
        keys = torch.bmm(flat, self.key).view(features, size, steps, -1)
        queries = torch.bmm(flat, self.query).view(features, size, steps, -1)
        index = visits[None, :, :, None].expand(features, -1, -1, queries.shape[-1])
        arguments = (queries.gather(2, index), keys, self.rate, *_time_facts(batch, visits))
        if states.requires_grad and features * size * visits.shape[1] * steps > CHUNK // 4:
            weights: Tensor = checkpoint(_time_weights, *arguments, use_reentrant=False)
            return weights
        return _time_weights(*arguments)


def _time_facts(batch: Batch, visits: Tensor) -> tuple[Tensor, Tensor]:
    """Elapsed days (B, Q, T) from each visit to the queried one, and which visits count (F, B, Q, T)."""
    steps = torch.arange(batch.days.shape[1], device=visits.device)
    elapsed = (batch.days.gather(1, visits).unsqueeze(2) - batch.days.unsqueeze(1)).clamp(min=0.0)
    past = (steps <= visits.unsqueeze(2)) & batch.steps.unsqueeze(1)
    observed = past & batch.mask.permute(2, 0, 1).unsqueeze(2)
    return elapsed, torch.where(observed.any(dim=3, keepdim=True), observed, past)


def _time_weights(queries: Tensor, keys: Tensor, rate: Tensor, elapsed: Tensor, counts: Tensor) -> Tensor:
    """The formula of `TimeAttention`: (F, B, Q, r), (F, B, T, r), (F,), (B, Q, T), (F, B, Q, T) to (F, B, Q, T)."""
    score = torch.sigmoid(queries @ keys.transpose(2, 3))
    decay = torch.sigmoid(rate)[:, None, None, None] * torch.log(3.72 - score) * (elapsed + 1.0)
    return (score / decay).masked_fill(~counts, -torch.inf).softmax(dim=3)


class TokenMixer(nn.Module):
    """From F + 1 tokens to logit and attention: self-attention, feed-forward (each with residual, LayerNorm), readout.

    The readout's query is the static token; its keys and values are all tokens.

    Args:
        section: sizes and dropout.
    """

    def __init__(self, section: Expert) -> None:
        super().__init__()
        hidden = section.hidden
        self.heads = section.heads
        self.dropout = nn.Dropout(section.dropout)
        self.project = nn.Linear(hidden, 3 * hidden)
        self.join = nn.Linear(hidden, hidden)
        self.widen = nn.Linear(hidden, section.feed_forward)
        self.narrow = nn.Linear(section.feed_forward, hidden)
        self.norm_attention, self.norm_forward = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.read_query, self.read_key = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.read_value = nn.Linear(hidden, hidden)
        self.logit = nn.Linear(hidden, 1)

    def forward(self, tokens: Tensor, known: Tensor, counted: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Reads N visits.

        Args:
            tokens: (N, F + 1, H), static token last.
            known: (N, F + 1); False where the feature was never observed.
            counted: (N,); visits whose heads enter the moments; None: no moments are needed.

        Returns:
            Logits (N,), attention (N, F + 1), and moments (F + 1, H + 1, H) of the counted visits: sum of the heads'
            outer products, and in the last row the sum of the heads; empty without `counted`.
        """
        tokens = self.dropout(tokens)
        heads = self._heads(tokens, known)
        mixed = self.norm_attention(tokens + self.dropout(self.join(heads)))
        mixed = self.norm_forward(mixed + self.dropout(self.narrow(torch.relu(self.widen(mixed)))))
        query = self.read_query(mixed[:, -1:])
        scores = (query @ self.read_key(mixed).transpose(1, 2)).squeeze(1) / math.sqrt(mixed.shape[2])
        attention = scores.masked_fill(~known, -torch.inf).softmax(dim=1)
        context = (attention.unsqueeze(1) @ self.read_value(mixed)).squeeze(1)
        moments = tokens.new_empty(0) if counted is None else _moments(heads, counted)
        return self.logit(self.dropout(context)).squeeze(1), attention, moments

    def _heads(self, tokens: Tensor, known: Tensor) -> Tensor:
        """Self-attention across the tokens of each visit; heads joined: (N, F + 1, H)."""
        size, count, hidden = tokens.shape
        parts = self.project(tokens).view(size, count, 3, self.heads, hidden // self.heads).permute(2, 0, 3, 1, 4)
        bias = torch.zeros_like(known, dtype=tokens.dtype).masked_fill(~known, -torch.inf)[:, None, None]
        joined = functional.scaled_dot_product_attention(parts[0], parts[1], parts[2], attn_mask=bias)
        return joined.transpose(1, 2).reshape(size, count, hidden)


def _moments(heads: Tensor, counted: Tensor) -> Tensor:
    """Uncentred moments over the counted visits; see `TokenMixer.forward`."""
    rows = (heads * counted[:, None, None]).transpose(0, 1)
    return torch.cat([rows.transpose(1, 2) @ rows, rows.sum(dim=1, keepdim=True)], dim=1)


def decov(moments: Tensor, count: int) -> Tensor:
    """DeCov penalty (Cogswell et al. 2016) of the joined heads, mean over tokens: 0.5 (|C|^2 - |diag C|^2).

    C is the covariance (H, H) over the `count` visits, for each token; what is penalised is that two channels vary
    together from visit to visit. Fewer than two visits have no covariance: 0.

    Args:
        moments: (F + 1, H + 1, H), as `TokenMixer.forward` returns them, summed over chunks.
        count: visits that entered.
    """
    if count < 2:
        return moments.new_zeros(())
    mean = moments[:, -1] / count
    covariance = (moments[:, :-1] - count * mean.unsqueeze(2) * mean.unsqueeze(1)) / (count - 1)
    off = covariance.square().sum(dim=(1, 2)) - covariance.diagonal(dim1=1, dim2=2).square().sum(dim=1)
    return 0.5 * off.mean()


class ConCare(nn.Module):
    """The expert model.

    Args:
        features: F.
        section: sizes and dropout.
    """

    def __init__(self, features: int, section: Expert) -> None:
        super().__init__()
        self.features, self.hidden = features, section.hidden
        self.recurrence = FeatureGru(features, section.hidden)
        self.time_attention = TimeAttention(features, section.hidden, section.time_rank)
        self.static = nn.Linear(STATIC_SIZE, section.hidden)
        self.mixer = TokenMixer(section)

    def forward(self, batch: Batch, visits: Tensor | None = None, decorrelate: bool = False,
                over_visits: bool = False) -> Reading:
        """Reads a batch at every visit, or at those asked for.

        Args:
            batch: B stays.
            visits: (B, Q) int64, visits to read at; None: all T (readings of padded visits mean nothing).
            decorrelate: also compute the DeCov penalty, over the valid visits read.
            over_visits: also return the time attention.
        """
        weights, states, static, seen, visits = self._encode(batch, visits)
        valid = batch.steps.gather(1, visits) if decorrelate else None
        logits, attention, moments = self._read(weights, states, static, seen, valid)
        penalty = decov(moments, int(valid.sum())) if valid is not None else logits.new_zeros(())
        return Reading(logits, attention, penalty, weights.permute(1, 2, 0, 3) if over_visits else weights.new_empty(0))

    def tokens(self, batch: Batch, visits: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, Q, F + 1, H) as the mixer gets them, and which are known (B, Q, F + 1)."""
        weights, states, static, seen, _ = self._encode(batch, visits)
        return _tokens(weights, states, static), functional.pad(seen, (0, 1), value=True)

    def _encode(self, batch: Batch, visits: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Time weights (F, B, Q, T), states (F, B, T, H), static token (B, H), seen (B, Q, F), visits (B, Q)."""
        if visits is None:
            visits = torch.arange(batch.days.shape[1], device=batch.days.device).expand(len(batch), -1)
        states = self.recurrence(torch.where(batch.mask, batch.values, 0.0))
        weights = self.time_attention(states, batch, visits)
        static = torch.tanh(self.static(batch.static))
        seen = batch.mask.cumsum(dim=1).gather(1, visits.unsqueeze(2).expand(-1, -1, self.features)) > 0
        return weights, states, static, seen, visits

    def _read(self, weights: Tensor, states: Tensor, static: Tensor, seen: Tensor, valid: Tensor | None
              ) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens and their readout for chunks of stays, recomputed in the backward pass if there are several."""
        size, queries = seen.shape[:2]
        per_chunk = max(1, CHUNK // (queries * (self.features + 1) * self.hidden))
        parts = []
        for start in range(0, size, per_chunk):
            rows = slice(start, start + per_chunk)
            arguments = (weights[:, rows], states[:, rows], static[rows], seen[rows],
                         None if valid is None else valid[rows])
            if per_chunk < size and torch.is_grad_enabled():
                parts.append(checkpoint(self._read_chunk, *arguments, use_reentrant=False))
            else:
                parts.append(self._read_chunk(*arguments))
        logits, attention, moments = zip(*parts, strict=True)
        return torch.cat(logits), torch.cat(attention), torch.stack(moments).sum(dim=0)

    def _read_chunk(self, weights: Tensor, states: Tensor, static: Tensor, seen: Tensor, valid: Tensor | None
                    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (b, Q), attention (b, Q, F + 1) and moments of b stays."""
        size, queries, features = seen.shape
        known = functional.pad(seen, (0, 1), value=True).flatten(0, 1)
        logits, attention, moments = self.mixer(_tokens(weights, states, static).flatten(0, 1), known,
                                                None if valid is None else valid.flatten())
        return logits.view(size, queries), attention.view(size, queries, features + 1), moments


def _tokens(weights: Tensor, states: Tensor, static: Tensor) -> Tensor:
    """Tokens (B, Q, F + 1, H): the features' weighted states, and the static token last."""
    dynamic = (weights @ states).permute(1, 2, 0, 3)
    return torch.cat([dynamic, static[:, None, None].expand(-1, dynamic.shape[1], -1, -1)], dim=2)


def _uniform(features: int, rows: int, columns: int) -> Tensor:
    bound = math.sqrt(6.0 / (rows + columns))
    return torch.empty(features, rows, columns).uniform_(-bound, bound)
