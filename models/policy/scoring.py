"""The reward that TRL calls, and the record of every rollout batch.

In: completions as token ids. Out: R for each (TRL's reward function), means for the log, and one parquet file a batch
with text, parts of the reward and e(tau), for the report. An exception in a reward is a bug and stops the run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from torch import Tensor

from models.policy.examples import STYLE, Task
from models.policy.spelling import Speller
from rewards.mixture import Score, Scorer

SCORED, TABLE = "scored", "rollouts.parquet"


@dataclass(frozen=True)
class Scored:
    """One rollout and what it earned."""

    stay_id: str
    text: str
    tokens: int
    ended: bool
    score: Score


class RewardBook:
    """Scores rollouts and writes them down.

    Args:
        tasks: by stay id. scorer: R of the study. group: G. end_id: the end-of-turn token. out: the job's folder.
    """

    __name__ = "reward"  # TRL names its metrics by it

    def __init__(self, tasks: Mapping[str, Task], scorer: Scorer, speller: Speller, group: int, end_id: int,
                 out: Path) -> None:
        self._tasks, self._scorer, self._speller = tasks, scorer, speller
        self._group, self._end, self._out = group, end_id, out
        self._batch: list[Scored] = []

    def __call__(self, prompts: Sequence[str], completion_ids: Sequence[Sequence[int]], **columns: Any  # noqa: ARG002
                 ) -> list[float]:
        """R of each completion; `prompts` are stay ids."""
        self._batch = [self._scored(stay_id, ids) for stay_id, ids in zip(prompts, completion_ids, strict=True)]
        return [rollout.score.total for rollout in self._batch]

    def record(self, step: int, mean: Tensor, bounds: Tensor) -> dict[str, float]:
        """Writes the batch that was scored last, sampled after `step` optimiser steps, and returns its means.

        Args:
            mean: Hbar (B,), NaN where no feature is mentioned. bounds: e(tau) (B,).
        """
        rows = [{"step": step, "stay_id": rollout.stay_id, "sample": index % self._group, "text": rollout.text,
                 "tokens": rollout.tokens, "reward": rollout.score.total, "outcome_reward": rollout.score.outcome,
                 "attention_reward": rollout.score.attention, "parsed": rollout.score.parsed,
                 "well_formed": rollout.score.well_formed, "probability": rollout.score.probability,
                 "features": list(rollout.score.features), "ended": rollout.ended,
                 "mention_entropy": None if entropy != entropy else entropy, "upper_bound": bound}
                for index, (rollout, entropy, bound) in enumerate(
                    zip(self._batch, mean.tolist(), bounds.tolist(), strict=True))]
        frame = pl.DataFrame(rows, schema_overrides={"probability": pl.Float64, "mention_entropy": pl.Float64,
                                                     "features": pl.List(pl.String)})
        _write(frame, self._out / SCORED / f"{step:06d}.parquet")
        return self._means(frame)

    def table(self) -> pl.DataFrame:
        """All recorded batches, also written to `<out>/rollouts.parquet`."""
        frame = pl.concat([pl.read_parquet(path) for path in sorted((self._out / SCORED).glob("*.parquet"))])
        _write(frame, self._out / TABLE)
        return frame

    def _scored(self, stay_id: str, ids: Sequence[int]) -> Scored:
        task, (text, _) = self._tasks[stay_id], self._speller.spell(ids)
        return Scored(stay_id, text, len(ids), self._end in ids,
                      self._scorer.score(text, task.label, task.expert_features, STYLE))

    def _means(self, frame: pl.DataFrame) -> dict[str, float]:
        rewards = frame["reward"].to_list()
        groups = [rewards[start:start + self._group] for start in range(0, len(rewards), self._group)]
        flat = sum(max(group) - min(group) < 1e-8 for group in groups) / len(groups)
        named = {"reward": "reward", "outcome_reward": "outcome_reward", "attention_reward": "attention_reward",
                 "parse_rate": "parsed", "well_formed": "well_formed", "completion_tokens": "tokens", "ended": "ended"}
        return {name: float(frame[column].cast(pl.Float64).to_numpy().mean()) for name, column in named.items()
                } | {"zero_std_share": flat}


def _write(frame: pl.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    frame.write_parquet(temporary)
    temporary.replace(path)
