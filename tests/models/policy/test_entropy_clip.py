import inspect
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import trl
from trl import GRPOTrainer

from configs.schema import Policy
from models.policy import grpo
from models.policy.adapter import load_adapter, new_adapter, save_adapter
from models.policy.chat import load_tokenizer
from models.policy.entropy_clip import BOUND, EntropyClipGRPOTrainer
from models.policy.loading import load_base
from models.policy.rollouts import make_engine
from models.progress import read

pytestmark = pytest.mark.slow

Make = Callable[..., dict[str, Any]]


def trainer_of(values: dict[str, Any], adapter: Path | None = None) -> EntropyClipGRPOTrainer:
    section, folder = Policy.model_validate(values["section"]), Path(values["model"])
    tokenizer = load_tokenizer(folder)
    base = load_base(folder, "float32")
    torch.manual_seed(3)
    model = load_adapter(base, adapter, section.lora) if adapter else new_adapter(base, section.lora)
    trainer, _ = grpo.make_trainer(model, tokenizer, grpo._tasks(values, tokenizer, section.grpo), section, values,
                                   make_engine(values, section.grpo, tokenizer))
    trainer.create_optimizer_and_scheduler(num_training_steps=section.grpo.steps)
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    return trainer


@pytest.fixture(scope="module")
def scored(make_job: Make, tmp_path_factory: pytest.TempPathFactory) -> tuple[EntropyClipGRPOTrainer, dict[str, Any]]:
    """A trainer and one scored rollout batch of two groups of four, in its original order."""
    trainer = trainer_of(make_job(tmp_path_factory.mktemp("scored")))
    rows = [{"prompt": stay_id} for stay_id in ("s0", "s1") for _ in range(4)]
    return trainer, trainer._generate_and_score_completions(rows)


def moved(inputs: dict[str, Any], log_ratio: float | torch.Tensor, advantages: Sequence[float]) -> dict[str, Any]:
    """The same batch as if the present policy had moved by `log_ratio` at each token since it was sampled."""
    return inputs | {"old_per_token_logps": inputs["old_per_token_logps"] - log_ratio,
                     "advantages": torch.tensor(advantages)}


def test_trl_still_has_the_seams_we_hold_on_to() -> None:
    assert trl.__version__ == "1.16.0"
    assert list(inspect.signature(GRPOTrainer._compute_loss).parameters) == ["self", "model", "inputs"]
    assert list(inspect.signature(GRPOTrainer._generate_and_score_completions).parameters) == ["self", "inputs"]
    named = list(inspect.signature(GRPOTrainer._get_per_token_logps_and_entropies).parameters)
    assert named[:8] == ["self", "model", "input_ids", "attention_mask", "logits_to_keep", "batch_size",
                         "compute_entropy", "compute_aux_loss"]
    loss = inspect.getsource(GRPOTrainer._compute_loss)
    assert "torch.clamp(coef_1, 1 - self.epsilon_low, 1 + self.epsilon_high)" in loss
    assert 'inputs.get("old_per_token_logps")' in loss
    scoring = inspect.getsource(GRPOTrainer._generate_and_score_completions)
    assert scoring.index("_get_per_token_logps_and_entropies") < scoring.index("ref_per_token_logps, _, _")
    assert "rollout_func(prompts, self)" in inspect.getsource(GRPOTrainer._generate)
    assert "inp[key] = values[i]" in scoring and scoring.index("inp[key] = values[i]") < scoring.index(
        "self._calculate_rewards("), "stay_id of a rollout_func reaches the rewards"
    assert list(inspect.signature(GRPOTrainer._load_from_checkpoint).parameters) == [
        "self", "resume_from_checkpoint", "model"]


def test_rollouts_have_rewards_that_differ_and_bounds_in_range(scored: tuple[EntropyClipGRPOTrainer, dict]) -> None:
    _, batch = scored
    assert batch[BOUND].shape == (8, 1) and not batch[BOUND].requires_grad
    assert ((batch[BOUND] >= 0.2 - 1e-6) & (batch[BOUND] <= 0.4 + 1e-6)).all()
    assert batch[BOUND].view(2, 4).amax(dim=1).tolist() == pytest.approx([0.4, 0.4])
    assert batch[BOUND].view(2, 4).amin(dim=1).tolist() == pytest.approx([0.2, 0.2])
    assert batch["advantages"].abs().max() > 0.1
    assert batch["old_per_token_logps"].shape == batch["completion_ids"].shape


@pytest.mark.parametrize("off", [{"entropy_clip": False}, {"clip_min": 0.28, "clip_max": 0.28, "loss": "dapo"}])
def test_switched_off_it_is_the_loss_of_the_parent(policy_job: Make, off: dict[str, Any]) -> None:
    trainer = trainer_of(policy_job(**off))
    batch = trainer._generate_and_score_completions([{"prompt": "s0"}] * 4)
    noise = 0.5 * torch.randn(batch["old_per_token_logps"].shape)
    inputs = moved(batch, noise, [1.0, -1.0, 0.5, -0.5])
    ours = trainer._compute_loss(trainer.model, inputs)
    assert trainer.epsilon_low == 0.2 and trainer.epsilon_high == off.get("clip_min", 0.2)
    theirs = GRPOTrainer._compute_loss(trainer, trainer.model, inputs)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    assert trainer._metrics["train"]["clip_ratio/high_mean"][-1] > 0


def test_each_trajectory_is_clipped_at_its_own_bound(scored: tuple[EntropyClipGRPOTrainer, dict]) -> None:
    trainer, batch = scored
    first = {key: value[:4] if value.ndim else value for key, value in batch.items()}
    first[BOUND] = torch.tensor([[0.2], [0.25], [0.35], [0.4]])
    inputs = moved(first, math.log(1.3), [1.0, 1.0, 1.0, 1.0])
    loss = trainer._compute_loss(trainer.model, inputs)
    # L = mean of min(1.3, 1 + e(tau)): 1.2, 1.25, 1.3, 1.3
    assert loss.item() == pytest.approx(-(1.2 + 1.25 + 1.3 + 1.3) / 4, abs=1e-4)
    assert trainer._metrics["train"]["trajectories_clipped_above"][-1] == 0.5
    below = moved(first, math.log(0.7), [-1.0, -1.0, -1.0, -1.0])
    # For A < 0 the lower bound 1 - e = 0.8 holds for all: min(-0.7, -0.8)
    assert trainer._compute_loss(trainer.model, below).item() == pytest.approx(0.8, abs=1e-4)


def test_a_wholly_clipped_trajectory_gives_no_gradient(scored: tuple[EntropyClipGRPOTrainer, dict]) -> None:
    trainer, batch = scored
    inputs = moved(batch, math.log(1.5), [1.0] * 8)
    trainer.model.zero_grad()
    trainer._compute_loss(trainer.model, inputs).backward()
    assert all(float(weight.grad.abs().max()) == 0 for _, weight in trainer.model.named_parameters()
               if weight.grad is not None)


def test_gradients_are_those_of_constant_bounds(scored: tuple[EntropyClipGRPOTrainer, dict]) -> None:
    trainer, batch = scored
    inputs = moved(batch, math.log(1.25), [1.0] * 8)
    trainer.model.zero_grad()
    trainer._compute_loss(trainer.model, inputs).backward()
    grads = {name: weight.grad.clone() for name, weight in trainer.model.named_parameters() if weight.grad is not None}
    logps, _, _ = trainer._get_per_token_logps_and_entropies(
        trainer.model, torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1),
        torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1), batch["completion_ids"].shape[1])
    ratio, mask = torch.exp(logps - inputs["old_per_token_logps"]), batch["completion_mask"]
    numbers = torch.tensor(batch[BOUND].tolist())
    kept = torch.minimum(ratio, torch.maximum(torch.tensor(0.8), torch.minimum(ratio, 1 + numbers)))
    trainer.model.zero_grad()
    (-(kept * mask).sum(1) / mask.sum(1)).mean().backward()
    for name, weight in trainer.model.named_parameters():
        if weight.grad is not None:
            assert torch.allclose(weight.grad, grads[name], atol=1e-6), name
    assert any(float(grad.abs().max()) > 1e-4 for grad in grads.values())


@pytest.mark.parametrize("whole", [False, True])
def test_shuffling_keeps_each_bound_with_its_trajectory(policy_job: Make, whole: bool) -> None:
    trainer = trainer_of(policy_job(whole_groups=whole))
    seen: dict[tuple[int, ...], float] = {}
    original = trainer._generate_and_score_completions

    def remember(inputs: list[dict[str, Any]]) -> dict[str, Any]:
        batch = original(inputs)
        for prompt, ids, bound in zip(batch["prompt_ids"], batch["completion_ids"], batch[BOUND], strict=True):
            seen[(*prompt.tolist(), *ids.tolist())] = float(bound)
        return batch

    trainer._generate_and_score_completions = remember  # type: ignore[method-assign]
    asked = [{"prompt": stay_id} for stay_id in ("s0", "s1") for _ in range(4)]
    first = trainer._prepare_inputs(asked)
    slices = trainer._buffered_inputs
    trainer._step = 1
    assert first is slices[0] and trainer._prepare_inputs(asked) is slices[1], "one batch serves its steps"
    rows = [((*prompt.tolist(), *ids.tolist()), float(bound)) for part in slices
            for prompt, ids, bound in zip(part["prompt_ids"], part["completion_ids"], part[BOUND], strict=True)]
    assert len(slices) == 4 and len(rows) == 8
    assert [key for key, _ in rows] != list(seen), "the batch was shuffled"
    assert all(seen[key] == bound for key, bound in rows)
    prompts = [len(torch.unique(part["prompt_ids"], dim=0)) for part in slices]
    assert prompts == [1] * 4 if whole else max(prompts) == 2
    assert {part["num_items_in_batch"].item() for part in slices} == {slices[0]["num_items_in_batch"].item()}


def test_the_shared_prefix_pass_equals_the_plain_one(scored: tuple[EntropyClipGRPOTrainer, dict]) -> None:
    trainer, batch = scored
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    keep = batch["completion_ids"].shape[1]
    results = []
    for method in (EntropyClipGRPOTrainer, GRPOTrainer):
        trainer.model.zero_grad()
        logps, entropies, _ = method._get_per_token_logps_and_entropies(
            trainer, trainer.model, ids, mask, keep, compute_entropy=True)
        (logps * batch["completion_mask"]).sum().backward()
        grads = torch.cat([weight.grad.flatten() for weight in trainer.model.parameters() if weight.grad is not None])
        results.append((logps.detach(), entropies.detach(), grads))
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, atol=2e-4, rtol=1e-4)
    assert results[0][2].abs().max() > 1


def test_a_shared_prompt_is_read_once(scored: tuple[EntropyClipGRPOTrainer, dict]) -> None:
    trainer, batch = scored
    sizes = []
    hook = trainer.model.get_base_model().model.layers[0].register_forward_pre_hook(
        lambda _, args: sizes.append(tuple(args[0].shape[:2])))
    trainer._compute_loss(trainer.model, batch)
    hook.remove()
    prompt, completion = batch["prompt_ids"].shape[1], batch["completion_ids"].shape[1]
    assert sizes == [(2, prompt - 1), (8, completion + 1)]


def test_without_old_log_probabilities_entropy_clipping_stops(policy_job: Make,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(policy_job())
    monkeypatch.setattr(trainer.args, "gradient_accumulation_steps", trainer.args.steps_per_generation)
    with pytest.raises(RuntimeError, match="did not score"):
        trainer._generate_and_score_completions([{"prompt": "s0"}] * 4)


def test_the_reference_of_the_penalty_is_the_stage_1_adapter(policy_job: Make, tmp_path: Path) -> None:
    values = policy_job(kl=0.1)
    model = new_adapter(load_base(Path(values["model"]), "float32"), Policy.model_validate(values["section"]).lora)
    torch.manual_seed(5)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    trainer = trainer_of(values, save_adapter(model, tmp_path / "stage1"))
    batch = trainer._generate_and_score_completions([{"prompt": "s0"}] * 4)
    mask = batch["completion_mask"].bool()
    assert torch.allclose(batch["ref_per_token_logps"][mask], batch["old_per_token_logps"][mask], atol=1e-5)
    with trainer.model.disable_adapter(), torch.no_grad():
        base, _, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model, torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1),
            torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1), batch["completion_ids"].shape[1])
    assert (base - batch["old_per_token_logps"])[mask].abs().max() > 0.1


def test_a_training_clips_and_learns_and_writes_everything_down(policy_job: Make) -> None:
    values = policy_job(lr=2e-2, steps=6)
    done = grpo.optimise(values)
    steps = read(Path(values["out"]) / "progress.jsonl")
    assert [step.step for step in steps] == [1, 2, 3, 4, 5, 6] and done["steps"] == 6
    # Before the first step of a rollout batch the policy is the one that sampled; after it the ratio moves.
    assert all(steps[index].metrics["drift"] == pytest.approx(0, abs=1e-6) for index in (0, 2, 4))
    assert all(steps[index].metrics["drift"] > 1e-6 for index in (1, 3, 5))
    assert all(steps[index].metrics["clipped_above"] == 0 for index in (0, 2, 4))
    assert max(step.metrics["clipped_above"] for step in steps) > 0
    assert max(step.metrics["bound_max"] for step in steps) == pytest.approx(0.4)
    rollouts = pl.read_parquet(Path(values["out"]) / "rollouts.parquet")
    assert rollouts.height == 24 and rollouts["step"].unique().sort().to_list() == [0, 2, 4]
    assert rollouts.filter(pl.col("mention_entropy").is_null())["upper_bound"].to_list() == pytest.approx(
        [0.2] * rollouts["mention_entropy"].null_count())
    assert sorted(path.name for path in (Path(values["out"]) / "adapter").iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors"]


def test_equal_prompts_never_share_a_batch_and_a_pass_holds_all_stays() -> None:
    section = Policy().grpo.model_copy(update={"prompts_per_batch": 3, "steps": 20, "minibatches": 2})
    stays = [f"s{index}" for index in range(7)]
    order = grpo.prompt_order(stays, section, seed=1)
    batches = [order[start:start + 3] for start in range(0, len(order), 3)]
    assert len(batches) == 10 and all(len(set(batch)) == 3 for batch in batches)
    assert len(set(order[:6])) == 6
    assert order == grpo.prompt_order(stays, section, seed=1) != grpo.prompt_order(stays, section, seed=2)
