"""Sections about the rows of the result table and how they are judged."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from configs.section import Positive, Section, Setting, Share

PerturbationKind = Literal["shuffle", "drop", "noise", "rename"]


def _require_both_labels(stays: int | Literal["all"]) -> None:
    """Raises ValueError where a stratified sample of so many stays cannot hold both labels."""
    if stays != "all" and stays < 2:
        raise ValueError(f"stays={stays}: at least 2, one of each label")


class Arm(Section):
    """One row of the result table: how a policy is made and asked. A YAML file of these settings is all it takes."""

    title: str = Field(min_length=1, max_length=60, description="Its name in tables and plots.")
    style: Literal["vanilla", "think", "decomposition"] = Field("decomposition", description="Prompt style.")
    adapter: Literal["none", "labels", "trajectories", "rl"] = Field(
        "none", description="What answers: the base model, or an adapter trained on labels only, on the search's "
                            "trajectories (stage 1), or by reinforcement learning.")
    start: Literal["trajectories", "base"] = Field("trajectories", description="Where reinforcement learning starts.")
    prepare: dict[str, Setting | None] = Field({}, description="Settings of all its stages from the prompts on.")
    train: dict[str, Setting | None] = Field({}, description="Settings of its own training and judging only; what "
                                             "comes before is shared with the study.")

    @property
    def from_stage_1(self) -> bool:
        """Whether its adapter comes from the search's trajectories, directly or as the start of reinforcement learning.
        """
        return self.adapter == "trajectories" or (self.adapter == "rl" and self.start == "trajectories")

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
    reference: str | None = Field(None, description="Arm that the others are compared with, paired by patient; none: "
                                                    "`decomposition`, or the first arm where that is not among them.")
    style: Literal["vanilla", "think", "decomposition"] = Field(
        "decomposition", description="Prompt style of what is asked; an arm sets its own.")
    stays: Positive | Literal["all"] = Field("all", description="Test stays: all, or a stratified sample.")
    visits: tuple[Literal["last", "first"], ...] = Field(
        ("last",), description="Visits judged; with `first` each policy arm is also asked with the first visit "
                               "alone in its prompt, which costs as much again.")
    validation_stays: Positive | Literal["all"] = Field("all", description="Validation stays on which stage 1 is "
                                                        "checked and arms are recalibrated.")
    recalibrate: bool = Field(False, description="Ask every arm for the validation stays too, and recalibrate its "
                              "risks on them: as many answers more as there are such stays. With fewer than about 50 "
                              "of them, as in all small studies, the map is mostly noise.")
    policy_seeds: int = Field(1, ge=1, le=100, description="Trainings of each trained arm, with the seeds study.seed, "
                              "study.seed + 1, ...; the table has their mean and spread. The search is shared.")
    experts: tuple[Literal["concare", "gru"], ...] = Field(
        (), description="Further experts trained for comparison; they guide nothing.")
    bootstraps: int = Field(100, ge=2, le=100_000, description="Bootstrap resamples of mean and standard deviation "
                                                               "(the paper's).")
    interval_bootstraps: int = Field(1000, ge=2, le=100_000, description="Resamples of intervals and p-values.")
    cases: tuple[Share, ...] = Field((0.1, 0.5, 0.9), max_length=20, description="Quantiles of the risk at which the "
                                     "report shows test patients in full, for each outcome and for right and wrong "
                                     "answers; (): it shows no patient and no search tree.")
    temperature: float = Field(0.0, ge=0.0, le=5.0, description="Sampling temperature of the answers; 0: greedy.")
    completion_tokens: int = Field(512, ge=8, le=16_384, description="Most tokens of an answer.")
    gpu_hour_price: float | None = Field(None, ge=0.0, le=1e6, description="Price of an hour of the machine where a "
                                         "GPU answers, in any currency; none: the report names no money.")
    cpu_hour_price: float | None = Field(None, ge=0.0, le=1e6, description="The same where a CPU answers.")

    @model_validator(mode="after")
    def _can_be_judged(self) -> Evaluation:
        if "last" not in self.visits or len(set(self.visits)) < len(self.visits):
            raise ValueError(f"visits={list(self.visits)}: [last] or [last, first]")
        _require_both_labels(self.stays)
        if self.reference is not None and self.reference not in self.arms:
            raise ValueError(f"reference={self.reference}: one of evaluation.arms={list(self.arms)}, or none")
        return self


class Transfer(Section):
    """Judging what one study trained on the test stays of another (method section 8); `eag-rl transfer`."""

    arms: tuple[str, ...] = Field(("decomposition", "stage1", "stage1+2"), min_length=1,
                                  description="Policy arms of the source study that are judged on the target.")
    prompts: Literal["source", "target"] = Field(
        "source", description="Whose prompts say how a stay is written (visits, digits, units, features never measured "
                              "in it): those the policies were trained with, or the target's own.")
    train_target: bool = Field(False, description="Train these arms on the target too, to compare with; off: compare "
                                                  "with those that the target study has already judged.")

    @model_validator(mode="after")
    def _arms_once(self) -> Transfer:
        if len(set(self.arms)) < len(self.arms):
            raise ValueError(f"arms={list(self.arms)}: each stands once")
        return self


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
    stays: Positive | Literal["all"] = Field(
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
        _require_both_labels(self.stays)
        return self
