"""Stage `sft`: stage 1 distilled, a LoRA adapter trained on the harvested trajectories in a child process."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from configs.load import dump
from tasks.base import model_folder
from tasks.stage import Made, Work, input_file, listed, stage


@stage("sft", settings=("policy.sft", "policy.lora", "policy.dtype", "prompts.expert_features", "cohort.outcome",
                        "serving.context", "study.seed"),
       packages=("torch", "transformers", "peft", "trl"), jobs=("models.policy.sft",))
def sft(work: Work) -> Made:
    """Trains the stage-1 adapter."""
    config, out = work.config, work.scratch / "training"
    done = work.job("models.policy.sft", {
        "model": str(model_folder(work.inputs["base"], work.session.workspace)), "out": str(out),
        "section": dump(config.policy),
        "trajectories": str(input_file(work, "trajectories", "trajectories.parquet")),
        "patients": str(input_file(work, "patients", "patients.parquet")), "outcome": config.cohort.outcome,
        "count": config.prompts.expert_features, "context": config.serving.context, "seed": config.study.seed})
    keep_adapter(out, work.out)
    return Made(metrics=numbers(done), model="lora-adapter", summary=listed(numbers(done)))


def keep_adapter(training: Path, out: Path) -> None:
    """Copies what later stages need out of a training folder: the adapter, the curve and the rollouts."""
    shutil.copytree(training / "adapter", out / "adapter")
    for name in ("progress.jsonl", "rollouts.parquet"):
        if (training / name).exists():
            shutil.copy2(training / name, out / name)


def numbers(done: Mapping[str, object]) -> dict[str, float]:
    """The numbers of a job's summary."""
    flat = {**done, **metrics} if isinstance(metrics := done.get("metrics"), Mapping) else dict(done)
    return {name: float(value) for name, value in flat.items()
            if isinstance(value, int | float) and not isinstance(value, bool)}
