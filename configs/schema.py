"""The configuration: one frozen pydantic schema, a section for each room.

Defaults are the paper's values and "our choices" of the method notes; YAML files beside this one name whole studies.
Sections are handed to the rooms as they are; a room never reads a file or an environment variable for its settings.
"""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from configs.api import Api
from configs.judging import Arm, Evaluation, PerturbationKind, Robustness, Transfer
from configs.operating import Champion, Landing, Operations
from configs.policy import Grpo, Lora, Policy, Prompts, Rewards, Search, Serving, Sft
from configs.records import Cohort, Expert, IcuStays, Meds, MimicIv, Partitions, Synthetic
from configs.section import Positive, Section, Setting, Share, require_no_password

__all__ = ["Api", "Arm", "Champion", "Cohort", "Config", "Evaluation", "Expert", "Grpo", "IcuStays", "Landing", "Lora",
           "Meds", "MimicIv", "Operations", "Partitions", "Paths", "PerturbationKind", "Policy", "Positive", "Prompts",
           "Rewards", "Robustness", "Search", "Section", "Serving", "Setting", "Sft", "Share", "Study", "Synthetic",
           "Transfer"]


class Study(Section):
    """Who the study is and the seed that everything random descends from."""

    name: str = Field("study", pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", description="Name in Prefect, MLflow and paths.")
    seed: int = Field(42, ge=0, le=2**31 - 1, description="Root seed.")
    stage_hours: float = Field(72.0, gt=0.0, le=8760.0, description="Longest time one stage may take [h].")


class Paths(Section):
    """Where things lie."""

    workspace: str = Field(".eag-rl", min_length=1, description="Artifacts, caches, logs and databases.")
    data: str | None = Field(None, description="Folder of the real data (a MIMIC-IV extract: also an fsspec URL); "
                                               "none: the variable EAG_RL_DATA.")


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
    api: Api = Api()
    evaluation: Evaluation = Evaluation()
    arms: dict[str, Arm] = Field({}, description="Arms by name; those of evaluation.arms are read from files.")
    robustness: Robustness = Robustness()
    transfer: Transfer = Transfer()
    paths: Paths = Paths()
    partitions: Partitions = Partitions()
    operations: Operations = Operations()
    landing: Landing = Landing()
    champion: Champion = Champion()

    @field_validator("paths", "landing", "partitions")
    @classmethod
    def _no_password(cls, section: Section) -> Section:
        for name in ("data", "folder", "cache"):
            require_no_password(getattr(section, name, None), f"leave that of `{name}` to the store's driver, which "
                                "reads its environment or credentials file (s3: AWS_SECRET_ACCESS_KEY or "
                                "~/.aws/credentials; gs: GOOGLE_APPLICATION_CREDENTIALS; any: FSSPEC_SFTP_PASSWORD and "
                                "the like, or ~/.config/fsspec/*.json)")
        return section

    @model_validator(mode="after")
    def _sections_fit(self) -> Config:
        apart = [name for name in self.robustness.arms if name in self.arms and self.arms[name].prepare]
        if apart:
            raise ValueError(f"robustness.arms={', '.join(apart)}: arms that `prepare` differently read other prompts, "
                             "so their perturbations are not the others'")
        if self.cohort.split == "paper" and self.cohort.source != "tjh":
            raise ValueError(f"cohort.split=paper needs cohort.source=tjh, not {self.cohort.source}")
        for name, tokens in (("policy.grpo.completion_tokens", self.policy.grpo.completion_tokens),
                             ("evaluation.completion_tokens", self.evaluation.completion_tokens)):
            if tokens >= self.serving.context:
                raise ValueError(f"{name}={tokens}: it must leave room for the prompt within serving.context="
                                 f"{self.serving.context}")
        if self.study.seed + self.evaluation.policy_seeds > 2**31:
            raise ValueError(f"study.seed={self.study.seed} with evaluation.policy_seeds="
                             f"{self.evaluation.policy_seeds}: the last seed must be below 2**31")
        return self
