import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from configs.schema import Grpo, Lora
from contracts.errors import ModelError, ServerError
from models.policy.adapter import SETTINGS, WEIGHTS, load_adapter, new_adapter, save_adapter
from models.policy.chat import ChatTokenizer, load_tokenizer
from models.policy.examples import Task
from models.policy.loading import load_base
from models.policy.rollouts import (
    Completion,
    Request,
    RolloutFunc,
    TransformersEngine,
    make_engine,
    read_batch,
    rollout_seed,
    up_to_end,
)

LORA = Lora(rank=4, alpha=8)


@pytest.fixture(scope="module")
def model(taught_folder: Path) -> Any:
    return new_adapter(load_base(taught_folder, "float32"), LORA)


@pytest.fixture
def tokenizer(taught_folder: Path) -> ChatTokenizer:
    return load_tokenizer(taught_folder)


@pytest.fixture
def tasks(tokenizer: ChatTokenizer) -> dict[str, Task]:
    return {name: Task(name, tuple(tokenizer.encode(text)), 0, ()) for name, text in
            (("a", "Is glucose high? Yes,"), ("b", "Will"))}


class CountingEngine:
    """Answers with the number of the request."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, model: Any, adapter: Path, requests: Sequence[Request]) -> list[Completion]:  # noqa: ARG002
        self.calls += 1
        assert (adapter / "adapter_model.safetensors").is_file()
        return [Completion((10 + index,)) for index in range(len(requests))]

    def close(self) -> None:
        """Holds nothing."""


def trainer(model: Any, step: int) -> Any:
    return SimpleNamespace(state=SimpleNamespace(global_step=step), model=model,
                           accelerator=SimpleNamespace(unwrap_model=lambda one: one))


def test_a_stored_batch_is_used_again_until_the_adapter_changes(model: Any, tasks: dict[str, Task], tmp_path: Path
                                                                ) -> None:
    engine = CountingEngine()
    rollout = RolloutFunc(tasks, engine, tmp_path, seed=1, end_id=2, kept=2)
    first = rollout(["a", "a", "b", "b"], trainer(model, 0))
    assert first["completion_ids"] == [[10], [11], [12], [13]] and first["logprobs"] is None
    assert first["prompt_ids"][2] == list(tasks["b"].prompt_ids)
    assert rollout(["a", "a", "b", "b"], trainer(model, 0)) == first and engine.calls == 1
    rollout(["a", "a"], trainer(model, 0))
    assert engine.calls == 2, "another batch under the same name is not taken for this one"
    weight = next(weight for name, weight in model.named_parameters() if "lora_B" in name)
    with torch.no_grad():
        weight += 1
    rollout(["a", "a"], trainer(model, 0))
    assert engine.calls == 3
    with torch.no_grad():
        weight -= 1


def test_every_rollout_has_a_seed_of_its_own() -> None:
    seeds = {rollout_seed(study, step, stay, sample) for study in (1, 2) for step in (0, 2) for stay in ("a", "b")
             for sample in range(4)}
    assert len(seeds) == 32 and all(0 <= seed < 2**31 for seed in seeds)


def test_only_the_newest_adapters_stay_on_disk(model: Any, tasks: dict[str, Task], tmp_path: Path) -> None:
    rollout = RolloutFunc(tasks, CountingEngine(), tmp_path, seed=1, end_id=2, kept=2)
    for step in (0, 2, 4):
        rollout(["a"], trainer(model, step))
    assert {path.name for path in (tmp_path / "served").iterdir()} == {"step-2", "step-4"}


def test_the_same_seed_gives_the_same_rollouts_and_leaves_the_trainers_dice_alone(
        model: Any, tasks: dict[str, Task], tokenizer: ChatTokenizer) -> None:
    engine = TransformersEngine(Grpo(completion_tokens=12), tokenizer, rows=4)
    requests = [Request(tasks[name], seed) for seed, name in enumerate(("a", "a", "b", "b"))]
    model.train()
    state = torch.random.get_rng_state()
    first = engine(model, Path(), requests)
    assert torch.equal(state, torch.random.get_rng_state()) and model.training
    assert engine(model, Path(), requests) == first
    assert len(set(first)) == 4 and all(1 <= len(one.ids) <= 12 for one in first)


def test_sampling_defaults_of_the_models_folder_change_no_rollout(taught_folder: Path, tasks: dict[str, Task],
                                                                  tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    folder = shutil.copytree(taught_folder, tmp_path / "model")
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {
        "do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "min_p": 0.2, "repetition_penalty": 3.0,
        "no_repeat_ngram_size": 2, "suppress_tokens": list(range(20, 60)), "max_length": 5, "num_beams": 2}))
    requests = [Request(tasks[name], seed) for seed, name in enumerate("aabb")]
    engine = TransformersEngine(Grpo(completion_tokens=12), tokenizer, rows=4)
    drawn = []
    for source in (taught_folder, folder):
        torch.manual_seed(0)
        drawn.append(engine(new_adapter(load_base(source, "float32"), LORA), Path(), requests))
    assert drawn[0] == drawn[1]


def test_greedy_rollouts_do_not_depend_on_the_padding(model: Any, tasks: dict[str, Task], tokenizer: ChatTokenizer
                                                      ) -> None:
    cold = Grpo(completion_tokens=8, temperature=1e-4)
    both = [Request(tasks[name], 1) for name in "ab"]
    together = TransformersEngine(cold, tokenizer, rows=2)(model, Path(), both)
    alone = [TransformersEngine(cold, tokenizer, rows=1)(model, Path(), [one])[0] for one in both]
    assert together == alone


def test_an_answer_ends_at_its_first_end_token() -> None:
    assert up_to_end([5, 6, 2, 2, 2], 2) == (5, 6, 2)
    assert up_to_end([5, 6], 2) == (5, 6)
    assert up_to_end([2, 2], 2) == (2,)


def test_an_unknown_file_is_no_batch(tmp_path: Path) -> None:
    assert read_batch(tmp_path / "none.parquet", []) is None


def test_the_vllm_engine_needs_a_server(tokenizer: ChatTokenizer) -> None:
    with pytest.raises(ServerError, match="no server"):
        make_engine({"context": 100}, Grpo(engine="vllm"), tokenizer)


def test_an_adapter_comes_back_as_it_was_saved(model: Any, taught_folder: Path, tmp_path: Path) -> None:
    folder = save_adapter(model, tmp_path / "adapter")
    again = load_adapter(load_base(taught_folder, "float32"), folder, LORA)
    ours = {name: weight for name, weight in again.named_parameters() if "lora" in name}
    assert all(torch.equal(weight, ours[name]) for name, weight in model.named_parameters() if "lora" in name)
    assert all(weight.requires_grad for weight in ours.values())


SAVING = """
import sys
from pathlib import Path
import torch
from configs.schema import Lora
from models.policy.adapter import adapter_digest, new_adapter, save_adapter
from models.policy.loading import load_base
from serving.adapters import adapter_name

torch.manual_seed(0)
folder = save_adapter(new_adapter(load_base(Path(sys.argv[1]), "float32"), Lora(rank=4, alpha=8)), Path(sys.argv[2]))
print(adapter_digest(folder), adapter_name(folder))
"""


@pytest.mark.slow
def test_an_adapter_has_the_same_bytes_and_names_in_every_process(taught_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(taught_folder, tmp_path / "copy")
    told = [subprocess.run([sys.executable, "-c", SAVING, str(model), str(tmp_path / seed)], check=True, timeout=240,
                           capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": seed}).stdout
            for seed, model in (("1", taught_folder), ("2", copy))]
    assert told[0] == told[1] and len(told[0].split()) == 2
    for part in (SETTINGS, WEIGHTS):
        assert (tmp_path / "1" / part).read_bytes() == (tmp_path / "2" / part).read_bytes()
    modules = json.loads((tmp_path / "1" / SETTINGS).read_text())["target_modules"]
    assert modules == sorted(modules) and len(modules) > 1


def test_an_adapter_of_another_rank_or_none_is_refused(model: Any, taught_folder: Path, tmp_path: Path) -> None:
    folder = save_adapter(model, tmp_path / "adapter")
    base = load_base(taught_folder, "float32")
    with pytest.raises(ModelError, match="rank 4"):
        load_adapter(base, folder, Lora(rank=8, alpha=8))
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ModelError, match="never pickles"):
        load_adapter(base, folder, LORA)
