"""What the arms of a report cost, read from the manifests of the artifacts behind their verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from contracts.errors import ArtifactError
from evaluation.cost import ArmCost, Costs, Judging, Prices, Stage, costs
from lineage.artifact import Artifact
from lineage.store import Store
from tasks.stage import Work, input_file


def costs_of(work: Work) -> Costs:
    """Costs of all policy arms of the report, each trained once (the study's own seed)."""
    section, store = work.config.evaluation, work.session.store
    arms = []
    for arm in section.arms:
        entry = store.manifest(work.artifacts[f"verdicts.{arm}"])
        verdicts = pl.read_parquet(input_file(work, f"verdicts.{arm}", "verdicts.parquet"))
        adapter = entry["inputs"].get("adapter")
        before = {one.artifact: one for one in stages_before(store, adapter)} if adapter else {}
        arms.append(ArmCost(arm, tuple(before.values()), judging_of(entry["metrics"], verdicts)))
    return costs(arms, Prices(section.gpu_hour_price, section.cpu_hour_price))


def stages_before(store: Store, values: Mapping[str, Any]) -> Iterator[Stage]:
    """The stage that made an artifact and all before it, the first ones first; one stands as often as it is needed.

    A stage whose artifact is no longer in the workspace has no seconds, and what came before it is not known.
    """
    artifact = Artifact.from_json(values)
    try:
        entry = store.manifest(artifact)
    except ArtifactError:
        yield Stage(artifact.kind, artifact.id, None)
        return
    for source in entry["inputs"].values():
        yield from stages_before(store, source)
    yield Stage(artifact.kind, artifact.id, seconds_of(entry), tokens_of(store, artifact, entry))


def seconds_of(entry: Mapping[str, Any]) -> float:
    """Wall seconds of a stage by its manifest: part of its cost; older manifests hold them on their own, the oldest
    only when the stage's last life began and ended."""
    if "seconds" in entry:
        return float(entry["seconds"])
    return float(entry["cost"]["cost.seconds"] if "cost" in entry else entry["finished"] - entry["started"])


def tokens_of(store: Store, artifact: Artifact, entry: Mapping[str, Any]) -> float | None:
    """Tokens trained on (fine-tuning: all passes), read and written (search), or sampled (reinforcement learning)."""
    found = entry["metrics"]
    if artifact.kind in ("sft", "labels"):
        return float(found["tokens"] * entry["recipe"]["settings"]["policy.sft.epochs"])
    if artifact.kind == "trajectories":
        return float(found["prompt_tokens"] + found["completion_tokens"])
    if artifact.kind == "rl":
        return float(pl.read_parquet(store.folder(artifact) / "rollouts.parquet", columns=["tokens"])["tokens"].sum())
    return None


def judging_of(found: Mapping[str, float], verdicts: pl.DataFrame) -> Judging:
    """What judging took, from the numbers that the stage `verdicts` recorded and its answers."""
    on_gpu = found.get("on_gpu")
    return Judging(verdicts.height, found.get("judging_seconds"), int(verdicts["prompt_tokens"].sum()),
                   int(verdicts["completion_tokens"].sum()), found.get("cached_prompt_tokens"),
                   None if on_gpu is None else bool(on_gpu))
