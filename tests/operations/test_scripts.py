"""The scripts of a user: they say how they are used, refuse what they cannot do, and know when nothing is to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ("setup", "demo", "up", "down", "test", "pin", "audit", "docker-secrets", "docker-dry-run")


def run(*command: str, root: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("EAG_RL_DEVICE", "EAG_RL_PYTHON")}
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
                          timeout=120, env={**inherited, **environment})


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The repository as far as the set-up goes before it installs anything."""
    for folder in ("scripts", "requirements", "operations"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", [*(f"scripts/{script}" for script in SCRIPTS), "scripts/env.sh", ".ci/run"])
def test_scripts_are_bash_that_stops_at_errors(name: str) -> None:
    text = (ROOT / name).read_text()
    assert run("bash", "-n", name).returncode == 0
    if not name.endswith(".sh"):
        assert os.access(ROOT / name, os.X_OK)
        assert text.startswith("#!/usr/bin/env bash\n") and "\nset -euo pipefail\n" in text


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_scripts_please_shellcheck() -> None:
    answer = run("shellcheck", "-x", *(f"scripts/{script}" for script in SCRIPTS), ".ci/run")
    assert answer.returncode == 0, answer.stdout


def test_scripts_explain_themselves() -> None:
    for script in ("setup", "demo", "up", "down", "test", "pin", "audit", "docker-secrets", "docker-dry-run"):
        answer = run(f"scripts/{script}", "--help")
        assert answer.returncode == 0 and "Usage: ./scripts/" in answer.stdout


def test_setup_has_nothing_to_do_where_everything_stands() -> None:
    if run("scripts/setup", "--plan").stdout.splitlines()[-1] != "everything stands":
        pytest.skip("this environment was not made by scripts/setup, or not from this pyproject.toml")
    began = time.monotonic()
    answer = run("scripts/setup")
    assert answer.returncode == 0 and answer.stderr.startswith("setup: everything stands (.venv, ")
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(("arguments", "environment", "cause"), [
    (["--fast"], {}, "unknown option --fast"),
    ([], {"EAG_RL_DEVICE": "tpu"}, "EAG_RL_DEVICE=tpu"),
    ([], {"EAG_RL_PYTHON": "/bin/false"}, "EAG_RL_PYTHON=/bin/false"),
])
def test_setup_refuses_with_a_next_step(copy: Path, arguments: list[str], environment: dict[str, str],
                                        cause: str) -> None:
    answer = run("scripts/setup", *arguments, root=copy, **environment)
    assert answer.returncode == 2 and f"error: {cause}" in answer.stderr and " next: " in answer.stderr
    assert not (copy / ".venv").exists()


def test_setup_passes_over_pythons_that_do_not_run(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    shims = tmp_path_factory.mktemp("shims")
    for name in ("python3.11", "python3.12", "python3"):
        (shims / name).write_text("#!/bin/sh\necho 'command not found' >&2\nexit 127\n")
        (shims / name).chmod(0o755)
    (shims / "python").symlink_to(Path(sys.base_prefix) / "bin" / "python3")
    answer = run("scripts/setup", "--plan", root=copy, PATH=f"{shims}:/usr/bin:/bin", HOME=str(shims),
                 EAG_RL_DEVICE="gpu")
    assert answer.returncode == 0, answer.stderr
    python, requirements, state = answer.stdout.splitlines()
    version = subprocess.run([python, "-c", "import sys, ensurepip; print(*sys.version_info[:2])"], text=True,
                             capture_output=True, check=True)
    assert version.stdout.strip() in ("3 11", "3 12") and requirements == "requirements/gpu.txt"
    assert state == "to be installed"
    assert not (copy / ".venv").exists()


def test_setup_keeps_the_device_an_environment_was_made_for(copy: Path) -> None:
    (copy / ".venv").mkdir()
    (copy / ".venv" / ".eag-rl-device").write_text("gpu\n")
    assert run("scripts/setup", "--plan", root=copy).stdout.splitlines()[1] == "requirements/gpu.txt"
    told = run("scripts/setup", "--plan", root=copy, EAG_RL_DEVICE="cpu").stdout.splitlines()[1]
    assert told == "requirements/cpu.txt"


def test_a_real_folder_is_asked_of_the_test_script() -> None:
    answer = run("scripts/test", "--unit", EAG_RL_DATA="/nowhere")
    assert answer.returncode == 2 and "EAG_RL_DATA=/nowhere is no folder" in answer.stderr
