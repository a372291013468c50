"""Work pools as this project wants them: Prefect's own template of a type, with defaults and mounts of `pools.yaml`.

In: the type and Prefect's template (plain JSON). Out: the same template, changed; the one given is left as it is.
Folders of the machine stand in `pools.yaml` as in docker/compose.yaml, `${NAME:-default}`, and mean the same.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from contracts.errors import ConfigError

KINDS = ("process", "docker", "kubernetes")
# Where the project lies inside its image (docker/).
IN_IMAGE = "/app"
_DOCKER = Path(__file__).resolve().parents[1] / "docker"
_FOLDER = re.compile(r"^\$\{(\w+):-([^}]*)\}")


@dataclass(frozen=True)
class Pool:
    """One work pool.

    Attributes:
        defaults: of the job variables.
        container, pod: what a Kubernetes job gets beside the template's own entries.
    """

    kind: str
    name: str
    description: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    container: Mapping[str, Any] = field(default_factory=dict)
    pod: Mapping[str, Any] = field(default_factory=dict)


def pool(kind: str) -> Pool:
    """The pool of a type.

    Raises:
        ConfigError: there is no such type.
    """
    known = yaml.safe_load(Path(__file__).with_name("pools.yaml").read_text(encoding="utf-8"))
    if kind not in known:
        raise ConfigError(f"pool {kind!r}", f"one of: {', '.join(KINDS)}", "correct --pool")
    found = Pool(kind, **known[kind])
    if "volumes" not in found.defaults:
        return found
    return replace(found, defaults={**found.defaults, "volumes": [_mount(one) for one in found.defaults["volumes"]]})


def _mount(volume: str) -> str:
    """A mount with its folder of this machine as a whole path; a default starts in docker/, as compose reads it."""
    def folder(found: re.Match[str]) -> str:
        named = os.environ.get(found[1])
        return str(Path(named).resolve() if named else (_DOCKER / found[2]).resolve())

    return _FOLDER.sub(folder, volume)


def filled(wanted: Pool, template: Mapping[str, Any]) -> dict[str, Any]:
    """A base job template with the pool's defaults and mounts.

    Raises:
        ConfigError: the template knows no such variable.
    """
    made = copy.deepcopy(dict(template))
    variables = made["variables"]["properties"]
    unknown = sorted(set(wanted.defaults) - set(variables))
    if unknown:
        raise ConfigError(f"pools.yaml: {wanted.kind} sets {', '.join(unknown)}",
                          f"variables of that type: {', '.join(sorted(variables))}", "correct operations/pools.yaml")
    for name, value in wanted.defaults.items():
        variables[name]["default"] = copy.deepcopy(value)
    if wanted.pod or wanted.container:
        spec = made["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
        spec |= copy.deepcopy(dict(wanted.pod))
        spec["containers"][0] |= copy.deepcopy(dict(wanted.container))
    return made
