"""GRPO whose upper clip bound belongs to the trajectory, as a thin layer on TRL (EAG-RL; method section 7).

The item is one rollout batch. Generation, advantages, loss and optimiser are TRL's; what is added is e(tau), computed
once per rollout batch from the policy that sampled it, the measures of what it clips, and a forward pass that reads a
shared prompt once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import load_peft_weights, set_peft_model_state_dict
from torch import Tensor, nn
from trl import GRPOTrainer

from configs.schema import Grpo
from models.policy.adapter import NAME
from models.policy.clipping import FindMentions, clipped, mean_mention_entropy, mention_token_mask, upper_bounds
from models.policy.prefix import by_prompt, shareable, split_batch
from models.policy.spelling import Speller

BOUND = "upper_bound"
OnBatch = Callable[[Tensor, Tensor], Mapping[str, float]]


@dataclass(frozen=True)
class Clipping:
    """What e(tau) is computed from: the section's ranges, the tokens' spelling and the feature mentions."""

    section: Grpo
    speller: Speller
    finder: FindMentions


class EntropyClipGRPOTrainer(GRPOTrainer):
    """GRPOTrainer with an upper clip bound for each trajectory.

    The entropies come from the forward pass in which TRL scores the rollouts with the old policy; e(tau) then travels
    with its trajectory as one more tensor (B, 1) of the batch through TRL's shuffling and splitting.

    Args:
        clipping: e, e_min, e_max and what finds key clinical tokens.
        on_batch: told of Hbar (B,) and e(tau) (B,) of each rollout batch; returns what else is logged with it.
        arguments: those of GRPOTrainer.
    """

    def __init__(self, *arguments: Any, clipping: Clipping, on_batch: OnBatch, **named: Any) -> None:
        self._clipping, self._on_batch = clipping, on_batch
        self._scored: tuple[Tensor, Tensor | None] | None = None
        self._scoring = False
        self._latest: Tensor | None = None
        self._batch_metrics: dict[str, float] = {}
        super().__init__(*arguments, **named)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._scored, self._scoring = None, True
        try:
            batch = super()._generate_and_score_completions(inputs)
        finally:
            self._scoring = False
        batch[BOUND] = self._upper_bounds(batch)
        return batch

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:  # type: ignore[override]
        """The parent's micro-batches, with the rollouts of a prompt beside each other where the section asks for it."""
        before = self._buffered_inputs
        inputs: dict[str, Any] = super()._prepare_inputs(generation_batch)
        dealt = self._buffered_inputs
        if dealt is None or dealt is before or not self._clipping.section.whole_groups:
            return inputs
        self._buffered_inputs = by_prompt(dealt)
        return self._buffered_inputs[self._step % len(dealt)]

    def _upper_bounds(self, batch: Mapping[str, Any]) -> Tensor:
        """e(tau) of the batch's trajectories, (B, 1), in their order before TRL shuffles them.

        A trajectory that is left out of the loss because it was cut off has no tokens here, so none of its entropy.
        """
        section, mask = self._clipping.section, batch["completion_mask"].bool()
        ids = [row[real].tolist() for row, real in zip(batch["completion_ids"], mask, strict=True)]
        mean = torch.full((len(ids),), torch.nan, device=mask.device)
        if "old_per_token_logps" in batch and self._scored is not None and self._scored[1] is not None:
            mentions = mention_token_mask(ids, self._clipping.speller, self._clipping.finder, width=mask.shape[1])
            mean = mean_mention_entropy(self._scored[1], mentions.to(mask.device) & mask)
        elif section.entropy_clip:
            raise RuntimeError("TRL did not score the rollouts with the old policy, so that there are no entropies: "
                               "minibatches * iterations is 1, or TRL changed")
        high = section.clip_max if section.entropy_clip else section.clip_min
        bounds = upper_bounds(mean, section.generations, section.clip_min, high)
        self._batch_metrics = {**_describe(mean, bounds), **self._on_batch(mean, bounds)}
        return bounds.unsqueeze(1)

    def _get_per_token_logps_and_entropies(  # type: ignore[override]
            self, model: nn.Module, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int,
            batch_size: int | None = None, compute_entropy: bool = False, compute_aux_loss: bool = False,
            **media: Any) -> tuple[Tensor, Tensor | None, Tensor | None]:
        columns = input_ids.size(1) - logits_to_keep - 1
        plain = not compute_aux_loss and all(value is None for value in media.values())
        if plain and shareable(model, columns):
            logps, entropies = self._shared(model, input_ids, attention_mask, columns, batch_size)
            aux = None
        else:
            logps, entropies, aux = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, True, compute_aux_loss, **media)
        self._remember(logps, entropies)
        return logps, entropies if compute_entropy else None, aux

    def _shared(self, model: nn.Module, input_ids: Tensor, attention_mask: Tensor, columns: int,
                batch_size: int | None) -> tuple[Tensor, Tensor]:
        """log p and H of the completion tokens, (B, T) each: TRL's fused head behind a prompt that is read once."""
        scores = []
        for start in range(0, input_ids.size(0), batch_size or input_ids.size(0)):
            rows = slice(start, start + (batch_size or input_ids.size(0)))
            real = attention_mask[rows]
            with self.accelerator.autocast():
                split = split_batch(model, input_ids[rows], real, columns)
                labels = split["input_ids"].masked_fill(real[:, columns:] == 0, -100)
                out = model(**split, labels=labels, fused_lm_head=True)
            scores.append((out.log_probs, out.entropy))
        return torch.cat([logps for logps, _ in scores]), torch.cat([entropies for _, entropies in scores])

    def _remember(self, logps: Tensor, entropies: Tensor | None) -> None:
        """Keeps what the old policy (first pass of a scoring; a reference comes after it) or the present one gave."""
        if not self._scoring:
            self._latest = logps.detach()
        elif self._scored is None:
            self._scored = logps.detach(), entropies.detach() if entropies is not None else None

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        with self._bounds(inputs[BOUND]):
            loss = super()._compute_loss(model, inputs)
        self._measure(inputs)
        return loss

    @contextmanager
    def _bounds(self, upper: Tensor) -> Iterator[None]:
        """The loss clamps with tensors: (B, 1) for both ends, since torch.clamp takes no scalar beside a tensor."""
        before = self.epsilon_low, self.epsilon_high
        self.epsilon_low = torch.full_like(upper, self._clipping.section.clip)  # type: ignore[assignment]
        self.epsilon_high = upper  # type: ignore[assignment]
        try:
            yield
        finally:
            self.epsilon_low, self.epsilon_high = before

    def _measure(self, inputs: Mapping[str, Any]) -> None:
        """Logs, for this micro-batch, what was clipped and how far the policy is from the one that sampled."""
        old, mask = inputs.get("old_per_token_logps"), inputs["completion_mask"]
        if self._latest is None or old is None:
            return
        ratio, count = torch.exp(self._latest - old), mask.sum().clamp(min=1)
        below, above = clipped(ratio, inputs["advantages"], mask, self._clipping.section.clip, inputs[BOUND].view(-1))
        drift = ((ratio - 1 - (self._latest - old)) * mask).sum() / count
        self._note("clipped_above", above.sum() / count)
        self._note("clipped_below", below.sum() / count)
        self._note("trajectories_clipped_above", above.any(dim=1).float().mean())
        self._note("trajectories_clipped_below", below.any(dim=1).float().mean())
        self._note("drift", drift)

    def _note(self, name: str, value: Tensor) -> None:
        self._metrics["train"][name].append(float(value))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Reads the trained adapter. The parent would read the reference alone where the folder holds one as well."""
        target = self.model if model is None else model
        set_peft_model_state_dict(target, load_peft_weights(resume_from_checkpoint, device="cpu"), adapter_name=NAME)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the measures of the present rollout batch to those of the optimiser step."""
        logs.update(self._batch_metrics)
        super().log(logs, start_time)


def _describe(mean: Tensor, bounds: Tensor) -> dict[str, float]:
    seen = mean[~mean.isnan()]
    found = {"mention_entropy": float(seen.mean())} if seen.numel() else {}
    return {**found, "without_mentions": float(mean.isnan().float().mean()), "bound_min": float(bounds.min()),
            "bound_mean": float(bounds.mean()), "bound_max": float(bounds.max())}
