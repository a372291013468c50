"""What the repository must not hold: patients, addresses of registries, paths of a machine, unsafe calls, giants."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LONGEST = 400
# Each pattern is written so that it does not match itself.
HOSTS = r"p[y]pi\.org|pythonh[o]sted|registry\.n[p]mjs|d[e]b\.debian|download[.-]?\w*\.p[y]torch\.org|index\.cr[a]tes"
MACHINE = r"/(?:w[o]rk|f[a]rm)/|/r[o]ot/|/h[o]me/[a-z]|/tmp/b[a]sh_jobs|/opt/(?:wh[e]els|py[p]i)"
UNSAFE = {
    "pickle": r"\bpickle\.loads?\b|\bimport pickle\b|\bjoblib\.load\b|\bdill\b",
    "torch.load": r"\btorch\.load\(",
    "remote code": r"trust_remote_code\s*=\s*True",
    "all interfaces": r"0\.0\.0\.0",
    "unverified TLS": r"verify\s*=\s*False",
    "unsafe YAML": r"yaml\.load\(|yaml\.unsafe_load",
    "shell": r"shell\s*=\s*True|os\.system\(",
    "eval": r"(?<![\w.])(?:eval|exec)\(",
    "unfinished": r"\bT[O]DO\b|\bF[I]XME\b|NotImplemented[E]rror",
}


def tracked(*patterns: str) -> list[Path]:
    """Files of the repository, and new ones that git would take."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return sorted({ROOT / name for name in names if name and (ROOT / name).is_file()})


def hits(pattern: str, files: list[Path]) -> list[str]:
    wanted = re.compile(pattern)
    found = []
    for path in files:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
                  for number, line in enumerate(lines, 1) if wanted.search(line)]
    return found


def code() -> list[Path]:
    return [path for path in tracked("*.py", "scripts", ".ci", "docker", "*.yaml", "*.toml")
            if path.relative_to(ROOT).parts[0] != "tests"]


def test_the_patterns_find_what_they_are_for() -> None:
    samples = {"pickle": "x = pickle.load(f)", "torch.load": "torch.load(p)", "remote code": "trust_remote_code=True",
               "all interfaces": "host='0.0.0.0'", "unverified TLS": "verify=False", "unsafe YAML": "yaml.load(f)",
               "shell": "run(x, shell=True)", "eval": "y = eval(x)",
               "unfinished": "# TO" + "DO"}
    assert samples.keys() == UNSAFE.keys()
    assert [name for name, text in samples.items() if not re.search(UNSAFE[name], text)] == []
    assert re.search(HOSTS, "https://py" + "pi.org/simple") and re.search(MACHINE, "see /wo" + "rk/main")
    assert not re.search(UNSAFE["eval"], "model.eval()")


@pytest.mark.parametrize("name", UNSAFE)
def test_code_is_free_of(name: str) -> None:
    # A container listens on its own addresses; what is published of it, and where, is in test_containers.py.
    files = [path for path in code() if name != "all interfaces" or not path.match("docker/compose*.yaml")]
    assert hits(UNSAFE[name], files) == []


def test_no_file_names_a_package_registry() -> None:
    assert hits(HOSTS, tracked()) == []


def test_no_file_names_a_place_on_one_machine() -> None:
    assert hits(MACHINE, tracked()) == []


def test_no_file_is_a_giant() -> None:
    long = [f"{path.relative_to(ROOT)}: {count}" for path in tracked("*.py", "scripts")
            if (count := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST]
    assert long == []


def test_no_patient_data_and_no_weights_lie_in_the_repository() -> None:
    kinds = {".xlsx", ".parquet", ".gz", ".csv", ".safetensors", ".gguf", ".db", ".pkl", ".pt", ".pth", ".npz", ".bin"}
    assert [path for path in tracked() if path.suffix in kinds] == []
    assert [path for path in tracked() if path.stat().st_size > 1 << 20 and path.parent.name != "requirements"] == []


def test_shipped_configurations_are_valid() -> None:
    from configs.load import FOLDER, dump, load, shipped

    assert {"demo", "tjh", "tjh_small"} <= set(shipped())
    for path in FOLDER.glob("*.yaml"):
        assert dump(load(path.stem))["study"]["name"] == path.stem
