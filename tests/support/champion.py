"""A finished study's champion without any training: generated stays, a random expert, the tiny random policy.

In: a folder. Out: the path of a configuration in whose workspace stand cohort, expert, base and rl.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

from configs.load import load
from configs.schema import Config
from contracts.features import catalogue
from ehr import cohort
from lineage.artifact import Artifact, folder_digests
from lineage.fingerprint import Recipe
from lineage.store import Store
from support.tiny_policy import tiny_adapter, tiny_policy


def champion_study(folder: Path, **sections: Any) -> Path:
    """Writes configuration, policy, adapter and artifacts; returns the configuration's path.

    Args:
        sections: settings by section, over those of a tiny study.
    """
    model = tiny_policy(folder / "policy", context=2048)
    values = {
        "extends": "demo", "study": {"name": "champion"}, "paths": {"workspace": str(folder / "workspace")},
        "cohort": {"synthetic": {"stays": 60}}, "expert": {"hidden": 8, "heads": 2}, "prompts": {"features": 6},
        "policy": {"model": str(model), "dtype": "float32", "lora": {"rank": 8, "alpha": 8}},
        "serving": {"context": 1536, "slots": 8, "kv_cache_gib": 0.25, "start_seconds": 900.0},
        "evaluation": {"completion_tokens": 160}, "api": {"port": 0}}
    values |= {name: {**values.get(name, {}), **entries} for name, entries in sections.items()}
    path = folder / "champion.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    _make(load(str(path)), model)
    return path


def _make(config: Config, model: Path) -> None:
    store = Store(Path(config.paths.workspace))
    known = json.dumps({"name": str(model), "folder": str(model), "files": folder_digests(model)})
    cohort_made = made(store, config, "cohort", lambda out: _cohort(config, out))
    expert = made(store, config, "expert", lambda out: _expert(config, out), cohort=cohort_made)
    readings = made(store, config, "readings", lambda _: None, cohort=cohort_made, expert=expert)
    patients = made(store, config, "patients", lambda _: None, cohort=cohort_made, readings=readings)
    base = made(store, config, "base", lambda out: (out / "model.json").write_text(known, encoding="utf-8"))
    made(store, config, "rl", lambda out: tiny_adapter(model, out / "adapter"), cohort=cohort_made, patients=patients,
         base=base)


def made(store: Store, config: Config, kind: str, write: Callable[[Path], Any], code: str = "", **inputs: Artifact
         ) -> Artifact:
    """An artifact with what `write` puts into its folder, the study's latest of its kind.

    Args:
        code: another one gives another artifact.
    """
    recipe = Recipe(kind, {}, {}, {"code": code}, {})
    with store.drafting(kind, recipe.key) as draft:
        write(draft.out)
        artifact = store.commit(draft, kind, recipe, inputs, {"sources": {}, "metrics": {}})
    store.remember(config.study.name, kind, recipe)
    return artifact


def living(pid: int) -> bool:
    """Whether a process runs: one that has ended and is not yet reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _cohort(config: Config, out: Path) -> None:
    source = cohort.read_source(config.cohort, config.study.seed, None)
    cohort.write(cohort.prepare(source, config.cohort, config.study.seed), out)


def _expert(config: Config, out: Path) -> None:
    import torch

    from models.expert.architectures import make_model
    from models.expert.loading import DESCRIPTION, WEIGHTS, save_weights

    names = catalogue("mimic_iv").names
    torch.manual_seed(0)
    save_weights(make_model(len(names), config.expert), out / WEIGHTS)
    made = Path(config.paths.workspace) / "artifacts" / "cohort"
    scaling = json.loads(next(made.glob("*/scaling.json")).read_text(encoding="utf-8"))
    (out / DESCRIPTION).write_text(json.dumps({"features": list(names), "catalogue": "mimic_iv", "scaling": scaling,
                                               "section": config.expert.model_dump(mode="json")}))
