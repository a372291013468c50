"""The guard before a commit: refuses data, weights and secrets by name and by content."""

from __future__ import annotations

import io
import json
import pickle as pickled
import subprocess
import zipfile
from pathlib import Path

import polars as pl
import pytest
import torch
import yaml
from safetensors.torch import save

ROOT = Path(__file__).parents[2]
GUARD = ROOT / "scripts" / "refuse-data"
ROWS = "".join(f"{number},2150-01-0{number},7.{number}\n" for number in range(1, 6))


def guard(*paths: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([GUARD, *paths], capture_output=True, text=True, check=False)


def parquet() -> bytes:
    stream = io.BytesIO()
    pl.DataFrame({"a": [1]}).write_parquet(stream)
    return stream.getvalue()


def workbook() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("xl/workbook.xml", "<x/>")
    return stream.getvalue()


@pytest.mark.parametrize("name", ["a.xlsx", "a.csv", "a.csv.gz", "A.PARQUET", "m.safetensors", "m.gguf", "m.bin",
                                  "x.db", "x.sas7bdat", "notes.csv.txt", "server.pem"])
def test_a_name_is_enough(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("anything")
    answer = guard(tmp_path / name)
    assert answer.returncode == 1 and f"refused: {tmp_path / name}" in answer.stderr and " next: " in answer.stderr


@pytest.mark.parametrize(("content", "why"), [
    (parquet(), "Parquet"), (workbook(), "Office"), (save({"w": torch.ones(2)}), "safetensors"),
    (pickled.dumps({"a": 1}), "pickle"), (b"\x1f\x8b\x08rest", "gzip"), (b"SQLite format 3\0rest", "SQLite"),
    (b"-----BEGIN RSA PRIVATE " + b"KEY-----\nabc", "private key"),
    (f"subject_id,charttime,valuenum\n{ROWS}".encode(), "'subject_id' and 5 rows"),
    (f"# a comment\n\nPATIENT_ID;RE_DATE;Lactate\n{ROWS.replace(',', ';')}".encode(), "'PATIENT_ID' and 5 rows"),
    (("| stay_id | age | sex |\n|---|---|---|\n" + "".join(f"| {n} | 6{n} | male |\n" for n in range(4))).encode(),
     "'stay_id' and 4 rows")])
def test_a_false_name_helps_nobody(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "harmless.txt").write_bytes(content)
    answer = guard(tmp_path / "harmless.txt")
    assert answer.returncode == 1 and why in answer.stderr


@pytest.mark.parametrize("text", [
    "subject_id,charttime,valuenum\n", "a,b,c\n1,2,3\n4,5,6\n7,8,9\n", "stay_id: the stay, time: hours\n", "",
    json.dumps({"stay_id": 1, "age": 60}), "name,version,date\na,1,2026\nb,2,2026\nc,3,2026\n"])
def test_what_only_speaks_of_patients_passes(tmp_path: Path, text: str) -> None:
    (tmp_path / "words.txt").write_text(text)
    assert guard(tmp_path / "words.txt").returncode == 0


def test_a_secret_of_the_containers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "docker" / "secrets" / "vllm_key"
    path.parent.mkdir(parents=True)
    path.write_text("abc")
    assert "a secret" in guard(path).stderr


def test_every_file_of_this_repository_passes_and_the_hook_calls_the_guard() -> None:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    answer = guard(*[ROOT / name for name in names if name and (ROOT / name).is_file()])
    assert answer.returncode == 0, answer.stderr
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]
    assert {"id": "refuse-data", "entry": "scripts/refuse-data", "language": "script"}.items() <= hooks[0]["hooks"][
        0].items()
