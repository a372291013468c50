"""Stage 1 distilled: supervised fine-tuning on the harvested trajectories (EAG-RL, section 6 of the method notes).

In: a job {"model", "trajectories", "patients", "out", "section", "outcome", "context", "seed"} and, optional,
"count" and "style".
Out: `<out>/adapter`, `<out>/progress.jsonl`, `<out>/done.json`. Minimises -log p(trajectory | prompt), the loss on the
completion only and, with `answer_share`, weighted towards the stated probability. A rerun continues from the last whole
checkpoint.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor, nn
from trl import SFTConfig, SFTTrainer

from configs.schema import Policy
from contracts.patients import patients_of
from models.job import DONE, Job, job, write_json
from models.policy.adapter import new_adapter, save_adapter
from models.policy.chat import ChatRenderer, load_tokenizer
from models.policy.examples import IGNORED, STYLE, Example, examples_of, feature_count
from models.policy.loading import load_base
from models.policy.prefix import shareable, split_batch
from models.policy.training import ReportProgress, newest_checkpoint, quiet, shared_settings, size, step_of
from models.progress import ProgressLog, read

_METRICS = {"loss": "loss", "mean_token_accuracy": "token_accuracy", "entropy": "entropy", "grad_norm": "grad_norm",
            "learning_rate": "learning_rate", "epoch": "epoch"}


Collate = Callable[[list[dict[str, Any]]], dict[str, Any]]


def with_weights(collate: Collate) -> Collate:
    """A collator for rows that also hold a weight for each token: its batch and `weights` (B, L), 0 over padding."""
    def collated(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = collate(rows)
        weights = torch.zeros(batch["labels"].shape)
        for row, example in enumerate(rows):
            weights[row, :len(example["weights"])] = torch.tensor(example["weights"])
        return {**batch, "weights": weights}

    return collated


class PrefixSFTTrainer(SFTTrainer):
    """SFTTrainer with a weight for each token, which reads a prompt once for all rows that share it."""

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False,
                     num_items_in_batch: Tensor | int | None = None) -> Any:
        """The parent's loss, each token's log-probability times its weight.

        Columns before the first trained token of the batch are read without output head.
        """
        weights = inputs.pop("weights")
        columns = int((inputs["labels"] != IGNORED).int().argmax(dim=1).min()) - 1
        if shareable(model, columns):
            with self.accelerator.autocast():
                inputs |= split_batch(model, inputs["input_ids"], inputs["attention_mask"], columns)
            inputs["labels"], weights = inputs["labels"][:, columns:], weights[:, columns:]

        def weighted(**values: Any) -> Any:
            """The model with weighted log-probabilities; its output of column t scores the token of column t + 1."""
            outputs = model(**values)
            if values.get("fused_lm_head"):
                outputs.log_probs = outputs.log_probs * weights[:, 1:]
            return outputs

        return super().compute_loss(weighted, inputs, return_outputs, num_items_in_batch)


def make_trainer(model: PeftModel, tokenizer: Any, examples: Sequence[Example], section: Policy, out: Path,
                 seed: int) -> PrefixSFTTrainer:
    """The trainer of one job.

    Args:
        model: the base with its adapter. tokenizer: the model's, as transformers loads it.
    """
    sft = section.sft
    settings = SFTConfig(
        **shared_settings(out, section.dtype, seed, size(model)), learning_rate=sft.lr, num_train_epochs=sft.epochs,
        per_device_train_batch_size=sft.batch_size, gradient_accumulation_steps=sft.accumulation,
        lr_scheduler_type="linear", max_length=None, packing=False, save_steps=_often(
            len(examples), sft.batch_size * sft.accumulation), dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False)
    rows = Dataset.from_list([example.columns(sft.answer_share) for example in examples])
    trainer = PrefixSFTTrainer(model=model, args=settings, train_dataset=rows, processing_class=tokenizer)
    trainer.data_collator = with_weights(trainer.data_collator)  # over TRL's, which finds a padding token
    settings.warmup_steps = math.ceil(sft.warmup * _steps(trainer))  # as a share, 1.0 would be taken for one step
    return trainer


def fine_tune(values: Job) -> dict[str, Any]:
    """Runs the job and returns its summary, which is also in `<out>/done.json`."""
    from transformers import AutoTokenizer

    started, out, section = time.monotonic(), Path(values["out"]), Policy.model_validate(values["section"])
    examples = _examples(values)
    torch.manual_seed(values["seed"])
    model = new_adapter(load_base(Path(values["model"]), section.dtype), section.lora)
    trainer = make_trainer(model, AutoTokenizer.from_pretrained(values["model"]), examples, section, out,
                           values["seed"])
    total = _steps(trainer)
    trainer.add_callback(ReportProgress(ProgressLog(out / "progress.jsonl", total), _METRICS))
    steps = _train(trainer, total, newest_checkpoint(out))
    save_adapter(model, out / "adapter")
    tokens = sum(len(example) for example in examples)
    done = {"steps": steps, "examples": len(examples), "tokens": tokens,
            "completion_tokens": sum(len(example.completion_ids) for example in examples),
            "train_loss": _mean_loss(out), "seconds": round(time.monotonic() - started, 2)}
    write_json(out / DONE, done)
    return done


def _examples(values: Job) -> list[Example]:
    patients = patients_of(pl.read_parquet(values["patients"]))
    render = ChatRenderer(load_tokenizer(Path(values["model"])))
    return examples_of(pl.read_parquet(values["trajectories"]), patients, render, outcome=values["outcome"],
                       count=values.get("count") or feature_count(patients), context=values["context"],
                       style=values.get("style") or STYLE)


def _train(trainer: SFTTrainer, total: int, checkpoint: str | None) -> int:
    """Trains to the end and returns the number of optimiser steps, those of a former life of the job included."""
    if checkpoint and step_of(checkpoint) >= total:  # run again after its last step; the trainer would end its epoch
        trainer._load_from_checkpoint(checkpoint)
        return step_of(checkpoint)
    trainer.train(resume_from_checkpoint=checkpoint)
    return int(trainer.state.global_step)


def _mean_loss(out: Path) -> float:
    """Mean loss of all optimiser steps; the trainer's own knows nothing of a former life of the job."""
    losses = {step.step: step.metrics["loss"] for step in read(out / "progress.jsonl")}  # a step done again counts once
    return statistics.fmean(losses.values())


def _steps(trainer: SFTTrainer) -> int:
    """Optimiser steps of the whole training."""
    batches = len(trainer.get_train_dataloader())
    per_epoch = -(-batches // trainer.args.gradient_accumulation_steps)
    return -int(-trainer.args.num_train_epochs * per_epoch // 1)


def _often(examples: int, per_step: int) -> int:
    """Optimiser steps between checkpoints: four in an epoch."""
    return max(1, examples // (4 * per_step))


if __name__ == "__main__":
    quiet()
    job(fine_tune, ("model", "trajectories", "patients", "out", "section", "outcome", "context", "seed"),
        "policy.sft.batch_size (raise policy.sft.accumulation in turn), prompts.features or prompts.visits")
