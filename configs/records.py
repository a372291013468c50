"""Sections about hospital records and the expert that learns from them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from configs.section import Positive, Section, Share


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

    source: Literal["synthetic", "tjh", "tjh_external", "mimic_iv", "meds"] = Field(
        "synthetic", description="Where the records come from; tjh_external: TJH's further file of 110 patients.")
    outcome: Literal["mortality", "readmission"] = Field(
        "mortality", description="What is predicted: death in this admission, or an ICU entry within 30 days after it.")
    split: Literal["paper", "stratified", "pinned", "external"] = Field(
        "stratified", description="`paper` exists for TJH only; `pinned` leaves patients where they are as data grow; "
                                  "`external`: all are test patients, of a site where nothing is trained.")
    split_seed: int = Field(42, ge=0, le=2**31 - 1, description="Seed of the split.")
    test_share: float = Field(0.3, gt=0.0, lt=0.9, description="Share of patients in test (split `stratified`).")
    validation_share: float = Field(0.15, gt=0.0, lt=0.9, description="Share of the rest in validation.")
    min_visits: Positive = Field(1, description="Fewest daily records of a stay that is kept.")
    max_days: int = Field(7, ge=1, le=365, description="Newest daily records kept; earlier ones become one summary.")
    clip_sd: float = Field(5.0, gt=0.0, le=100.0, description="Standardised values are clipped here [sd].")
    drop_after_discharge: bool = Field(False, description="Drop measurements dated after the discharge.")
    smallest_cell: Positive = Field(5, description="Smallest count that is shown: of stays in Table 1, of patients "
                                                 "in the report's subgroups and reliability curves.")
    synthetic: Synthetic = Synthetic()
    mimic_iv: MimicIv = MimicIv()
    meds: Meds = Meds()

    @model_validator(mode="after")
    def _outcome_exists(self) -> Cohort:
        if self.outcome == "readmission" and self.source not in ("mimic_iv", "meds"):
            raise ValueError(f"outcome=readmission with source={self.source}: only mimic_iv and meds know later "
                             "admissions")
        if self.source == "tjh_external" and self.split != "external":
            raise ValueError(f"split={self.split} with source=tjh_external: nothing is trained on it, set "
                             "split=external")
        return self


class Partitions(Section):
    """Who works on the parts of an extract, and where its parsed tables lie; the result is the same."""

    engine: Literal["threads", "dask"] = Field("threads", description="Threads of this process, or Prefect tasks "
                                                                      "on a Dask cluster's workers (extra `dask`).")
    scheduler: str | None = Field(None, pattern=r"^(tcp|tls|ucx|ws|wss)://", description="Address of a running Dask "
                                  "scheduler; none: a cluster of this machine, for the time of the stage.")
    workers: int = Field(2, ge=1, le=1024, description="Processes of a cluster of this machine.")
    cache: str | None = Field(None, min_length=1, description="Folder or fsspec URL (s3://bucket/folder) of the parsed "
                                                              "tables, which all workers reach; none: the workspace.")


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
