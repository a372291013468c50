"""Stages as they really run, but for Prefect: real store, real MLflow, makers of a few lines; no real patient.

`session(workspace, name)` is what a stage gets; `make(session, kind, files, inputs)` makes one artifact through
`tasks.stage`; `tracked_study(session)` makes cohort, patients, rl and report.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import polars as pl
from safetensors.numpy import save

from lineage.artifact import Artifact
from lineage.fingerprint import Recipe
from lineage.store import Store
from lineage.tracking import Tracker
from support.small_store import ANSWER, EVIDENCE, PAGE, SHARED, STAYS, Files, write_files
from tasks import stage

ADAPTER = {"adapter/adapter_model.safetensors": save({"a": np.zeros(4, dtype=np.float32)}),
           "adapter/adapter_config.json": "{}"}


def session(workspace: Path, name: str = "small") -> Any:
    """The handles of one study; its runs have no run above them until `study_run` is set."""
    return SimpleNamespace(config=SimpleNamespace(study=SimpleNamespace(name=name)), store=Store(workspace),
                           workspace=workspace, tracker=Tracker(workspace, name), study_run=None, lease=None)


def make(own: Any, kind: str, files: Files, inputs: Mapping[str, Artifact] | None = None, seconds: float = 0.0,
         outcome: str = "mortality", **made: Any) -> dict[str, Any]:
    """Makes an artifact, or finds it; returns what the Prefect task of a stage would."""
    inputs = inputs or {}

    def write(work: stage.Work) -> stage.Made:
        with (own.workspace / f"made-{kind}").open("a") as log:
            log.write(f"{own.config.study.name}\n")
        time.sleep(seconds)
        write_files(work.out, files)
        own.tracker.metrics(work.run_id, {"loss": 0.5}, 1)
        own.tracker.metrics(work.run_id, {"loss": 0.25}, 2)
        return stage.Made(**made)

    settings = {"paths.data": "x", "lr": 0.1, "cohort.outcome": outcome}
    recipe = Recipe(kind, {role: one.sha256 for role, one in inputs.items()}, settings, {}, {})
    values = stage._make(cast(Any, write), own, recipe, recipe.key, inputs, ["made for a test"])
    own.store.remember(own.config.study.name, kind, recipe)
    return values


def tracked_study(own: Any, note: str = "") -> dict[str, Artifact]:
    """Makes cohort, patients, rl and report under one run of the study; `note` makes another policy and report."""
    tables = {"stays.parquet": pl.DataFrame({"stay_id": STAYS}), "meta.json": "{}"}
    adapter = {**ADAPTER, "adapter/adapter_config.json": f'{{"note": "{note}"}}',
               "rollouts.parquet": pl.DataFrame({"stay_id": STAYS, "text": [ANSWER, "x"]})}
    found: dict[str, Artifact] = {}
    with own.tracker.study_run({"study.name": own.config.study.name, "paths.data": "x"}, {}, "c" * 40) as own.study_run:
        for kind, files, inputs, made in (
                ("cohort", tables, (), {"sources": {"hospital.csv": "0" * 64}, "show": ("meta.json",)}),
                ("patients", {"patients.parquet": pl.DataFrame({"stay_id": STAYS, "evidence": [EVIDENCE, "x"]})},
                 ("cohort",), {"metrics": {"stays": 2.0}}),
                ("rl", adapter, ("patients",), {"model": "lora-adapter", "metrics": {"reward": 0.5}}),
                ("report", {"report.html": PAGE + note, "report_to_share.html": SHARED, "table.json": "[]"},
                 ("rl", "patients"), {"show": ("report_to_share.html", "table.json")})):
            found[kind] = Artifact.from_json(make(own, kind, files, {role: found[role] for role in inputs}, **made))
            own.tracker.register(found[kind])
    return found
