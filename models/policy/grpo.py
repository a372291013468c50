"""Stage 2: the policy optimised with attention-aligned rewards and entropy-aware clipping (EAG-RL; method section 7).

In: a job {"model", "adapter" (null: a fresh one), "patients", "out", "section", "rewards", "catalogue", "outcome",
"context", "seed", "stays"}; "count", and for the engine vllm "server" and "serving". Out: `<out>/adapter`,
`<out>/rollouts.parquet`, `<out>/progress.jsonl`, `<out>/done.json`. Checkpoints lie between rollout batches, so that a
job that was killed goes on with a whole batch. The baselines are settings of the same trainer: GRPO (entropy_clip off,
clip_min 0.2, reward_weight 1) and DAPO (entropy_clip off, clip_min 0.28, loss dapo, resample_rounds, overlong_buffer,
mask_truncated, reward_weight 1); "adapter": null trains from the base model, without stage 1.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import torch
from datasets import Dataset
from peft import PeftModel
from trl import GRPOConfig

from configs.schema import Grpo, Policy, Rewards, Serving
from contracts.errors import ConfigError
from contracts.features import catalogue
from contracts.patients import patients_of
from models.job import DONE, Job, job, write_json
from models.policy.adapter import load_adapter, new_adapter, save_adapter
from models.policy.budget import Budget, StopAtBudget
from models.policy.chat import ChatRenderer, ChatTokenizer, load_tokenizer
from models.policy.entropy_clip import Clipping, EntropyClipGRPOTrainer
from models.policy.examples import Task, feature_count, tasks_of
from models.policy.loading import load_base
from models.policy.resampling import Resampling
from models.policy.rollouts import Engine, RolloutFunc, make_engine
from models.policy.scoring import RewardBook, groups_without_signal
from models.policy.spelling import Speller
from models.policy.training import ReportProgress, newest_checkpoint, quiet, shared_settings, size, step_of
from models.policy.watch import warnings_of
from models.progress import ProgressLog, read
from prompts.mentions import MentionFinder
from rewards.mixture import Scorer

NEEDS = ("model", "adapter", "patients", "out", "section", "rewards", "catalogue", "outcome", "context", "seed",
         "stays")
LOGGED = ("loss", "reward", "outcome_reward", "attention_reward", "overlong_penalty", "parse_rate", "well_formed",
          "zero_std_share", "resampled_groups", "rollouts_spent",
          "mention_entropy", "without_mentions", "bound_min", "bound_mean", "bound_max", "clipped_above",
          "clipped_below", "trajectories_clipped_above", "trajectories_clipped_below", "completion_tokens", "ended",
          "drift", "kl", "entropy", "grad_norm", "learning_rate", "step_time")


def settings_of(section: Grpo, shared: Mapping[str, Any], rollouts_per_process: int) -> GRPOConfig:
    """Our section in TRL's words: one generation for minibatches * iterations optimiser steps.

    Args:
        shared: settings of `training.shared_settings`.
        rollouts_per_process: rows of one rollout batch on one device.
    """
    accumulation = rollouts_per_process // (section.minibatches * section.micro_batch)
    return GRPOConfig(
        **shared, learning_rate=section.lr, lr_scheduler_type="constant", max_steps=section.steps,
        per_device_train_batch_size=section.micro_batch, gradient_accumulation_steps=accumulation,
        steps_per_generation=section.minibatches * accumulation, num_iterations=section.iterations,
        num_generations=section.generations, max_completion_length=section.completion_tokens,
        temperature=section.temperature, epsilon=section.clip, epsilon_high=section.clip_min, beta=section.kl,
        loss_type=section.loss, scale_rewards="group", mask_truncated_completions=section.mask_truncated,
        disable_dropout=True, shuffle_dataset=False, save_steps=section.steps_per_batch * section.checkpoint_batches)


def prompt_order(stays: Sequence[str], section: Grpo, seed: int) -> list[str]:
    """Stays of all rollout batches one after the other: whole shuffled passes over the stays, cut where training ends.

    Written out before training, so that a resumed job meets the same prompts; no prompt repeats within a batch.

    Raises:
        ConfigError: there are fewer stays than prompts in a rollout batch, or none beside them to stand in.
    """
    if section.resample_rounds and len(stays) == section.prompts_per_batch:
        raise ConfigError(f"{len(stays)} training stays, all of them in every rollout batch",
                          f"policy.grpo.resample_rounds = {section.resample_rounds} needs other prompts to stand in",
                          "lower prompts_per_batch, raise policy.grpo.stays, or set resample_rounds to 0")
    if len(stays) < section.prompts_per_batch:
        raise ConfigError(f"{len(stays)} training stays", f"at least policy.grpo.prompts_per_batch = "
                          f"{section.prompts_per_batch}", "lower prompts_per_batch or raise policy.grpo.stays")
    batches = -(-section.steps // section.steps_per_batch)
    order: list[str] = []
    dice = random.Random(f"{seed}|prompts")
    while len(order) < batches * section.prompts_per_batch:
        chosen = dice.sample(list(stays), len(stays))
        order.extend(chosen[:len(stays) // section.prompts_per_batch * section.prompts_per_batch])
    return order[:batches * section.prompts_per_batch]


def make_trainer(model: PeftModel, tokenizer: ChatTokenizer, tasks: Sequence[Task], section: Policy, values: Job,
                 engine: Engine) -> tuple[EntropyClipGRPOTrainer, RewardBook]:
    """The trainer of one job and the book that scores and records its rollouts."""
    from transformers import AutoTokenizer

    out, grpo, by_stay = Path(values["out"]), section.grpo, {task.stay_id: task for task in tasks}
    finder, speller = MentionFinder(catalogue(values["catalogue"])), Speller(tokenizer)
    book = RewardBook(by_stay, Scorer(finder, rewards_of(values, grpo)), speller, grpo, tokenizer.eos_id, out)
    resampling = Resampling(grpo.resample_rounds, book, Budget(grpo, book.spent).groups_beyond)
    rollouts = RolloutFunc(by_stay, engine, out, values["seed"], tokenizer.eos_id,
                           kept=Serving.model_validate(values.get("serving") or {}).adapters, resampling=resampling)
    settings = settings_of(grpo, shared_settings(out, section.dtype, values["seed"], size(model)),
                           grpo.rollouts_per_batch)
    order = prompt_order(list(by_stay), grpo, values["seed"])
    trainer = EntropyClipGRPOTrainer(
        model=model, args=settings, reward_funcs=[book], train_dataset=Dataset.from_dict({"prompt": order}),
        processing_class=AutoTokenizer.from_pretrained(tokenizer.folder), rollout_func=rollouts,
        clipping=Clipping(grpo, speller, finder),
        on_batch=lambda mean, bounds: book.record(trainer.state.global_step, mean, bounds))
    return trainer, book


def optimise(values: Job) -> dict[str, Any]:
    """Runs the job and returns its summary, which is also in `<out>/done.json`."""
    started, out, section = time.monotonic(), Path(values["out"]), Policy.model_validate(values["section"])
    tokenizer = load_tokenizer(Path(values["model"]))
    tasks = _tasks(values, tokenizer, section.grpo)
    torch.manual_seed(values["seed"])
    base = load_base(Path(values["model"]), section.dtype)
    model = load_adapter(base, Path(values["adapter"]), section.lora) if values["adapter"] else new_adapter(
        base, section.lora)
    with closing(make_engine(values, section.grpo, tokenizer)) as engine:
        trainer, book = make_trainer(model, tokenizer, tasks, section, values, engine)
        budget = Budget(section.grpo, book.spent)
        trainer.add_callback(ReportProgress(ProgressLog(out / "progress.jsonl", section.grpo.steps),
                                            {name: name for name in LOGGED}))
        trainer.add_callback(StopAtBudget(budget))
        steps = _train(trainer, budget, newest_checkpoint(out))
    save_adapter(model, out / "adapter")
    rollouts, ending = book.table(steps), budget.ending(steps)
    done = {"steps": steps, "stays": len(tasks), **counts(rollouts, section.grpo),
            "seconds": round(time.monotonic() - started, 2), **({"ended_early": ending} if ending else {}),
            **_summary(out, steps, section.grpo, rewards_of(values, section.grpo).weight)}
    write_json(out / DONE, done)
    return done


def rewards_of(values: Job, section: Grpo) -> Rewards:
    """The rewards of stage 2: those of the study, with a weight of their own where the section has one."""
    rewards = Rewards.model_validate(values["rewards"])
    return rewards if section.reward_weight is None else rewards.model_copy(update={"weight": section.reward_weight})


def counts(rollouts: pl.DataFrame, section: Grpo) -> dict[str, int]:
    """What was sampled: all rollouts, groups sampled to stand in for others, and groups that trained without a signal.

    Args:
        rollouts: rows of `rollouts.parquet`.
    """
    return {"rollouts": rollouts.height,
            "resampled_groups": rollouts.filter(~pl.col("kept")).height // section.generations,
            "groups_without_signal": groups_without_signal(rollouts, section.mask_truncated)}


def _train(trainer: EntropyClipGRPOTrainer, budget: Budget, checkpoint: str | None) -> int:
    """Trains to the end and returns the number of optimiser steps, those of a former life of the job included."""
    reached = step_of(checkpoint) if checkpoint else 0
    # Run again after its last step: the trainer would sample once more, or go on to the end of its epoch.
    if checkpoint and (reached >= budget.section.steps or budget.exhausted(reached)):
        trainer._load_from_checkpoint(checkpoint)
        return reached
    trainer.train(resume_from_checkpoint=checkpoint)
    return int(trainer.state.global_step)


def _tasks(values: Job, tokenizer: ChatTokenizer, section: Grpo) -> list[Task]:
    patients = patients_of(pl.read_parquet(values["patients"]))
    return tasks_of(values["stays"], patients, ChatRenderer(tokenizer), outcome=values["outcome"],
                    count=values.get("count") or feature_count(patients), context=values["context"],
                    answer_tokens=section.completion_tokens)


def _summary(out: Path, reached: int, section: Grpo, weight: float) -> dict[str, Any]:
    """Rewards of the first and the last rollout batch, the largest shares that were clipped, and warnings."""
    steps = {step.step: step for step in read(out / "progress.jsonl") if step.step <= reached}
    metrics = {number: step.metrics for number, step in steps.items()}
    first, last = metrics[min(metrics)], metrics[max(metrics)]
    told = {f"{name}_{when}": row[name] for name in ("reward", "outcome_reward", "attention_reward", "parse_rate")
            for when, row in (("first", first), ("last", last)) if name in row}
    most = {f"{name}_most": max(row.get(name, 0.0) for row in metrics.values())
            for name in ("clipped_above", "clipped_below", "trajectories_clipped_above", "bound_max")}
    return told | most | {"warnings": warnings_of([steps[number] for number in sorted(steps)], section, weight)}


if __name__ == "__main__":
    quiet()
    job(optimise, NEEDS, "policy.grpo.micro_batch, policy.grpo.completion_tokens, prompts.features or prompts.visits")
