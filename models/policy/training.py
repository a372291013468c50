"""What both training jobs share: settings of the Hugging Face trainer, complete checkpoints, progress.

In: a job's folder. Out: `<out>/checkpoints`, `<out>/progress.jsonl`. A checkpoint counts once its last file is whole,
so that a job killed while writing one continues from the one before.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from models.policy.loading import Dtype
from models.progress import ProgressLog

CHECKPOINTS, STATE = "checkpoints", "trainer_state.json"
# Networks above this many parameters recompute activations in the backward pass.
LARGE = 1_000_000_000


def shared_settings(out: Path, dtype: Dtype, seed: int, parameters: int) -> dict[str, Any]:
    """Arguments of both trainers; TRL turns bfloat16 and recomputation of activations on unless told otherwise.

    Args:
        parameters: of the network. Activations of large ones are recomputed; small ones share prefixes instead.
    """
    on_gpu = torch.cuda.is_available()
    return {"output_dir": str(out / CHECKPOINTS), "seed": seed, "data_seed": seed, "bf16": dtype == "bfloat16",
            "fp16": False, "tf32": None, "use_cpu": not on_gpu, "gradient_checkpointing": parameters > LARGE,
            "report_to": "none",
            "logging_steps": 1, "logging_first_step": True, "save_strategy": "steps", "save_total_limit": 2,
            "disable_tqdm": True, "push_to_hub": False, "dataloader_num_workers": 0, "dataloader_pin_memory": on_gpu,
            "optim": "adamw_torch", "weight_decay": 0.0, "trust_remote_code": False}


def size(model: torch.nn.Module) -> int:
    """Number of parameters, trained or not."""
    return sum(parameter.numel() for parameter in model.parameters())


def newest_checkpoint(out: Path) -> str | None:
    """The newest checkpoint that is whole, none where there is no such."""
    steps = {}
    for folder in (out / CHECKPOINTS).glob("checkpoint-*"):
        try:
            steps[step_of(folder)] = folder
        except (OSError, json.JSONDecodeError, KeyError):
            continue  # cut off by a kill: the one before is used
    return str(steps[max(steps)]) if steps else None


def step_of(checkpoint: str | Path) -> int:
    """Optimiser steps that a whole checkpoint has behind it."""
    return int(json.loads((Path(checkpoint) / STATE).read_text(encoding="utf-8"))["global_step"])


def quiet() -> None:
    """No warnings about tokenizer threads and about TRL's `rollout_func`, which the seam tests watch over."""
    os.environ.update({"TOKENIZERS_PARALLELISM": "false", "TRL_EXPERIMENTAL_SILENCE": "1"})


class ReportProgress(TrainerCallback):
    """Appends each optimiser step's metrics to the progress log.

    Args:
        log: where they go.
        names: the trainer's names to ours; other metrics are left out.
    """

    def __init__(self, log: ProgressLog, names: Mapping[str, str]) -> None:
        self._log, self._names = log, names

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl,  # noqa: ARG002
               logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:  # noqa: ARG002
        """Called by the trainer after each logged step."""
        if logs is None or "loss" not in logs:  # the summary at the end of a training
            return
        self._log.log(state.global_step, **{ours: float(logs[theirs]) for theirs, ours in self._names.items()
                                            if logs.get(theirs) is not None})
