"""Stage `base`: the language model that everything starts from, found, converted or fetched once, with its digest."""

from __future__ import annotations

from pathlib import Path

from lineage.artifact import content_digest, folder_digests
from lineage.store import write_json
from tasks.stage import Made, Work, stage


@stage("base", settings=("policy.model", "policy.dtype"), packages=("transformers",))
def base(work: Work) -> Made:
    """Prepares the model folder and records where it is and what is in it."""
    from models.policy.loading import prepare_model

    folder = prepare_model(work.config.policy.model, work.session.workspace / "models", work.config.policy.dtype)
    files = folder_digests(folder)
    write_json(work.out / "model.json", {"name": work.config.policy.model, "folder": str(folder), "files": files})
    return Made(sources={f"{work.config.policy.model}/{name}": digest for name, digest in files.items()},
                show=("model.json",), summary=f"`{work.config.policy.model}`, content {content_digest(files)[:12]}")


def model_folder(folder: Path) -> Path:
    """The model that a `base` artifact names; fetched or converted again where it is gone.

    Raises:
        ArtifactError: what lies there now is not what the artifact recorded.
    """
    import json

    from contracts.errors import ArtifactError

    entry = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    place = Path(entry["folder"])
    if not place.is_dir() or set(folder_digests(place)) != set(entry["files"]):
        raise ArtifactError(f"the model {entry['name']!r} is no longer at {place}", "base models stay where they were",
                            f"remove {folder} and run again: it is then prepared anew")
    return place
