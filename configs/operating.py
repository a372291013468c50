"""Sections about running it day by day: the local stack, the folder where new extracts land, the champion."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from configs.section import Positive, Section, require_no_password


class Operations(Section):
    """The local stack of `./scripts/up`: Prefect's server, MLflow's server and a worker, on 127.0.0.1."""

    prefect_port: int = Field(4200, ge=1024, le=65535, description="Port of Prefect's server and page.")
    mlflow_port: int = Field(5000, ge=1024, le=65535, description="Port of MLflow's server and page.")
    prefect_database: str | None = Field(None, pattern=r"^postgresql\+asyncpg://", description="Prefect's database, "
                                         "without a password (PGPASSFILE holds it); none: SQLite in the workspace.")
    mlflow_database: str | None = Field(None, pattern=r"^postgresql(\+\w+)?://", description="MLflow's database, "
                                        "without a password; none: SQLite in the workspace.")
    studies_at_once: Positive = Field(1, description="Flow runs that the worker runs at once, the watch not counted.")
    gpu_runs: Positive = Field(1, description="Flow runs that may use the GPU at once.")

    @model_validator(mode="after")
    def _no_password(self) -> Operations:
        for name in ("prefect_database", "mlflow_database"):
            require_no_password(getattr(self, name), f"put that of {name} into the file that PGPASSFILE names")
        return self


class Landing(Section):
    """Where new extracts arrive, and when one counts as arrived; `watch-extracts`."""

    folder: str | None = Field(None, min_length=1, description="Folder or fsspec URL with a folder for each extract; "
                                                               "none: `landing` in the workspace.")
    until: Literal["cohort", "expert", "trees", "policy", "report"] = Field(
        "report", description="Last part of the study of a new extract.")
    poll_seconds: float = Field(5.0, ge=0.2, le=3600.0, description="Between two looks [s].")
    stable_seconds: float = Field(300.0, ge=0.0, le=86_400.0, description="Files without a checksum file count as "
                                  "arrived, and files that do not fit it as broken, when unchanged for so long [s].")


class Champion(Section):
    """When the model of a study on a new extract replaces the champion (paired, on the same pinned test patients)."""

    measure: Literal["auroc", "auprc"] = Field("auroc", description="What the rule looks at.")
    margin: float = Field(0.02, ge=0.0, le=0.5, description="The new model may be worse by less than this: the lower "
                                                            "end of the 95 % interval of new - old is above -margin.")
    least: Positive = Field(10, description="Fewest common test stays of each label; with fewer, the champion stays.")
