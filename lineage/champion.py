"""The champion of a study in MLflow's registry: the version of a registered model that carries the alias `champion`.

In: an artifact whose run logged it as a LoggedModel. Out: a version of the model `eag-rl-<study>-<role>` made from it,
with the alias moved to it; the version that had it gets the alias `former`.
"""

from __future__ import annotations

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from contracts.errors import ArtifactError
from lineage.artifact import Artifact
from lineage.tracking import Tracker

ALIAS, FORMER = "champion", "former"


def crown(tracker: Tracker, role: str, artifact: Artifact, reason: str) -> str:
    """Makes an artifact's model the champion of its role; returns the version. Doing it again changes nothing.

    Args:
        role: expert or policy.
        reason: why, for the version's description.

    Raises:
        ArtifactError: the artifact's model was never logged.
    """
    name, client = f"eag-rl-{tracker.study}-{role}", tracker.client
    version = _version(client, name, artifact) or _registered(tracker, name, artifact, reason)
    before = champion(client, name)
    if before is not None and before != version:
        client.set_registered_model_alias(name, FORMER, before)
    client.set_registered_model_alias(name, ALIAS, version)
    return version


def champion(client: MlflowClient, name: str) -> str | None:
    """The version that has the alias, None where none has."""
    try:
        return str(client.get_model_version_by_alias(name, ALIAS).version)
    except MlflowException:
        return None


def _version(client: MlflowClient, name: str, artifact: Artifact) -> str | None:
    found = client.search_model_versions(f"name='{name}'")
    return next((str(one.version) for one in found if one.tags.get("artifact.id") == artifact.id), None)


def _registered(tracker: Tracker, name: str, artifact: Artifact, reason: str) -> str:
    logged = tracker.client.search_logged_models([tracker.experiment],
                                                 filter_string=f"tags.`artifact.id` = '{artifact.id}'")
    if not logged:
        raise ArtifactError(f"{artifact.id} has no model in MLflow", "a trained model is logged when it is made",
                            "remove that artifact's folder and run again")
    try:
        tracker.client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    made = tracker.client.create_model_version(
        name, f"models:/{logged[0].model_id}", run_id=logged[0].source_run_id, description=reason,
        model_id=logged[0].model_id, tags={"artifact.id": artifact.id, "artifact.sha256": artifact.sha256})
    return str(made.version)
