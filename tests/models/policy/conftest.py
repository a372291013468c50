from __future__ import annotations

import functools
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from configs.load import dump
from configs.schema import Policy, Rewards
from models.policy.chat import ChatRenderer, ChatTokenizer, load_tokenizer
from prompts.grammar import render_final, render_step
from prompts.templates import messages
from support.tiny_policy import tiny_policy


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny tensors gain nothing from more threads, and equal runs must be equal to the last digit."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def policy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny random policy, read only."""
    return tiny_policy(tmp_path_factory.mktemp("policy") / "model")


@pytest.fixture(scope="session")
def tokenizer(policy_folder: Path) -> ChatTokenizer:
    return load_tokenizer(policy_folder)


@dataclass(frozen=True)
class Found:
    start: int
    end: int


class WordFinder:
    """Finds whole words; the simplest thing that keeps the FindMentions protocol."""

    def __init__(self, *words: str) -> None:
        self._pattern = re.compile("|".join(rf"\b{re.escape(word)}\b" for word in words))

    def find(self, text: str) -> list[Found]:
        return [Found(*match.span()) for match in self._pattern.finditer(text)]


@pytest.fixture
def words() -> type[WordFinder]:
    return WordFinder


EVIDENCE = "Age {age}, male.\nGlucose: {low}.1, {high}.0\nhemoglobin: 9{low}, 12{low}"


@pytest.fixture(scope="session")
def patients_frame() -> pl.DataFrame:
    """Eight training stays and one test stay, made up."""
    rows = [{"stay_id": f"s{index}", "split": "test" if index == 8 else "train", "label": index % 2,
             "evidence": EVIDENCE.format(age=50 + index, low=4 + index % 5, high=5 + index % 5),
             "shown": ["Age & Sex", "glucose", "hemoglobin"], "expert_features": ["glucose", "hemoglobin"]}
            for index in range(9)]
    return pl.DataFrame(rows, schema_overrides={"label": pl.Int8})


def answer(probability: float, features: tuple[str, ...] = ("glucose", "hemoglobin")) -> str:
    return (render_step(1, "Is glucose high?", "Yes, glucose rises.")
            + render_final("Will the patient die?", features, probability))


@pytest.fixture(scope="session")
def trajectories_frame() -> pl.DataFrame:
    """Two trajectories for each of four training stays."""
    rows = [{"stay_id": f"s{index}", "rank": rank, "text": answer(0.2 + 0.1 * index), "reward": 0.0,
             "outcome_reward": 0.0, "attention_reward": 0.0, "probability": 0.2 + 0.1 * index,
             "features": ["glucose", "hemoglobin"], "depth": 1, "rollout": 0}
            for index in range(4) for rank in range(2)]
    return pl.DataFrame(rows, schema_overrides={"rank": pl.Int32, "depth": pl.Int32, "rollout": pl.Int32})


TEACHING_STEPS = 110
CHATML = ("{% for message in messages %}"
          "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
VARIANTS = [(probability, features) for probability in (0.08, 0.21, 0.37, 0.55, 0.72, 0.94)
            for features in (("glucose", "pH"), ("glucose", "hemoglobin"), ("albumin", "hemoglobin"))]


@pytest.fixture(scope="session")
def taught_folder(patients_frame: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy of a few hundred tokens that learned to answer in the grammar, so that its rollouts earn rewards.

    Its vocabulary is byte-level BPE like those of real policies, trained on the prompts and answers of these tests.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("taught") / "model"
    prompts = [messages(evidence, "decomposition", "mortality", 2) for evidence in patients_frame["evidence"]]
    answers = [answer(*variant) for variant in VARIANTS]
    small_tokenizer([message["content"] for prompt in prompts for message in prompt] + answers).save_pretrained(folder)
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=700, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=1024, bos_token_id=0, eos_token_id=1, pad_token_id=1))
    model.save_pretrained(folder)
    tokenizer = load_tokenizer(folder)
    rows = [(ChatRenderer(tokenizer)(prompt), [*tokenizer.encode(text), tokenizer.eos_id])
            for prompt in prompts for text in answers]
    optimiser, dice = torch.optim.Adam(model.parameters(), lr=5e-3), random.Random(0)
    for _ in range(TEACHING_STEPS):
        chosen = dice.sample(rows, 8)
        ids = [torch.tensor(prompt + text) for prompt, text in chosen]
        labels = [torch.tensor([-100] * len(prompt) + text) for prompt, text in chosen]
        optimiser.zero_grad()
        model(input_ids=torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=1),
              labels=torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)).loss.backward()
        optimiser.step()
    model.save_pretrained(folder)
    return folder


def small_tokenizer(texts: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<|im_start|>", "<|im_end|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<|im_start|>", eos_token="<|im_end|>",
                                        pad_token="<|im_end|>")
    tokenizer.chat_template = CHATML
    return tokenizer


@pytest.fixture(scope="session")
def make_job(taught_folder: Path, patients_frame: pl.DataFrame, trajectories_frame: pl.DataFrame
             ) -> Callable[..., dict[str, Any]]:
    """Makes a job for either training in a folder: settings of policy.sft and policy.grpo by name."""

    def make(folder: Path, out: str = "out", sft: dict[str, Any] | None = None, **grpo: Any) -> dict[str, Any]:
        patients_frame.write_parquet(folder / "patients.parquet")
        trajectories_frame.write_parquet(folder / "trajectories.parquet")
        settings = {"lr": 3e-3, "generations": 4, "prompts_per_batch": 2, "minibatches": 2, "micro_batch": 2,
                    "steps": 4, "completion_tokens": 75, "engine": "transformers", **grpo}
        section = Policy.model_validate({
            "dtype": "float32", "lora": {"rank": 4, "alpha": 8}, "grpo": settings,
            "sft": {"epochs": 1, "batch_size": 2, **(sft or {})}})
        return {"model": str(taught_folder), "adapter": None, "out": str(folder / out), "section": dump(section),
                "patients": str(folder / "patients.parquet"), "rewards": dump(Rewards()), "catalogue": "tjh",
                "trajectories": str(folder / "trajectories.parquet"), "outcome": "mortality", "context": 1024,
                "seed": 7, "stays": [f"s{index}" for index in range(8)]}

    return make


@pytest.fixture
def policy_job(make_job: Callable[..., dict[str, Any]], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Makes a job in the test's own folder."""
    return functools.partial(make_job, tmp_path)
