import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from trl import SFTTrainer

from configs.schema import Policy
from contracts.errors import DataError, PromptTooLongError
from contracts.patients import patients_of
from models.policy import sft
from models.policy.adapter import new_adapter
from models.policy.chat import ChatRenderer, ChatTokenizer, load_tokenizer
from models.policy.examples import examples_of, feature_count, tasks_of
from models.policy.loading import load_base
from models.progress import read
from prompts.grammar import parse
from prompts.templates import messages

Make = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def tokenizer(taught_folder: Path) -> ChatTokenizer:
    return load_tokenizer(taught_folder)


@pytest.fixture
def made(tokenizer: ChatTokenizer, patients_frame: pl.DataFrame, trajectories_frame: pl.DataFrame) -> list:
    return examples_of(trajectories_frame, patients_of(patients_frame), ChatRenderer(tokenizer), outcome="mortality",
                       count=2, context=1024)


def test_only_the_completion_is_learned_and_its_end_token_too(made: list, tokenizer: ChatTokenizer) -> None:
    columns = made[0].columns()
    prompt = len(made[0].prompt_ids)
    assert columns["labels"][:prompt] == [-100] * prompt
    assert columns["labels"][prompt:] == columns["input_ids"][prompt:]
    assert columns["labels"][-1] == tokenizer.eos_id
    assert columns["labels"].count(tokenizer.eos_id) == 1
    assert tokenizer.decode(columns["labels"][prompt:]).startswith("<Subquestion 1>")


def test_the_prompt_is_the_one_that_search_and_evaluation_render(made: list, tokenizer: ChatTokenizer,
                                                                 patients_frame: pl.DataFrame) -> None:
    evidence = patients_frame.filter(pl.col("stay_id") == "s0")["evidence"].item()
    ids = ChatRenderer(tokenizer)(messages(evidence, "decomposition", "mortality", 2))
    assert list(made[0].prompt_ids) == ids
    assert len(made) == 8


def test_what_does_not_fit_is_an_error_and_never_cut(tokenizer: ChatTokenizer, patients_frame: pl.DataFrame,
                                                     trajectories_frame: pl.DataFrame) -> None:
    with pytest.raises(PromptTooLongError, match="prompt tokens"):
        examples_of(trajectories_frame, patients_of(patients_frame), ChatRenderer(tokenizer), outcome="mortality",
                    count=2, context=120)


def test_a_test_stay_is_never_trained_on(tokenizer: ChatTokenizer, patients_frame: pl.DataFrame,
                                         trajectories_frame: pl.DataFrame) -> None:
    patients, render = patients_of(patients_frame), ChatRenderer(tokenizer)
    rows = trajectories_frame.head(1).with_columns(stay_id=pl.lit("s8"))
    with pytest.raises(DataError, match="split test"):
        examples_of(rows, patients, render, outcome="mortality", count=2, context=1024)
    with pytest.raises(DataError, match="split test"):
        tasks_of(["s0", "s8"], patients, render, outcome="mortality", count=2, context=1024, answer_tokens=8)
    with pytest.raises(DataError, match="not among"):
        tasks_of(["s99"], patients, render, outcome="mortality", count=2, context=1024, answer_tokens=8)
    with pytest.raises(DataError, match="no trajectories"):
        examples_of(rows.clear(), patients, render, outcome="mortality", count=2, context=1024)


def test_the_number_of_features_asked_for_is_that_of_the_expert(patients_frame: pl.DataFrame) -> None:
    patients = patients_of(patients_frame)
    assert feature_count(patients) == 2
    with pytest.raises(DataError):
        feature_count([])


def test_the_loss_and_gradient_are_those_of_the_parent(policy_job: Make) -> None:
    values = policy_job(sft={"batch_size": 4})
    section, folder = Policy.model_validate(values["section"]), Path(values["model"])
    from transformers import AutoTokenizer

    model = new_adapter(load_base(folder, "float32"), section.lora)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    trainer = sft.make_trainer(model, AutoTokenizer.from_pretrained(folder), sft._examples(values), section,
                               Path(values["out"]), 1)
    batch = next(iter(trainer.get_train_dataloader()))
    results = []
    for method in (sft.PrefixSFTTrainer, SFTTrainer):
        model.zero_grad()
        inputs = dict(batch) if method is sft.PrefixSFTTrainer else {name: values for name, values in batch.items()
                                                                     if name != "weights"}
        loss = method.compute_loss(trainer, model, inputs)
        loss.backward()
        results.append((loss.detach(), torch.cat([weight.grad.flatten() for weight in model.parameters()
                                                  if weight.grad is not None])))
    assert float(results[0][0]) == pytest.approx(float(results[1][0]), abs=1e-5)
    assert torch.allclose(results[0][1], results[1][1], atol=1e-5)
    assert results[0][1].abs().max() > 1e-3


def test_the_stated_probability_carries_its_share_of_the_loss(made: list, tokenizer: ChatTokenizer) -> None:
    for example in made:
        number = "".join(tokenizer.decode([example.completion_ids[column]]) for column in example.stated)
        assert float(number) == parse(tokenizer.decode(example.completion_ids)).probability
        weights = torch.tensor(example.columns(0.5)["weights"][len(example.prompt_ids):])
        assert float(weights[list(example.stated)].sum() / weights.sum()) == pytest.approx(0.5)
        assert float(weights.mean()) == pytest.approx(1.0)
        assert set(example.columns()["weights"][len(example.prompt_ids):]) == {1.0}
        assert set(example.columns(0.5)["weights"][:len(example.prompt_ids)]) == {0.0}


def test_the_loss_with_a_share_is_the_weighted_sum_of_log_probabilities(policy_job: Make) -> None:
    values = policy_job(sft={"batch_size": 4, "answer_share": 0.4})
    section, folder = Policy.model_validate(values["section"]), Path(values["model"])
    from transformers import AutoTokenizer

    model = new_adapter(load_base(folder, "float32"), section.lora)
    examples = sft._examples(values)
    trainer = sft.make_trainer(model, AutoTokenizer.from_pretrained(folder), examples, section, Path(values["out"]), 1)
    batch = trainer.data_collator([example.columns(0.4) for example in examples[:4]])
    expected, tokens = 0.0, 0
    with torch.no_grad():
        for example in examples[:4]:
            ids, start = torch.tensor([[*example.prompt_ids, *example.completion_ids]]), len(example.prompt_ids)
            scores = model(input_ids=ids).logits[0, :-1].log_softmax(-1)[range(ids.shape[1] - 1), ids[0, 1:]]
            weights = torch.tensor(example.columns(0.4)["weights"][start:])
            expected -= float((scores[start - 1:] * weights).sum())
            tokens += len(example.completion_ids)
        loss = float(trainer.compute_loss(model, batch))
    assert loss == pytest.approx(expected / tokens, rel=1e-4)


def test_a_tokenizer_without_a_padding_token_trains_too(policy_job: Make) -> None:
    values = policy_job(sft={"batch_size": 4})
    section, folder = Policy.model_validate(values["section"]), Path(values["model"])
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = None
    model, examples = new_adapter(load_base(folder, "float32"), section.lora), sft._examples(values)
    trainer = sft.make_trainer(model, tokenizer, examples, section, Path(values["out"]), 1)
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["weights"].shape == batch["labels"].shape
    assert torch.isfinite(trainer.compute_loss(model, batch))


@pytest.mark.parametrize(("share", "warming"), [(0.0, 0), (0.05, 1), (0.5, 3), (1.0, 6)])
def test_the_learning_rate_rises_over_a_share_of_all_steps(policy_job: Make, share: float, warming: int) -> None:
    values = policy_job(sft={"epochs": 1.5, "warmup": share})
    section, folder = Policy.model_validate(values["section"]), Path(values["model"])
    from transformers import AutoTokenizer

    model = new_adapter(load_base(folder, "float32"), section.lora)
    trainer = sft.make_trainer(model, AutoTokenizer.from_pretrained(folder), sft._examples(values), section,
                               Path(values["out"]), 1)
    assert trainer.args.get_warmup_steps(6) == warming


@pytest.mark.slow
def test_training_lowers_the_loss_and_writes_the_adapter(policy_job: Make) -> None:
    values = policy_job(sft={"epochs": 3, "lr": 1e-2})
    done = sft.fine_tune(values)
    out = Path(values["out"])
    steps = read(out / "progress.jsonl")
    assert done["steps"] == steps[-1].step == steps[-1].total == 12
    losses = [step.metrics["loss"] for step in steps]
    assert done["train_loss"] == pytest.approx(sum(losses) / 12)
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    weights = load_file(out / "adapter" / "adapter_model.safetensors")
    modules = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in weights}
    assert modules == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert json.loads((out / "adapter" / "adapter_config.json").read_text())["r"] == 4
    assert json.loads((out / "done.json").read_text()) == done
