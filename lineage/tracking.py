"""MLflow: one parent run for each `run` of a study, one nested run for each stage that really ran.

Only this file and its neighbours `tracking_*` import mlflow. A nested run holds parameters, metrics by step, its inputs
as datasets with digests, its outputs as tags and small files (patient rows stay in the store), and for trained models a
LoggedModel of safetensors. Tags link every run to its artifact, through `input.*` to the runs that made its
inputs, and through `child.*` to the runs that used it.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

from contracts.errors import TrackingError
from lineage import portable
from lineage.artifact import Artifact
from lineage.tracking_reach import reaching
from lineage.tracking_registry import ROLES, Registry, Version

_EXPERIMENT = "eag-rl"
_PARAM_LENGTH = 500
_BATCH = 900


def tracking_uri(workspace: Path) -> str:
    """Where runs are recorded: MLFLOW_TRACKING_URI if set, else an SQLite file in the workspace."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{workspace.resolve() / 'mlflow' / 'mlflow.db'}"


class Tracker:
    """Runs of one workspace in MLflow.

    Args:
        workspace: holds mlflow/mlflow.db and mlflow/artifacts.
        study: name of the study; becomes the name of its parent runs.
    """

    def __init__(self, workspace: Path, study: str) -> None:
        folder = workspace.resolve() / "mlflow"
        folder.mkdir(parents=True, exist_ok=True)
        self.study = study
        # The first use creates and migrates the database: two processes at once would race.
        with FileLock(folder / "setup.lock"):
            place = tracking_uri(workspace)
            self.client = reaching(MlflowClient(tracking_uri=place), place)
            _write_ahead(place)
            found = self.client.get_experiment_by_name(_EXPERIMENT)
            self.experiment = found.experiment_id if found else self.client.create_experiment(
                _EXPERIMENT, artifact_location=None if place.startswith("http") else (folder / "artifacts").as_uri())
        self.registry = Registry(self.client, self.experiment)

    @contextmanager
    def sweep_run(self, settings: Mapping[str, Any]) -> Iterator[str]:
        """The run above the studies of a sweep; yields its id and closes it as finished or failed."""
        run_id = self._start(f"{self.study} sweep", {"eag_rl.study": self.study, "eag_rl.level": "sweep"})
        self._params(run_id, settings)
        yield from self._guarded(run_id)

    @contextmanager
    def study_run(self, settings: Mapping[str, Any], versions: Mapping[str, str], commit: str,
                  sweep: str | None = None) -> Iterator[str]:
        """The parent run of the stages, itself a child of a sweep's; yields its id and closes it as finished or
        failed."""
        above = {"mlflow.parentRunId": sweep} if sweep else {}
        tags = {**above, "eag_rl.study": self.study, "eag_rl.level": "study", "git.commit": commit,
                **{f"version.{name}": version for name, version in versions.items()}}
        run_id = self._start(self.study, tags)
        self._params(run_id, settings)
        self.client.log_dict(run_id, dict(settings), "config.json")
        yield from self._guarded(run_id)

    @contextmanager
    def stage_run(self, parent: str | None, stage: str, tags: Mapping[str, str]) -> Iterator[str]:
        """A nested run for one stage; yields its id and closes it as finished or failed."""
        nested = {"mlflow.parentRunId": parent} if parent else {}
        run_id = self._start(stage, {"eag_rl.study": self.study, "eag_rl.level": "stage", "eag_rl.stage": stage,
                                     **nested, **tags})
        yield from self._guarded(run_id)

    def inputs(self, run_id: str, artifacts: Mapping[str, Artifact], makers: Mapping[str, str],
               sources: Mapping[str, str]) -> None:
        """Logs what a stage reads: artifacts (with the runs that made them) and source files, each with its digest."""
        entries = [self._dataset(artifact.id, artifact.sha256, artifact.uri, role)
                   for role, artifact in artifacts.items()]
        entries += [self._dataset(name, digest, name, "source") for name, digest in sources.items()]
        if entries:
            self.client.log_inputs(run_id, datasets=entries)
        for role, artifact in artifacts.items():
            self.tag(run_id, f"input.{role}", artifact.id)
            self.tag(run_id, f"input.{role}.run", makers.get(role, ""))
        for maker in {maker for maker in makers.values() if self.known(maker)}:
            self.tag(maker, f"child.{run_id}", self.client.get_run(run_id).info.run_name)
        for name, digest in sources.items():
            self.tag(run_id, f"source.{name}"[:250], digest)

    def output(self, run_id: str, artifact: Artifact, folder: Path, files: Iterable[str]) -> None:
        """Tags the run with its artifact and logs the given small files."""
        for name, value in artifact.to_json().items():
            self.tag(run_id, f"artifact.{name}", value)
        with tempfile.TemporaryDirectory() as place:
            for path in portable.copy(folder, files, Path(place)):
                self.client.log_artifact(run_id, str(path), "output")

    def params(self, run_id: str, settings: Mapping[str, Any]) -> None:
        """Logs dotted settings as parameters."""
        self._params(run_id, settings)

    def metrics(self, run_id: str, values: Mapping[str, float], step: int = 0) -> None:
        """Logs the numbers among `values` at a step; what is not finite is left out: it breaks charts."""
        now = int(time.time() * 1000)
        entries = [Metric(_plain(name), float(value), now, step) for name, value in values.items()
                   if isinstance(value, int | float) and abs(float(value)) < float("inf")]
        for start in range(0, len(entries), _BATCH):
            self.client.log_batch(run_id, metrics=entries[start:start + _BATCH])

    def model(self, run_id: str, artifact: Artifact, folder: Path, kind: str) -> str:
        """Logs a trained model (safetensors and JSON, nothing else of its folder) as LoggedModel; returns its id."""
        model = self.client.create_logged_model(
            self.experiment, name=artifact.id, source_run_id=run_id, model_type=kind,
            tags={"artifact.id": artifact.id, "artifact.sha256": artifact.sha256, "eag_rl.study": self.study})
        with tempfile.TemporaryDirectory() as place:
            portable.copy(folder, portable.model_files(folder), Path(place))
            self.client.log_model_artifacts(model.model_id, place)
        self.client.finalize_logged_model(model.model_id, "READY")
        self.client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
        return str(model.model_id)

    def register(self, artifact: Artifact) -> Version | None:
        """Makes an expert or a policy the latest version of the study's registered model; other kinds are none."""
        role = ROLES.get(artifact.kind)
        return self.registry.register(self.study, role, artifact) if role else None

    def known(self, run_id: str) -> bool:
        """Whether a run is of this MLflow: an artifact may come from a workspace that was tracked elsewhere."""
        if not run_id:
            return False
        try:
            self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                raise
            return False
        return True

    def finished(self, run_id: str) -> bool:
        """Whether a run of this MLflow came to its good end."""
        return bool(self.client.get_run(run_id).info.status == "FINISHED")

    def finish(self, run_id: str) -> None:
        """Ends a run well that could not end itself."""
        self.client.set_terminated(run_id, "FINISHED")

    def tag(self, run_id: str, name: str, value: str) -> None:
        """Sets one tag; signs that MLflow takes in no name become a dash."""
        self.client.set_tag(run_id, _plain(name), value)

    def _start(self, name: str, tags: Mapping[str, str]) -> str:
        run = self.client.create_run(self.experiment, run_name=name, tags=dict(tags))
        return str(run.info.run_id)

    def _guarded(self, run_id: str) -> Iterator[str]:
        try:
            yield run_id
        except TrackingError:
            raise  # nobody is there to be told
        except BaseException as error:
            with suppress(TrackingError):  # the first failure is the one to tell
                self.client.set_tag(run_id, "eag_rl.error", type(error).__name__)
                self.client.set_terminated(run_id, "FAILED")
            raise
        self.client.set_terminated(run_id, "FINISHED")

    def _params(self, run_id: str, settings: Mapping[str, Any]) -> None:
        entries = [Param(_plain(name), _text(value)) for name, value in settings.items()]
        for start in range(0, len(entries), 100):
            self.client.log_batch(run_id, params=entries[start:start + 100])

    @staticmethod
    def _dataset(name: str, digest: str, place: str, role: str) -> DatasetInput:
        source = json.dumps({"uri": place, "sha256": digest})
        dataset = Dataset(name=name, digest=digest[:32], source_type="local", source=source,
                          profile=json.dumps({"sha256": digest, "role": role}))
        return DatasetInput(dataset=dataset, tags=[InputTag("mlflow.data.context", role)])


def _write_ahead(uri: str) -> None:
    """Lets readers and a writer of an SQLite database work at once; two writers wait for each other (MLflow: 20 s)."""
    if not uri.startswith("sqlite:///"):
        return
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"), timeout=60.0)) as database:
        database.execute("PRAGMA journal_mode=WAL")


def _plain(name: str) -> str:
    return re.sub(r"[^\w\-. :/]", "-", name)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text[:_PARAM_LENGTH]


