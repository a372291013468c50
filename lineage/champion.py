"""The champion of a study in MLflow's registry: the version of a registered model that carries the alias `champion`.

In: an artifact whose run logged it as a LoggedModel. Out: a version of the model `<study>.<role>` made from it, with
the alias moved to it.
"""

from __future__ import annotations

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from contracts.errors import ArtifactError
from lineage.artifact import Artifact
from lineage.tracking import Tracker

ALIAS = "champion"


def crown(tracker: Tracker, role: str, artifact: Artifact, reason: str) -> str:
    """Makes an artifact's model the champion of its role; returns the version. Doing it again changes nothing.

    Args:
        role: expert or policy.
        reason: why, for the version's tags.

    Raises:
        ArtifactError: the artifact's model was never logged.
    """
    name, client = model_name(tracker.study, role), tracker.client
    version = _version(client, name, artifact) or _registered(tracker, name, artifact)
    client.set_model_version_tag(name, version, "eag_rl.champion", reason)
    client.set_registered_model_alias(name, ALIAS, version)
    return version


def model_name(study: str, role: str) -> str:
    """The registered model of a study: role is "expert" or "policy"."""
    return f"{study}.{role}"


def champion(client: MlflowClient, name: str) -> str | None:
    """The version that has the alias, None where none has."""
    try:
        return str(client.get_model_version_by_alias(name, ALIAS).version)
    except MlflowException:
        return None


def _version(client: MlflowClient, name: str, artifact: Artifact) -> str | None:
    found = client.search_model_versions(f"name = '{name}'")
    return next((str(one.version) for one in found if one.tags.get("artifact.id") == artifact.id), None)


def _registered(tracker: Tracker, name: str, artifact: Artifact) -> str:
    logged = tracker.client.search_logged_models([tracker.experiment],
                                                 filter_string=f"tags.`artifact.id` = '{artifact.id}'")
    if not logged:
        raise ArtifactError(f"{artifact.id} has no model in MLflow", "a trained model is logged when it is made",
                            "remove that artifact's folder and run again")
    if not tracker.client.search_registered_models(f"name = '{name}'"):
        tracker.client.create_registered_model(name)
    made = tracker.client.create_model_version(
        name, logged[0].artifact_location, run_id=logged[0].source_run_id, model_id=logged[0].model_id,
        tags={"artifact.id": artifact.id, "artifact.sha256": artifact.sha256, "model.id": logged[0].model_id})
    return str(made.version)
