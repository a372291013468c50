"""The reward that TRL calls, and the record of every rollout batch.

In: completions as token ids. Out: R for each (TRL's reward function), means for the log, and one parquet file a batch
with text, parts of the reward and e(tau), for the report; groups that dynamic sampling dropped are rows as well. An
exception in a reward is a bug and stops the run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from torch import Tensor

from configs.schema import Grpo
from models.policy.examples import STYLE, Task
from models.policy.resampling import Completion, Filled, Group, equal
from models.policy.spelling import Speller
from rewards.length import overlong_penalty
from rewards.mixture import Score, Scorer

SCORED, TABLE = "scored", "rollouts.parquet"


@dataclass(frozen=True)
class Scored:
    """One rollout and what it earned; `penalty` is for its length, 0 or less."""

    stay_id: str
    text: str
    tokens: int
    ended: bool
    token_probability: float | None
    score: Score
    penalty: float

    @property
    def reward(self) -> float:
        """What training sees: R and the penalty."""
        return self.score.total + self.penalty


class RewardBook:
    """Scores rollouts and writes them down.

    Args:
        tasks: by stay id. scorer: R of the study. section: group size, longest completion and what a long one costs.
        end_id: the end-of-turn token. out: the job's folder.
    """

    __name__ = "reward"  # TRL names its metrics by it

    def __init__(self, tasks: Mapping[str, Task], scorer: Scorer, speller: Speller, section: Grpo, end_id: int,
                 out: Path) -> None:
        self._tasks, self._scorer, self._speller = tasks, scorer, speller
        self._section, self._end, self._out = section, end_id, out
        self._batch: list[Scored] = []
        self._filled = Filled(())

    def __call__(self, prompts: Sequence[str], completion_ids: Sequence[Sequence[int]],
                 stay_id: Sequence[str] | None = None, risk: Sequence[float | None] | None = None,
                 **columns: Any) -> list[float]:  # noqa: ARG002
        """The reward of each completion; `stay_id` says whose they are, without it `prompts`; `risk`: by tokens."""
        completions = [Completion(tuple(ids), one) for ids, one in
                       zip(completion_ids, risk or [None] * len(completion_ids), strict=True)]
        self._batch = [self._scored(*row) for row in zip(stay_id or prompts, completions, strict=True)]
        return [rollout.reward for rollout in self._batch]

    def has_signal(self, group: Group) -> bool:
        """Whether a group has a gradient (`teaches`)."""
        scored = [self._scored(group.stay_id, one) for one in group.completions]
        return teaches([one.reward for one in scored], [one.ended for one in scored], self._section.mask_truncated)

    def note(self, filled: Filled) -> None:
        """Told by what resamples: the batch that is about to be scored, and what was dropped on the way to it."""
        self._filled = filled

    def spent(self, step: int) -> int:
        """Rollouts sampled for the batches before optimiser step `step`, dropped ones included."""
        return sum(pl.scan_parquet(path).select(pl.len()).collect().item() for path in self._files(step))

    def record(self, step: int, mean: Tensor, bounds: Tensor) -> dict[str, float]:
        """Writes the batch that was scored last, sampled after `step` optimiser steps, and returns its means.

        Args:
            mean: Hbar (B,), NaN where no feature is mentioned. bounds: e(tau) (B,).
        """
        rounds = [group.round for group in self._filled.kept for _ in group.completions] or [0] * len(self._batch)
        rows = [{**self._row(step, index, rollout, number), "kept": True, "upper_bound": bound,
                 "mention_entropy": None if entropy != entropy else entropy}
                for index, (rollout, number, entropy, bound) in enumerate(
                    zip(self._batch, rounds, mean.tolist(), bounds.tolist(), strict=True))]
        rows += [{**self._row(step, index, self._scored(group.stay_id, one), group.round), "kept": False,
                  "upper_bound": None, "mention_entropy": None}
                 for group in self._filled.dropped for index, one in enumerate(group.completions)]
        frame = pl.DataFrame(rows, schema_overrides={
            "probability": pl.Float64, "token_probability": pl.Float64, "mention_entropy": pl.Float64,
            "upper_bound": pl.Float64, "features": pl.List(pl.String)})
        _write(frame, self._out / SCORED / f"{step:06d}.parquet")
        return self._means(frame) | {"resampled_groups": float(len(self._filled.dropped)),
                                     "rollouts_spent": float(self.spent(step) + frame.height)}

    def table(self, step: int) -> pl.DataFrame:
        """All batches sampled before optimiser step `step`, also written to `<out>/rollouts.parquet`."""
        frame = pl.concat([pl.read_parquet(path) for path in self._files(step)])
        _write(frame, self._out / TABLE)
        return frame

    def _files(self, step: int) -> list[Path]:
        """Records of the batches before `step`: a resumed job finds later ones of its former life as well."""
        return sorted(path for path in (self._out / SCORED).glob("*.parquet") if int(path.stem) < step)

    def _scored(self, stay_id: str, one: Completion) -> Scored:
        task, (text, _), ids = self._tasks[stay_id], self._speller.spell(one.ids), one.ids
        penalty = overlong_penalty(len(ids), self._section.completion_tokens, self._section.overlong_buffer)
        read = one.risk if self._section.reading == "tokens" else None
        return Scored(stay_id, text, len(ids), self._end in ids, one.risk,
                      self._scorer.score(text, task.label, task.expert_features, STYLE, read), penalty)

    def _row(self, step: int, index: int, rollout: Scored, number: int) -> dict[str, Any]:
        score = rollout.score
        return {"step": step, "stay_id": rollout.stay_id, "sample": index % self._section.generations, "round": number,
                "text": rollout.text, "tokens": rollout.tokens, "reward": rollout.reward,
                "outcome_reward": score.outcome, "attention_reward": score.attention,
                "overlong_penalty": rollout.penalty, "parsed": score.parsed, "well_formed": score.well_formed,
                "probability": score.probability, "token_probability": rollout.token_probability,
                "features": list(score.features), "ended": rollout.ended}

    def _means(self, frame: pl.DataFrame) -> dict[str, float]:
        """Means over the rollouts that train."""
        frame = frame.filter("kept")
        named = {"reward": "reward", "outcome_reward": "outcome_reward", "attention_reward": "attention_reward",
                 "overlong_penalty": "overlong_penalty", "parse_rate": "parsed", "well_formed": "well_formed",
                 "completion_tokens": "tokens", "ended": "ended"}
        return {name: float(frame[column].cast(pl.Float64).to_numpy().mean()) for name, column in named.items()
                } | {"zero_std_share": groups_without_signal(frame, self._section.mask_truncated)
                     / frame.select("step", "stay_id").n_unique()}


def teaches(rewards: Sequence[float], ended: Sequence[bool], mask_truncated: bool) -> bool:
    """Whether a group has a gradient: its rewards differ and, where truncated rollouts are masked, one ended."""
    return not equal(rewards) and (any(ended) or not mask_truncated)


def groups_without_signal(rollouts: pl.DataFrame, mask_truncated: bool) -> int:
    """How many groups were trained on that have no gradient.

    Args:
        rollouts: rows of `rollouts.parquet`.
    """
    groups = rollouts.filter("kept").group_by("step", "stay_id").agg("reward", "ended")
    return sum(not teaches(rewards, ended, mask_truncated)
               for rewards, ended in groups.select("reward", "ended").iter_rows())


def _write(frame: pl.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    frame.write_parquet(temporary)
    temporary.replace(path)
