"""The small programs of the images, run for real: entry point, health check, and the dry run of a Dockerfile."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import ssl
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


dry = load(DOCKER / "dry_run.py")


def enter(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([DOCKER / "entrypoint", "env"], capture_output=True, text=True, check=False,
                          env={"PATH": os.environ["PATH"], "EAG_RL_SECRETS": str(folder), **environment})


def test_secrets_of_files_become_variables_and_other_files_stay_files(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("a b'c")
    answer = enter(tmp_path, VLLM_API_KEY_FILE=str(tmp_path / "key"), SSL_CERT_FILE="/etc/ssl/x")
    assert answer.returncode == 0, answer.stderr
    assert {"VLLM_API_KEY=a b'c", "SSL_CERT_FILE=/etc/ssl/x"} <= set(answer.stdout.splitlines())
    assert "VLLM_API_KEY_FILE" not in answer.stdout


def test_what_a_worker_of_prefect_asks_of_the_image_is_prefects_and_all_else_is_eag_rls(tmp_path: Path) -> None:
    for name in ("prefect", "eag-rl"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@"\n')
        (tmp_path / name).chmod(0o755)
    for arguments, said in ((["eag-rl", "prefect", "flow-run", "execute"], "prefect flow-run execute"),
                            (["eag-rl", "run", "prefect"], "eag-rl run prefect"), (["eag-rl"], "eag-rl")):
        answer = subprocess.run([DOCKER / "entrypoint", *arguments], capture_output=True, text=True, check=True,
                                env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
        assert answer.stdout.strip() == said


def test_a_missing_or_empty_secret_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for name in ("none", "empty"):
        answer = enter(tmp_path, KEY_FILE=str(tmp_path / name))
        assert answer.returncode == 2 and "docker-secrets" in answer.stderr and answer.stdout == ""


def test_the_health_check_tells_well_from_ill() -> None:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 500)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = HTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        codes = [subprocess.run([sys.executable, DOCKER / "healthy", str(server.server_port), path], check=False,
                                capture_output=True).returncode for path in ("/health", "/ill")]
    finally:
        server.shutdown()
        server.server_close()
    assert codes == [0, 1]
    gone = subprocess.run([sys.executable, DOCKER / "healthy", str(server.server_port), "/health"], check=False,
                          capture_output=True, text=True)
    assert gone.returncode == 1 and "Traceback" not in gone.stderr


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_the_health_check_speaks_tls_with_the_certificate_that_the_script_made(tmp_path: Path) -> None:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    for name in ("one", "other"):
        subprocess.run([ROOT / "scripts" / "docker-secrets", tmp_path / name], check=True, capture_output=True)
    server = HTTPServer(("127.0.0.1", 0), Answers)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "one" / "serve_certificate", tmp_path / "one" / "serve_key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        codes = [subprocess.run([sys.executable, DOCKER / "healthy", str(server.server_port), "/", tmp_path / name /
                                 "serve_certificate"], check=False, capture_output=True).returncode
                 for name in ("one", "other")]
    finally:
        server.shutdown()
        server.server_close()
    assert codes == [0, 1]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A git repository with a Dockerfile of two stages, a file to copy and one to leave out."""
    root = tmp_path / "project"
    (root / "docker").mkdir(parents=True)
    (root / "hello.txt").write_text("hello")
    (root / "patients.csv").write_text("secret")
    (root / "docker" / "Dockerfile.dockerignore").write_text("# kept out\n**/*.csv\n")
    (root / "docker" / "Dockerfile").write_text(
        "ARG BASE=python:3.11\nARG KIND=plain\nFROM ${BASE} AS first\nRUN apt-get install --yes bash\nARG KIND\n"
        "USER 10001\nWORKDIR /app\nCOPY . .\nENV SEEN=/app/hello.txt MORE=\"two words\"\n# a comment\n"
        "RUN test \"$KIND\" = plain \\\n && cat hello.txt > /app/copy.txt \\\n && test ! -e patients.csv\n"
        "ENTRYPOINT [\"cat\"]\nCMD [\"/app/copy.txt\"]\nFROM first AS last\nRUN false\n")
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    return root


def test_a_dry_run_does_what_the_dockerfile_says(project: Path, tmp_path: Path,
                                                  capfd: pytest.CaptureFixture[str]) -> None:
    dry.dry_run(project / "docker" / "Dockerfile", tmp_path / "app", "first", {}, project)
    assert (tmp_path / "app" / "copy.txt").read_text() == "hello"
    said = capfd.readouterr().out
    assert "not run (it changes a system)" in said and "bash: is on this machine" in said and said.endswith("hello")


def test_a_dry_run_ends_at_the_step_that_fails(project: Path, tmp_path: Path) -> None:
    path = project / "docker" / "Dockerfile"
    with pytest.raises(subprocess.CalledProcessError):
        dry.dry_run(path, tmp_path / "last", None, {}, project)
    with pytest.raises(subprocess.CalledProcessError):
        dry.dry_run(path, tmp_path / "other", "first", {"KIND": "other"}, project)
    with pytest.raises(dry.Refused, match="no stage 'third'"):
        dry.dry_run(path, tmp_path / "third", "third", {}, project)
    with pytest.raises(dry.Refused, match="not empty"):
        dry.dry_run(path, tmp_path / "other", "first", {}, project)


def test_what_lies_outside_of_the_clean_folder_and_the_base_images_entry_point_are_only_said(
        project: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    outside, path = tmp_path / "outside", project / "docker" / "Dockerfile"
    path.write_text(f'FROM store:1\nCOPY hello.txt {outside}/hello.txt\nCMD ["server", "--address"]\n')
    dry.dry_run(path, tmp_path / "app", None, {}, project)
    said = capfd.readouterr().out
    assert not outside.exists() and f"not copied (it lies outside of /app): hello.txt to {outside}" in said
    assert "entry point: not run (it is that of store:1), with server --address" in said


@pytest.mark.slow
def test_a_python_of_the_base_images_version_is_the_images_python(project: Path, tmp_path: Path,
                                                                 capfd: pytest.CaptureFixture[str]) -> None:
    mine, path = f"{sys.version_info[0]}.{sys.version_info[1]}", project / "docker" / "Dockerfile"
    path.write_text(f"FROM python:{mine}.9-slim\nUSER 1\nRUN python -m venv .venv\n"
                    'CMD ["/app/.venv/bin/python", "--version"]\n')
    dry.dry_run(path, tmp_path / "app", None, {}, project)
    assert f"Python {mine}." in capfd.readouterr().out
    path.write_text("FROM python:3.2\n")
    with pytest.raises(dry.Refused, match=r"no python3\.2; install it"):
        dry.dry_run(path, tmp_path / "old", None, {}, project)


PATTERNS = [line for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines() if line[0] != "#"]


@pytest.mark.parametrize(("path", "patterns", "out"), [
    ("a/b.txt", ["*"], True), ("a/b.txt", ["*", "!a"], False), ("a/b.txt", ["!a", "*"], True),
    ("a/b.csv", ["*", "!a", "**/*.csv"], True), ("b.csv", ["**/*.csv"], True), ("a/b.csv", ["*.csv"], False),
    ("a/b/c", ["*", "!a/b/c"], False), ("a/b/d", ["*", "!a/b/c"], True), (".a/b_cache", [".*_cache"], False),
    ("x/__pycache__/y", ["**/__pycache__"], True), ("ab", ["?"], False)])
def test_the_last_pattern_that_fits_a_file_or_a_folder_above_it_counts(path: str, patterns: list[str],
                                                                       out: bool) -> None:
    assert dry.ignored(path, patterns) is out


def test_no_secret_and_no_patient_gets_into_the_build_context() -> None:
    guard = (ROOT / "scripts" / "refuse-data").read_text()
    suffixes = re.findall(r'"(\.\w+)"', guard[guard.index("SUFFIXES"):guard.index("SECRET_FOLDERS")])
    assert len(suffixes) > 30
    for name in ("docker/secrets/vllm_key", "data/tjh/x.xlsx", ".env", "docker/.env", "configs/.env", "why.html",
                 ".eag-rl/mlflow/mlflow.db", ".git/config", "patient.json", "study.tar.gz", "notes/patients.txt",
                 "models-local/m/config.json", "models/x.jsonl", *(f"configs/x{suffix}" for suffix in suffixes)):
        assert dry.ignored(name, PATTERNS), name
    for other in DOCKER.glob("Dockerfile.*.dockerignore"):
        assert [line for line in other.read_text().splitlines() if line[0] != "#"] == PATTERNS


def test_what_the_images_run_gets_into_the_build_context() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    rooms = {name.partition(".")[0] for name in project["tool"]["setuptools"]["packages"]}
    tracked = subprocess.run(["git", "ls-files", *rooms, "scripts", "requirements"], cwd=ROOT, capture_output=True,
                             text=True, check=True).stdout.splitlines()
    wanted = [*tracked, "docker/entrypoint", "docker/healthy", "pyproject.toml", "prefect.yaml",
              project["project"]["readme"]]
    assert len(tracked) > 300 and [name for name in wanted if dry.ignored(name, PATTERNS)] == []


def test_what_the_readmes_commands_write_is_not_offered_to_git() -> None:
    written = re.findall(r"(?:--out |> )(\w+\.[\w.]+)", (ROOT / "README.md").read_text())
    assert {"why.html", "patient.json", "study.tar.gz"} <= set(written)
    answer = subprocess.run(["git", "check-ignore", *written], cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.stdout.split() == written


def test_an_openssl_that_fails_is_quoted_with_a_next_step(tmp_path: Path) -> None:
    (tmp_path / "openssl").write_text("#!/bin/sh\necho at first >&2\necho 'req: Unknown option: -addext' >&2\nexit 1\n")
    (tmp_path / "openssl").chmod(0o755)
    answer = subprocess.run([ROOT / "scripts" / "docker-secrets", tmp_path / "made"], capture_output=True, text=True,
                            check=False, env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert answer.returncode == 2
    assert "error: openssl made no certificate: req: Unknown option: -addext\n next: " in answer.stderr


def test_every_instruction_of_the_images_is_known_to_the_dry_run() -> None:
    paths = [path for path in DOCKER.glob("Dockerfile*") if path.suffix != ".dockerignore"]
    assert len(paths) == 3
    for path in paths:
        _, steps, _ = dry.way(path.read_text(), None, {})
        assert steps and all(hasattr(dry.Room, f"_{one.word.lower()}") for one in steps)
