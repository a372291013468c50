import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from models.policy import grpo, rollouts, sft
from models.policy.training import newest_checkpoint
from models.progress import read

pytestmark = pytest.mark.slow

Make = Callable[..., dict[str, Any]]


class Killed(Exception):
    """Stands for the end of the process."""


def weights(values: dict[str, Any]) -> dict[str, torch.Tensor]:
    return load_file(Path(values["out"]) / "adapter" / "adapter_model.safetensors")


def same(first: dict[str, Any], second: dict[str, Any]) -> None:
    one, other = weights(first), weights(second)
    assert one.keys() == other.keys()
    for name in one:
        assert torch.allclose(one[name], other[name], atol=1e-5), name
    assert max(float(weight.abs().max()) for name, weight in one.items() if "lora_B" in name) > 1e-4


@pytest.mark.parametrize("kl", [0.0, 0.05])
def test_an_interrupted_optimisation_ends_like_an_uninterrupted_one(policy_job: Make, monkeypatch: pytest.MonkeyPatch,
                                                                    kl: float) -> None:
    whole, cut = policy_job("whole", steps=6, kl=kl), policy_job("cut", steps=6, kl=kl)
    grpo.optimise(whole)
    generate = rollouts.TransformersEngine.__call__
    calls = []

    def die_at_the_third(self: Any, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise Killed
        return generate(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(rollouts.TransformersEngine, "__call__", die_at_the_third)
        with pytest.raises(Killed):
            grpo.optimise(cut)
    assert Path(str(newest_checkpoint(Path(cut["out"])))).name == "checkpoint-4"
    grpo.optimise(cut)
    same(whole, cut)
    assert [step.step for step in read(Path(cut["out"]) / "progress.jsonl")] == [1, 2, 3, 4, 5, 6]


def test_a_finished_training_run_again_changes_nothing(policy_job: Make) -> None:
    values = policy_job(steps=2)
    grpo.optimise(values)
    before = weights(values)
    done = grpo.optimise(values)
    assert done["steps"] == 2 and all(torch.equal(before[name], weight) for name, weight in weights(values).items())


def test_an_optimisation_that_ends_inside_a_rollout_batch_changes_nothing_when_run_again(policy_job: Make) -> None:
    values = policy_job(steps=3)
    first, before = grpo.optimise(values), weights(values)
    again = grpo.optimise(values)
    assert (again["steps"], again["rollouts"]) == (first["steps"], first["rollouts"]) == (3, 16)
    assert all(torch.equal(before[name], weight) for name, weight in weights(values).items())


def test_a_fine_tuning_that_ends_inside_an_epoch_changes_nothing_when_run_again(policy_job: Make) -> None:
    values = policy_job(sft={"epochs": 1.5})
    first, before = sft.fine_tune(values), weights(values)
    again = sft.fine_tune(values)
    assert again["steps"] == first["steps"] == 6 and again["train_loss"] == first["train_loss"]
    assert all(torch.equal(before[name], weight) for name, weight in weights(values).items())


def test_a_half_written_checkpoint_is_passed_over(tmp_path: Path) -> None:
    for step, state in ((2, '{"global_step": 2}'), (4, '{"global_st')):
        folder = tmp_path / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "trainer_state.json").write_text(state)
    (tmp_path / "checkpoints" / "checkpoint-6").mkdir()
    assert Path(str(newest_checkpoint(tmp_path))).name == "checkpoint-2"
    assert newest_checkpoint(tmp_path / "nothing") is None


def test_an_interrupted_fine_tuning_ends_like_an_uninterrupted_one(policy_job: Make,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = policy_job("whole", sft={"epochs": 2}), policy_job("cut", sft={"epochs": 2})
    done = sft.fine_tune(whole)
    compute, calls = sft.PrefixSFTTrainer.compute_loss, []

    def die_at_the_sixth(self: Any, *arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:
            raise Killed
        return compute(self, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(sft.PrefixSFTTrainer, "compute_loss", die_at_the_sixth)
        with pytest.raises(Killed):
            sft.fine_tune(cut)
    assert sft.fine_tune(cut)["train_loss"] == pytest.approx(done["train_loss"], abs=1e-4)
    same(whole, cut)


@pytest.mark.smoke
def test_a_job_that_is_killed_and_run_again_ends_like_an_uninterrupted_one(policy_job: Make) -> None:
    whole, cut = policy_job("whole", steps=8), policy_job("cut", steps=8)

    def start(values: dict[str, Any]) -> subprocess.Popen[bytes]:
        path = Path(values["out"]).with_suffix(".json")
        path.write_text(json.dumps(values))
        return subprocess.Popen([sys.executable, "-m", "models.policy.grpo", "--job", str(path)],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    assert start(whole).wait(timeout=300) == 0
    child = start(cut)
    deadline = time.monotonic() + 300
    while newest_checkpoint(Path(cut["out"])) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait(timeout=60) == -signal.SIGKILL
    assert not (Path(cut["out"]) / "done.json").exists()
    assert start(cut).wait(timeout=300) == 0
    assert json.loads((Path(cut["out"]) / "done.json").read_text())["steps"] == 8
    same(whole, cut)
