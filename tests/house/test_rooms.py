"""The house keeps its shape: every room is packaged, named in the map, documented, and hides nobody else."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES: list[str] = PROJECT["tool"]["setuptools"]["packages"]
ROOMS = sorted({package.partition(".")[0] for package in PACKAGES})
NO_ROOMS = {"tests", "docker", "docs", "scripts", "benchmarks", "requirements"}
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def git(*arguments: str, check: bool = True) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=check).stdout


def tracked() -> list[Path]:
    """Files of the repository, and new ones that git would take."""
    names = git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def test_every_folder_with_code_is_a_package_that_gets_installed_and_vice_versa() -> None:
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in MODULES}
    assert found == set(PACKAGES)
    assert [name for name in PACKAGES if not (ROOT / name.replace(".", "/") / "__init__.py").is_file()] == []


def test_no_top_level_folder_of_code_is_forgotten() -> None:
    folders = {path.relative_to(ROOT).parts[0] for path in tracked() if path.suffix == ".py"}
    assert folders - NO_ROOMS - set(ROOMS) == set()


def test_no_room_hides_an_installed_package() -> None:
    others = {top: names for top, names in importlib.metadata.packages_distributions().items()
              if set(names) - {"eag-rl", "eag_rl"}}
    assert {room: others[room] for room in ROOMS if room in others} == {}
    assert not {"datasets", "evaluate", "tokenizers"} & set(ROOMS)


def test_flows_have_verb_noun_names_that_hide_no_room() -> None:
    assert {path.stem for path in (ROOT / "flows").glob("*.py")} & set(ROOMS) == set()


def test_nothing_under_tests_or_docker_is_a_package() -> None:
    assert [path for folder in ("tests", "docker") for path in (ROOT / folder).rglob("__init__.py")] == []


def test_test_files_have_names_of_their_own() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(name for name in set(names) if names.count(name) > 1) == []


def test_no_file_of_a_room_is_swallowed_by_gitignore() -> None:
    kinds = {".py", ".yaml", ".html", ".j2"}
    files = [str(path.relative_to(ROOT)) for room in ROOMS for path in (ROOT / room).rglob("*") if path.suffix in kinds]
    assert len(files) > 50
    answer = subprocess.run(["git", "check-ignore", "--no-index", *files], cwd=ROOT, capture_output=True, text=True,
                            check=False)
    assert (answer.returncode, answer.stdout) == (1, "")


def test_data_files_beside_code_are_installed_with_it() -> None:
    patterns: dict[str, list[str]] = PROJECT["tool"]["setuptools"]["package-data"]
    packed = {path for package, globs in patterns.items() for glob in globs
              for path in (ROOT / package.replace(".", "/")).glob(glob)}
    kinds = {".yaml", ".html", ".j2", ".css", ".js"}
    beside = {path for room in ROOMS for path in (ROOT / room).rglob("*") if path.suffix in kinds}
    assert beside - packed == set()


def test_import_rules_name_every_room() -> None:
    rules = PROJECT["tool"]["importlinter"]
    assert set(rules["root_packages"]) == set(ROOMS)
    layers = next(contract for contract in rules["contracts"] if contract["type"] == "layers")["layers"]
    assert {room.strip() for layer in layers for room in layer.split("|")} == set(ROOMS)
    allowed = {"prefect": {"tasks", "flows"}, "mlflow": set(), "torch": {"models"}, "vllm": set(),
               "fastapi": {"api"}}
    for contract in rules["contracts"]:
        if contract["type"] == "forbidden":
            assert set(ROOMS) - set(contract["source_modules"]) == allowed[contract["forbidden_modules"][0]]
    assert sum(contract["type"] == "forbidden" for contract in rules["contracts"]) == len(allowed)


def test_types_are_checked_in_every_room() -> None:
    assert set(PROJECT["tool"]["mypy"]["packages"]) == set(ROOMS)


def test_the_map_in_the_readme_names_every_room() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [room for room in ROOMS if f"`{room}/" not in readme] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_everything_public_says_what_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bare = [] if ast.get_docstring(tree) or path.name == "__init__.py" else ["the module"]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            bare += [] if ast.get_docstring(node) else [node.name]
    assert bare == []


def test_the_version_and_the_licence_are_said_once() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", PROJECT["project"]["version"])
    assert PROJECT["project"]["scripts"] == {"eag-rl": "flows.cli:main"}
