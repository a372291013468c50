"""The runs of a bundle, `runs.json`, checked before any of them is written: whoever made the file is not known.

In: the file's text. Out: runs as plain values, each of the form that `lineage.tracking_runs.outgoing` gives.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from contracts.errors import ArtifactError
from lineage.bundle import ARTIFACT_ID, RUNS

OURS = ("eag_rl.", "artifact.", "input.", "child.", "source.", "stage.", "git.", "version.", "recipe",
        "mlflow.parentRunId")
_RunId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class _Plain(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class CarriedInput(_Plain):
    """A dataset that a run read."""

    name: str
    digest: str
    source_type: str
    source: str
    profile: str | None
    role: str


class CarriedRun(_Plain):
    """A run; times are milliseconds since 1970, metrics rows of (step, time, value)."""

    id: _RunId
    name: str
    status: Literal["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"]
    start: int
    end: int | None
    metrics: dict[str, list[tuple[int, int, float]]]
    inputs: list[CarriedInput]
    params: dict[str, str]
    tags: dict[str, str]

    @field_validator("tags")
    @classmethod
    def _only_ours(cls, tags: dict[str, str]) -> dict[str, str]:
        """Tags of this project alone; the artifact's id becomes the name of a folder."""
        for name in tags:
            if not name.startswith(OURS):
                raise ValueError(f"tag {name!r} is none that an export writes")
        if not ARTIFACT_ID.fullmatch(tags.get("artifact.id", "none-000000000000")):
            raise ValueError("artifact.id is no artifact's id")
        return tags


_RUNS = TypeAdapter(list[CarriedRun])


def carried(text: str) -> list[dict[str, Any]]:
    """The runs of a bundle.

    Raises:
        ArtifactError: they are not what an export writes.
    """
    try:
        return [run.model_dump() for run in _RUNS.validate_json(text)]
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(f"{RUNS}, {place or 'as a whole'}: {first['msg']}", "runs as `eag-rl export` writes them",
                            "export the study again") from error
