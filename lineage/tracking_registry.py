"""Registered models: of each study the expert and the policy, a version for each artifact that was its latest.

MLflow keeps the alias `latest` for itself: it always means the highest version, which is the study's latest here. The
alias `champion` is set by whoever judges versions; what it names is never removed as garbage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.store.entities import PagedList

from contracts.errors import ArtifactError
from lineage.artifact import Artifact

T = TypeVar("T")
CHAMPION = "champion"
ROLES = {"expert": "expert", "rl": "policy"}
_REASON, _SINCE = "eag_rl.champion", "eag_rl.champion.since"


@dataclass(frozen=True)
class Version:
    """A version of a registered model.

    Attributes:
        name: of the registered model; number: of the version.
        artifact: id of the artifact in the store; sha256: its digest.
        run: of the stage that made it; model: id of the LoggedModel.
    """

    name: str
    number: int
    artifact: str
    sha256: str
    run: str
    model: str


@dataclass(frozen=True)
class Crowned:
    """A champion.

    Attributes:
        since: when it got the alias (ISO, UTC), "" where nobody wrote that down; reason: why.
    """

    version: Version
    since: str
    reason: str


def model_name(study: str, role: str) -> str:
    """The registered model of a study: role is "expert" or "policy"."""
    return f"{study}.{role}"


class Registry:
    """The registered models behind one tracking client."""

    def __init__(self, client: MlflowClient, experiment: str) -> None:
        self._client, self._experiment = client, experiment

    def register(self, study: str, role: str, artifact: Artifact) -> Version | None:
        """Makes the artifact the latest version of a study's model; None where no LoggedModel of it is recorded here.

        Nothing is added where it is the latest already.
        """
        name, last = model_name(study, role), self.latest(study, role)
        if last is not None and last.artifact == artifact.id and last.sha256 == artifact.sha256:
            return last
        logged = self.logged_model(artifact.id, artifact.sha256)
        if logged is None:
            return None
        if last is None and not self._client.search_registered_models(f"name = '{name}'"):
            self._client.create_registered_model(name, {"eag_rl.study": study, "eag_rl.role": role})
        made = self._client.create_model_version(
            name, logged.artifact_location, run_id=logged.source_run_id, model_id=logged.model_id,
            tags={"artifact.id": artifact.id, "artifact.sha256": artifact.sha256, "model.id": logged.model_id,
                  "eag_rl.study": study})
        return _version(made)

    def latest(self, study: str, role: str) -> Version | None:
        """The highest version, None where nothing was registered yet."""
        found = list(self.versions(study, role))
        return max(found, key=lambda version: version.number) if found else None

    def versions(self, study: str, role: str) -> Iterator[Version]:
        """All versions of a study's model."""
        for version in self._client.search_model_versions(f"name = '{model_name(study, role)}'"):
            yield _version(version)

    def champion(self, study: str, role: str) -> Version | None:
        """The version that the alias `champion` names, None where nobody was crowned."""
        found = self.crowned(study, role)
        return found.version if found is not None else None

    def crowned(self, study: str, role: str) -> Crowned | None:
        """The champion with the words that it was crowned with, None where nobody was."""
        name = model_name(study, role)
        models = self._client.search_registered_models(f"name = '{name}'")
        number = models[0].aliases.get(CHAMPION) if models else None
        if number is None:
            return None
        found = self._client.get_model_version(name, str(number))
        return Crowned(_version(found), found.tags.get(_SINCE, ""), found.tags.get(_REASON, ""))

    def crown(self, study: str, role: str, artifact: Artifact, reason: str) -> Version:
        """Gives the alias `champion` to the version of an artifact, which is made where there is none yet.

        Args:
            reason: why, for the version's tags, beside the time; that stays as it is where it is champion already.

        Raises:
            ArtifactError: no LoggedModel of the artifact is recorded here.
        """
        fits = [one for one in self.versions(study, role)
                if (one.artifact, one.sha256) == (artifact.id, artifact.sha256)]
        chosen = max(fits, key=lambda version: version.number) if fits else self.register(study, role, artifact)
        if chosen is None:
            raise ArtifactError(f"{artifact.id} has no model in MLflow", "a trained model is logged when it is "
                                "made, or by the next run of its study", "run its study again: nothing is trained anew")
        tags = {_REASON: reason}
        if self.champion(study, role) != chosen:
            tags[_SINCE] = datetime.now(UTC).isoformat(timespec="seconds")
        for name, value in tags.items():
            self._client.set_model_version_tag(chosen.name, str(chosen.number), name, value)
        self._client.set_registered_model_alias(chosen.name, CHAMPION, str(chosen.number))
        return chosen

    def champions(self) -> set[str]:
        """Ids of the artifacts that any alias `champion` names."""
        return {_version(self._client.get_model_version(model.name, str(model.aliases[CHAMPION]))).artifact
                for model in _every(self._client.search_registered_models) if CHAMPION in (model.aliases or {})}

    def logged_model(self, artifact: str, sha256: str) -> LoggedModel | None:
        """The newest whole LoggedModel of an artifact."""
        return next((model for model in self._logged(artifact) if model.tags.get("artifact.sha256") == sha256
                     and model.status == LoggedModelStatus.READY), None)

    def drop_unfinished(self, artifact: str) -> None:
        """Removes LoggedModels of an artifact that whoever logged them could not finish."""
        for model in self._logged(artifact):
            if model.status != LoggedModelStatus.READY:
                self._client.delete_logged_model(model.model_id)

    def _logged(self, artifact: str) -> list[LoggedModel]:
        """LoggedModels of an artifact, newest first."""
        return list(self._client.search_logged_models(
            [self._experiment], filter_string=f"tags.`artifact.id` = '{artifact}'",
            order_by=[{"field_name": "creation_timestamp", "ascending": False}]))

    def forget(self, artifacts: set[str], delete: bool) -> list[Path]:
        """The local folders of the LoggedModels of freed artifacts; with `delete`, also ends them and their versions.

        Champions are kept, whatever is asked for.
        """
        gone, folders = artifacts - self.champions(), []
        for model in _every(partial(self._client.search_logged_models, [self._experiment])):
            if model.tags.get("artifact.id") not in gone:
                continue
            if model.artifact_location.startswith("file://"):
                folders.append(Path(model.artifact_location.removeprefix("file://")).parent)
            if delete:
                self._end(model)
        return folders

    def _end(self, model: LoggedModel) -> None:
        for version in self._client.search_model_versions(f"tags.`model.id` = '{model.model_id}'"):
            self._client.delete_model_version(version.name, str(version.version))
        self._client.delete_logged_model(model.model_id)


def _every(search: Callable[..., PagedList[T]]) -> Iterator[T]:
    """All that a search of MLflow finds, page by page."""
    token = None
    while True:
        page = search(page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _version(found: ModelVersion) -> Version:
    return Version(found.name, int(found.version), found.tags.get("artifact.id", ""),
                   found.tags.get("artifact.sha256", ""), found.run_id or "", found.tags.get("model.id", ""))
