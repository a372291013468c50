"""A whole study small enough for a test: generated stays, the tiny random policy, every stage real.

In: a folder. Out: the path of a configuration whose workspace lies in it, and a way to run `eag-rl` as a user does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from support.tiny_policy import tiny_policy


def tiny_study(folder: Path) -> Path:
    """Writes the configuration and the policy; returns the configuration's path."""
    model = tiny_policy(folder / "policy", context=2048)
    config = {
        "extends": "demo", "study": {"name": "tiny"}, "paths": {"workspace": str(folder / "workspace")},
        "cohort": {"synthetic": {"stays": 60}}, "expert": {"hidden": 8, "heads": 2, "epochs": 3, "seeds": 2},
        "prompts": {"features": 6, "visits": 2},
        "search": {"rollouts": 2, "depth": 2, "candidates": 2, "stays": 6, "question_tokens": 12, "answer_tokens": 12},
        "policy": {"model": str(model), "dtype": "float32", "lora": {"rank": 8, "alpha": 8},
                   "sft": {"epochs": 1},
                   "grpo": {"lr": 1e-3, "generations": 4, "prompts_per_batch": 2, "minibatches": 2, "micro_batch": 4,
                            "steps": 4, "stays": 6, "completion_tokens": 24}},
        "serving": {"context": 1024, "slots": 16, "kv_cache_gib": 0.5},
        "evaluation": {"stays": 8, "validation_stays": 4, "completion_tokens": 24, "bootstraps": 20}}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def command(*arguments: str) -> list[str]:
    """`eag-rl ARGUMENTS` with this Python."""
    return [sys.executable, "-m", "flows.cli", *arguments]


def eag_rl(*arguments: str, check: bool = True, seconds: float = 900.0) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end.

    Raises:
        AssertionError: it failed though `check` was asked for; the message holds its output.
    """
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=seconds, env=environment)
    assert not check or done.returncode == 0, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def last_json(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The JSON that a command printed last."""
    values: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return values


def ran(result: dict[str, Any]) -> set[str]:
    """Names of the stages that really ran."""
    return {stage["stage"] for stage in result["stages"] if stage["ran"]}
