"""Work pools: Prefect's own templates with this project's defaults, for processes, Docker and Kubernetes."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ConfigError
from operations.pools import KINDS, Pool, filled, pool


def template(kind: str) -> dict[str, Any]:
    """Prefect's template of a type, from the list that its server gives out."""
    spec = find_spec("prefect")
    assert spec is not None and spec.origin is not None
    listed = Path(spec.origin).parent / "server/api/collections_data/views/aggregate-worker-metadata.json"
    packages = json.loads(listed.read_text(encoding="utf-8"))
    return next(workers[kind]["default_base_job_configuration"] for workers in packages.values() if kind in workers)


@pytest.mark.parametrize("kind", KINDS)
def test_every_default_is_a_variable_of_prefects_template(kind: str) -> None:
    wanted, given = pool(kind), template(kind)
    made = filled(wanted, given)
    assert {name: made["variables"]["properties"][name]["default"] for name in wanted.defaults} == dict(wanted.defaults)
    assert given == template(kind)


def test_a_kubernetes_job_runs_unprivileged_with_both_volumes() -> None:
    spec = filled(pool("kubernetes"), template("kubernetes"))["job_configuration"]["job_manifest"]["spec"]["template"]
    container = spec["spec"]["containers"][0]
    assert container["securityContext"] == {"runAsNonRoot": True, "allowPrivilegeEscalation": False,
                                            "capabilities": {"drop": ["ALL"]}}
    assert {mount["name"] for mount in container["volumeMounts"]} == {one["name"] for one in spec["spec"]["volumes"]}
    assert container["image"] == "{{ image }}"
    dockerfile = Path(__file__).parents[2] / "docker/Dockerfile"
    group = int(re.findall(r"^USER \d+:(\d+)$", dockerfile.read_text(encoding="utf-8"), re.MULTILINE)[-1])
    assert spec["spec"]["securityContext"]["fsGroup"] == group, "the claims' folders can be written by the image's user"


def test_folders_of_the_machine_are_what_compose_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EAG_RL_MODELS", raising=False)
    monkeypatch.setenv("EAG_RL_DATA", "records")
    monkeypatch.chdir(tmp_path)
    root = Path(__file__).parents[2]
    assert pool("docker").defaults["volumes"] == [
        "eag-rl-workspace:/app/.eag-rl", f"{tmp_path / 'records'}:/data:ro", f"{root / 'models-local'}:/models:ro"]


def test_an_unknown_type_or_variable_is_refused() -> None:
    with pytest.raises(ConfigError, match="one of: process, docker, kubernetes"):
        pool("nomad")
    with pytest.raises(ConfigError, match="process sets image"):
        filled(Pool("process", "x", "", {"image": "y"}), template("process"))
