"""The RL baselines as settings: GRPO and DAPO are TRL's, and training starts from the base model without stage 1."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from configs.load import dump
from configs.schema import Grpo, Lora, Policy, Rewards, Serving
from models.policy import grpo
from models.policy.adapter import load_adapter, new_adapter, save_adapter
from models.policy.chat import load_tokenizer
from models.policy.entropy_clip import BOUND
from models.policy.examples import Task
from models.policy.loading import load_base
from models.policy.rollouts import Request, RolloutFunc, TransformersEngine, VllmEngine, make_engine
from prompts.grammar import parse
from rewards.outcome import outcome_reward
from support.openai_server import ScriptedServer
from support.pretended_engine import PretendedEngine

Make = Callable[..., dict[str, Any]]
LORA = Lora(rank=4, alpha=8)
SIZE = {"generations": 4, "prompts_per_batch": 2, "minibatches": 2, "micro_batch": 4, "steps": 4, "lr": 2e-2,
        "entropy_clip": False, "reward_weight": 1.0, "completion_tokens": 52}
GRPO = {**SIZE, "clip_min": 0.2}
DAPO = {**SIZE, "clip_min": 0.28, "loss": "dapo", "overlong_buffer": 20, "mask_truncated": True}
THEIRS = {"grpo": {"epsilon": 0.2, "loss_type": "grpo"},
          "dapo": {"epsilon": 0.2, "epsilon_high": 0.28, "loss_type": "dapo", "mask_truncated_completions": True}}


def fresh(values: dict[str, Any]) -> Any:
    torch.manual_seed(values["seed"])
    return new_adapter(load_base(Path(values["model"]), "float32"), LORA)


def trained_by_trl(values: dict[str, Any], out: Path, named: dict[str, Any], overlong: bool) -> GRPOTrainer:
    """TRL's own trainer in its own words, with rewards written down here."""
    tokenizer, section = load_tokenizer(Path(values["model"])), Policy.model_validate(values["section"]).grpo
    tasks = {task.stay_id: task for task in grpo._tasks(values, tokenizer, section)}

    def outcome(prompts: Sequence[str], completions: Sequence[str], **_: Any) -> list[float]:
        return [outcome_reward(parse(text, "decomposition").probability, tasks[stay_id].label)
                for stay_id, text in zip(prompts, completions, strict=True)]

    def too_long(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
        return [0.0 if len(ids) <= 32 else (32 - len(ids)) / 20 for ids in completion_ids]

    settings = GRPOConfig(
        output_dir=str(out), seed=values["seed"], data_seed=values["seed"], use_cpu=True, bf16=False, report_to="none",
        learning_rate=2e-2, lr_scheduler_type="constant", max_steps=4, per_device_train_batch_size=4,
        gradient_accumulation_steps=1, steps_per_generation=2, num_iterations=1, num_generations=4,
        max_completion_length=52, beta=0.0, disable_dropout=True, shuffle_dataset=False, save_strategy="no",
        gradient_checkpointing=False, logging_steps=1, disable_tqdm=True, **named)
    engine = PretendedEngine(tokenizer, 52)
    trainer = GRPOTrainer(
        model=fresh(values), args=settings, reward_funcs=[outcome, too_long] if overlong else [outcome],
        train_dataset=Dataset.from_dict({"prompt": grpo.prompt_order(values["stays"], section, values["seed"])}),
        processing_class=AutoTokenizer.from_pretrained(values["model"]),
        rollout_func=RolloutFunc(tasks, engine, out, values["seed"], tokenizer.eos_id, kept=2))
    trainer.train()
    return trainer


@pytest.mark.slow
@pytest.mark.parametrize(("name", "ours"), [("grpo", GRPO), ("dapo", DAPO)])
def test_a_baseline_trains_as_trl_does(policy_job: Make, tmp_path: Path, name: str, ours: dict[str, Any]) -> None:
    values = policy_job(**ours)
    section, tokenizer = Policy.model_validate(values["section"]), load_tokenizer(Path(values["model"]))
    trainer, _ = grpo.make_trainer(fresh(values), tokenizer, grpo._tasks(values, tokenizer, section.grpo), section,
                                   values, PretendedEngine(tokenizer, 52))
    trainer.train()
    theirs = trained_by_trl(values, tmp_path / "trl", THEIRS[name], overlong=name == "dapo")
    logs = [[step for step in one.state.log_history if "loss" in step] for one in (trainer, theirs)]
    assert len(logs[0]) == len(logs[1]) == 4
    for mine, other in zip(*logs, strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], abs=2e-5)
        # TRL logs the rewards of a batch with the first of its steps; ours are logged with each.
        assert mine["reward"] == pytest.approx(other.get("reward", mine["reward"]), abs=1e-6)
        assert mine["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3, abs=1e-5)
    assert max(step["clip_ratio/high_mean"] for step in logs[1]) > 0, "the bound from above was at work"
    assert (logs[1][0]["completions/clipped_ratio"] > 0) == (logs[0][0]["ended"] < 1)
    weights = [{key: weight.detach() for key, weight in one.model.named_parameters() if "lora_B" in key}
               for one in (trainer, theirs)]
    assert all(torch.allclose(weight, weights[1][key], atol=2e-3) for key, weight in weights[0].items())
    assert max(float(weight.abs().max()) for weight in weights[0].values()) > 2e-2


def test_dapo_punishes_and_masks_what_is_too_long(policy_job: Make) -> None:
    values = policy_job(**DAPO)
    section, tokenizer = Policy.model_validate(values["section"]), load_tokenizer(Path(values["model"]))
    trainer, book = grpo.make_trainer(fresh(values), tokenizer, grpo._tasks(values, tokenizer, section.grpo), section,
                                      values, PretendedEngine(tokenizer, 52))
    batch = trainer._generate_and_score_completions([{"prompt": stay} for stay in ("s0", "s1") for _ in range(4)])
    rollouts = book.table(1)
    assert rollouts["overlong_penalty"].to_list() == pytest.approx([-max(n - 32, 0) / 20 for n in rollouts["tokens"]])
    assert rollouts["reward"].to_list() == pytest.approx(
        (rollouts["outcome_reward"] + rollouts["overlong_penalty"]).to_list())
    counted = [0 if not ended else tokens for ended, tokens in rollouts.select("ended", "tokens").iter_rows()]
    assert batch["completion_mask"].sum(dim=1).tolist() == counted and 0 in counted and max(counted) > 0


def test_the_weight_of_stage_2_leaves_stage_1_alone(policy_job: Make) -> None:
    values = {**policy_job(), "rewards": dump(Rewards(weight=0.6, beta=2.0))}
    assert grpo.rewards_of(values, Grpo(reward_weight=1.0)) == Rewards(weight=1.0, beta=2.0)
    assert grpo.rewards_of(values, Grpo()) == Rewards(weight=0.6, beta=2.0)


def test_on_policy_training_does_not_take_the_references_entropy_for_its_own(policy_job: Make) -> None:
    values = policy_job(**{**GRPO, "minibatches": 1, "kl": 0.1})
    section, tokenizer = Policy.model_validate(values["section"]), load_tokenizer(Path(values["model"]))
    trainer, book = grpo.make_trainer(fresh(values), tokenizer, grpo._tasks(values, tokenizer, section.grpo), section,
                                      values, PretendedEngine(tokenizer, 52))
    batch = trainer._generate_and_score_completions([{"prompt": stay} for stay in ("s0", "s1") for _ in range(4)])
    assert "old_per_token_logps" not in batch and "ref_per_token_logps" in batch
    assert book.table(1)["mention_entropy"].null_count() == 8 and batch[BOUND].unique().tolist() == pytest.approx([0.2])


def test_a_fresh_adapter_samples_what_the_base_model_does(taught_folder: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(taught_folder)
    model = new_adapter(load_base(taught_folder, "float32"), LORA)
    requests = [Request(Task("a", tuple(tokenizer.encode("Is glucose high?")), 0, ()), seed) for seed in (1, 2)]
    engine = TransformersEngine(Grpo(completion_tokens=12), tokenizer, rows=2)
    first = engine(model, tmp_path, requests)
    with model.disable_adapter():
        assert engine(model, tmp_path, requests) == first


def test_the_reference_of_a_fresh_adapter_is_the_base_model(policy_job: Make) -> None:
    values = policy_job(**{**GRPO, "kl": 0.1})
    section, tokenizer = Policy.model_validate(values["section"]), load_tokenizer(Path(values["model"]))
    trainer, _ = grpo.make_trainer(fresh(values), tokenizer, grpo._tasks(values, tokenizer, section.grpo), section,
                                   values, PretendedEngine(tokenizer, 52))
    for name, weight in trainer.model.named_parameters():
        if "lora_B" in name and ".default." in name:
            torch.nn.init.normal_(weight, std=0.2)
    batch = trainer._generate_and_score_completions([{"prompt": "s0"} for _ in range(4)])
    mask = batch["completion_mask"].bool()
    assert (batch["ref_per_token_logps"] - batch["old_per_token_logps"])[mask].abs().max() > 0.1
    ids = [torch.cat([batch[f"{part}_{kind}"] for part in ("prompt", "completion")], 1) for kind in ("ids", "mask")]
    with trainer.model.disable_adapter(), torch.no_grad():
        base, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, *ids, batch["completion_ids"].shape[1])
    assert torch.allclose(base[mask], batch["ref_per_token_logps"][mask], atol=1e-5)


def test_a_server_takes_a_fresh_adapter_for_the_first_batch(taught_folder: Path, tmp_path: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = load_tokenizer(taught_folder)
    model = new_adapter(load_base(taught_folder, "float32"), LORA)
    requests = [Request(Task("a", (5, 6), 0, ()), seed) for seed in (1, 2)]
    with ScriptedServer(lambda body: f"seed {body['seed']}" if "seed" in body else "ok") as server:
        monkeypatch.setenv("EAG_RL_SERVER_KEY", server.key)
        engine = make_engine({"server": {"url": server.url, "model_name": "base"}, "context": 100,
                              "serving": Serving(adapters=1).model_dump()}, Grpo(engine="vllm", completion_tokens=12),
                             tokenizer)
        assert isinstance(engine, VllmEngine)
        answers = engine(model, save_adapter(model, tmp_path / "step-0"), requests)
        assert [one.ids for one in answers] == [tuple(b"seed 1"), tuple(b"seed 2")]
        asked = server.requests()
        assert len(asked) == 2 and all(body["model"].startswith("lora-") for body in asked)
        assert not any("prompt_logprobs" in body for body in asked), "an adapter that changes nothing has no canary"
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.2)
        engine(model, save_adapter(model, tmp_path / "step-2"), requests)
        engine.close()
        canaries = sum("prompt_logprobs" in body for body in server.requests())
        assert canaries == 2, "a trained one is held against the base"
        assert len(server.adapters) == 1
    again = load_adapter(load_base(taught_folder, "float32"), tmp_path / "step-0", LORA)
    assert all(not weight.any() for name, weight in again.named_parameters() if "lora_B" in name)
