"""Stage `base`: the language model that everything starts from, found, converted or fetched once, with its digest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from contracts.errors import ArtifactError
from lineage.artifact import content_digest, remembered_digests
from lineage.store import write_json
from tasks.session import Session
from tasks.stage import Made, Work, stage

_MEMO = Path("cache", "digests.json")
# What training and server read of a model; a README or a repository's own files make no other model of it.
_READ = (".safetensors", ".json", ".jinja", ".model", ".txt", ".tiktoken")


def _own_folder(session: Session) -> Mapping[str, str]:
    """Digests of a model folder that the configuration names: other weights in it are another model."""
    place = Path(session.config.policy.model)
    found = remembered_digests(place.resolve(), session.workspace / _MEMO, _READ) if place.is_dir() else {}
    return {f"model/{name}": digest for name, digest in found.items()}


@stage("base", settings=("policy.model", "policy.dtype"), packages=("transformers",), external=_own_folder)
def base(work: Work) -> Made:
    """Prepares the model folder and records where it is and what is in it."""
    from models.policy.loading import prepare_model

    workspace = work.session.workspace
    folder = prepare_model(work.config.policy.model, workspace / "models", work.config.policy.dtype)
    files = remembered_digests(folder, workspace / _MEMO, _READ)
    write_json(work.out / "model.json", {"name": work.config.policy.model, "folder": str(folder), "files": files})
    return Made(sources={f"{work.config.policy.model}/{name}": digest for name, digest in files.items()},
                show=("model.json",), summary=f"`{work.config.policy.model}`, content {content_digest(files)[:12]}")


def model_folder(folder: Path, workspace: Path) -> Path:
    """The model that a `base` artifact names.

    Args:
        folder: of the artifact.

    Raises:
        ArtifactError: what lies there now is not what the artifact recorded.
    """
    entry = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    place = Path(entry["folder"])
    if not place.is_dir():
        raise ArtifactError(f"the model {entry['name']!r} is no longer at {place}", "base models stay where they were",
                            f"remove {folder} and run again: it is then prepared anew")
    found, recorded = remembered_digests(place, workspace / _MEMO, _READ), entry["files"]
    altered = sorted(name for name in {*found, *recorded} if found.get(name) != recorded.get(name))
    if altered:
        anew = f"remove {place} and {folder} and run again: it is then prepared anew"
        raise ArtifactError(f"the model {entry['name']!r} at {place} was altered ({', '.join(altered[:3])})",
                            "what is trained and judged is the model that was recorded",
                            anew if place.is_relative_to(workspace) else "put its files back, or run the study again")
    return place
