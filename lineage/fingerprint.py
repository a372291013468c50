"""Recipes: all that decides what a stage would produce, as one key, and in words why two recipes differ.

A recipe holds the digests of its inputs, the settings it uses, the code of every project module its stage can reach
(by imports, without comments and docstrings) and the versions of the packages it leans on.
"""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata, util
from pathlib import Path
from typing import Any

# The settings' values stand in the recipe themselves, so the schema's code does not have to.
ROOMS = ("contracts", "ehr", "prompts", "serving", "rewards", "search", "models", "evaluation", "tasks")
# How a stage is run, shown and recorded decides nothing about its result.
FRAME = ("tasks.stage", "tasks.session", "tasks.display", "tasks.launch", "tasks.gpu", "tasks.meter", "tasks.why")
# A module's data files belong to what it does.
DATA = {"contracts.features": "catalogues/*.yaml", "evaluation.pages": "*.html", "evaluation.tripod": "tripod_*.yaml",
        "ehr.sources.meds.mapping": "*.yaml", "ehr.sources.mimic_iv.items": "items.yaml",
        "ehr.sources.mimic_iv.phenotypes": "phenotypes.yaml"}


@dataclass(frozen=True)
class Recipe:
    """What a stage would be made of.

    Attributes:
        stage: name of the stage.
        inputs: name of each input to the sha256 of its content.
        settings: dotted names to values of all settings the stage uses.
        code: project module to digest of its code.
        versions: package to installed version.
    """

    stage: str
    inputs: Mapping[str, str]
    settings: Mapping[str, Any]
    code: Mapping[str, str]
    versions: Mapping[str, str]

    @property
    def key(self) -> str:
        """sha256 over the whole recipe in canonical JSON."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def changes(old: Mapping[str, Any] | None, new: Recipe) -> list[str]:
    """Why `new` differs from an earlier recipe (its `to_json`), a phrase for each difference; empty: they are equal."""
    if old is None:
        return ["never made before"]
    now = new.to_json()
    words = [f"input {name} changed" for name in _differing(old["inputs"], now["inputs"])]
    words += [f"setting {name}: {_word(old['settings'], name)} -> {_word(now['settings'], name)}"
              for name in _differing(old["settings"], now["settings"])]
    words += [f"code of {name} changed" for name in _differing(old["code"], now["code"])]
    words += [f"version of {name}: {_word(old['versions'], name)} -> {_word(now['versions'], name)}"
              for name in _differing(old["versions"], now["versions"])]
    return words


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def code_digests(entries: Iterable[str]) -> dict[str, str]:
    """Digest of each project module reachable by imports from `entries` (dotted module names), itself included."""
    waiting, found = list(entries), {}
    while waiting:
        module = waiting.pop()
        path = _source(module)
        if module in found or path is None:
            continue
        found[module], imported = _read_module(module, path, path.stat().st_mtime_ns)
        waiting += [*imported, *_parents(module)]
    return dict(sorted(found.items()))


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Installed version of each package, "absent" where it is not installed; Python's own besides."""
    result = {"python": ".".join(map(str, sys.version_info[:2]))}
    for package in packages:
        try:
            result[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            result[package] = "absent"
    return result


@cache
def git_commit() -> str:
    """The commit of the code that runs, "+changes" where the tree differs from it, "unknown" outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    try:
        head = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        dirty = subprocess.run(["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"],
                               capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+changes" if dirty.stdout.strip() else "")


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in {*old, *new} if old.get(name) != new.get(name) or (name in old) != (name in new))


def _word(values: Mapping[str, Any], name: str) -> str:
    return json.dumps(values[name]) if name in values else "(none)"


@cache
def _source(module: str) -> Path | None:
    if module.split(".")[0] not in ROOMS or module in FRAME:
        return None
    # By path: to find a.b.c, importlib would import a.b, and with it torch, trl and vllm (15 seconds).
    room, *inner = module.split(".")
    spec = util.find_spec(room)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        place = Path(folder).joinpath(*inner)
        for path in (place / "__init__.py", place.with_name(f"{place.name}.py")):
            if path.is_file() and (inner or path.name == "__init__.py"):
                return path
    return None


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


@cache
def _read_module(module: str, path: Path, _changed: int) -> tuple[str, tuple[str, ...]]:
    """(digest of the code, project modules it imports)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = tuple(sorted(set(_imports(tree))))
    _strip_docstrings(tree)
    data = [ast.dump(tree)]
    data += [f"{file.name}:{hashlib.sha256(file.read_bytes()).hexdigest()}" for file in _data_files(module, path)]
    return hashlib.sha256("\n".join(data).encode()).hexdigest(), imported


def _data_files(module: str, path: Path) -> list[Path]:
    return sorted(path.parent.glob(DATA[module])) if module in DATA else []


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if _source(name.name))
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (candidate for candidate in (node.module, *(f"{node.module}.{name.name}" for name in node.names))
                        if _source(candidate))


def _strip_docstrings(tree: ast.AST) -> None:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
