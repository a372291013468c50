"""Runs of MLflow as plain values, out of one MLflow and into another; nothing is written twice.

Out go name, times, status, parameters (without paths), metrics by step, inputs with digests, and the tags that this
project sets. In the other MLflow each run remembers whose copy it is, so that a second import finds it; links between
runs (parent, inputs, children) point to the copies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run

from lineage import portable
from lineage.artifact import Artifact
from lineage.carried_runs import OURS
from lineage.store import MANIFEST, read_json
from lineage.tracking import Tracker

COPY_OF, BUNDLE, WHOLE = "imported.run", "imported.bundle", "imported.whole"
_PARENT = "mlflow.parentRunId"
_BATCH = 900


def outgoing(tracker: Tracker, run_ids: Iterable[str]) -> list[dict[str, Any]]:
    """The runs that this MLflow knows among `run_ids`, with the runs above them, oldest first."""
    found: dict[str, dict[str, Any]] = {}
    waiting = [name for name in run_ids if name]
    while waiting:
        name = waiting.pop()
        if name in found or not tracker.known(name):
            continue
        found[name] = _values(tracker, tracker.client.get_run(name))
        waiting.append(found[name]["tags"].get(_PARENT, ""))
    return sorted((one for one in found.values() if one), key=lambda one: one["start"])


def incoming(tracker: Tracker, runs: Iterable[Mapping[str, Any]], folder: Path, bundle: str) -> dict[str, str]:
    """Writes runs that are not here yet; returns the ids of those that were written by the ids they had.

    Args:
        runs: as `lineage.carried_runs.carried` has checked them.
        folder: of an unpacked bundle: files and models of the artifacts are logged from there.
        bundle: name of the bundle, for a tag.
    """
    runs, copies, made = list(runs), {}, {}
    for run in runs:
        copy = _copy_of(tracker, run["id"])
        if copy is None:
            made[run["id"]] = _start(tracker, run, bundle)
        copies[run["id"]] = copy or made[run["id"]]
    for run in runs:
        if run["id"] in made:
            _fill(tracker, run, made[run["id"]], copies, folder)
    return made


def _values(tracker: Tracker, run: Run) -> dict[str, Any]:
    name = run.info.run_id
    series = {key: [[one.step, one.timestamp, one.value] for one in tracker.client.get_metric_history(name, key)]
              for key in run.data.metrics}
    inputs = [{"name": one.dataset.name, "digest": one.dataset.digest, "source_type": one.dataset.source_type,
               "source": one.dataset.source, "profile": one.dataset.profile,
               "role": next((tag.value for tag in one.tags if tag.key == "mlflow.data.context"), "")}
              for one in (run.inputs.dataset_inputs if run.inputs else ())]
    return {"id": name, "name": run.info.run_name, "status": run.info.status, "start": run.info.start_time,
            "end": run.info.end_time, "metrics": series, "inputs": inputs,
            "params": {key: value for key, value in run.data.params.items() if not key.startswith("paths.")},
            "tags": {key: value for key, value in run.data.tags.items() if key.startswith(OURS)}}


def _copy_of(tracker: Tracker, name: str) -> str | None:
    """The whole copy of a run; a half one, of an import that was killed, is removed."""
    if tracker.known(name):
        return name  # the bundle came home
    whole = None
    for run in tracker.client.search_runs([tracker.experiment], f"tags.`{COPY_OF}` = '{name}'"):
        if run.data.tags.get(WHOLE) == "yes":
            whole = str(run.info.run_id)
        else:
            tracker.client.delete_run(run.info.run_id)
    return whole


def _start(tracker: Tracker, run: Mapping[str, Any], bundle: str) -> str:
    made = tracker.client.create_run(tracker.experiment, start_time=run["start"], run_name=run["name"],
                                     tags={COPY_OF: run["id"], BUNDLE: bundle})
    return str(made.info.run_id)


def _fill(tracker: Tracker, run: Mapping[str, Any], name: str, copies: Mapping[str, str], folder: Path) -> None:
    client = tracker.client
    for key, value in run["tags"].items():
        old = key.removeprefix("child.")
        client.set_tag(name, f"child.{copies[old]}" if old in copies else key, copies.get(value, value))
    params = [Param(key, value) for key, value in run["params"].items()]
    metrics = [Metric(key, value, moment, step) for key, series in run["metrics"].items()
               for step, moment, value in series]
    for start in range(0, len(params), 100):
        client.log_batch(name, params=params[start:start + 100])
    for start in range(0, len(metrics), _BATCH):
        client.log_batch(name, metrics=metrics[start:start + _BATCH])
    if run["inputs"]:
        client.log_inputs(name, datasets=[DatasetInput(
            Dataset(one["name"], one["digest"], one["source_type"], one["source"], profile=one["profile"]),
            [InputTag("mlflow.data.context", one["role"])]) for one in run["inputs"]])
    _files(tracker, run, name, folder)
    client.set_tag(name, WHOLE, "yes")
    client.set_terminated(name, run["status"], run["end"])


def _files(tracker: Tracker, run: Mapping[str, Any], name: str, folder: Path) -> None:
    """The files of the run's artifact: a trained model as LoggedModel, all others as the run's output."""
    place = folder / "artifacts" / run["tags"].get("artifact.id", "-")
    if not (place / MANIFEST).is_file():
        return
    files = [path.relative_to(place).as_posix() for path in sorted(place.rglob("*")) if path.is_file()]
    for file in files:
        if not portable.is_model(file):
            tracker.client.log_artifact(name, str(place / file), "output")
    if any(file.endswith(".safetensors") for file in files):
        artifact = Artifact.from_json(read_json(place / MANIFEST)["artifact"])
        tracker.model(name, artifact, place, "lora-adapter" if artifact.kind != "expert" else "concare")
