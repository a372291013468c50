"""Kill -9 in the middle of a real study: of the Prefect server, of the MLflow server, of the training job."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from operations.privacy import harden_environment
from support.watched_study import WatchedStudy, expert_study, finished, left_over

pytestmark = [pytest.mark.smoke, pytest.mark.timeout(600)]


def ports_of(study: WatchedStudy) -> list[int]:
    """Ports that processes below the command listen on."""
    tree = [psutil.Process(study.process.pid), *psutil.Process(study.process.pid).children(recursive=True)]
    return [entry.laddr.port for process in tree for entry in process.net_connections(kind="tcp")
            if entry.status == psutil.CONN_LISTEN]


def refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_study_goes_on_when_its_prefect_server_is_killed(tmp_path: Path) -> None:
    with WatchedStudy(expert_study(tmp_path)) as study:
        study.wait_until(lambda: bool(study.training()))
        (server,) = study.descendants("flows.prefect_sqlite")
        ports = ports_of(study)
        server.kill()
        study.wait_until(lambda: [one.pid for one in study.descendants("flows.prefect_sqlite")]
                         not in ([], [server.pid]))
        assert study.end() == 0, study.said()
    assert {name.partition("-")[0] for name in finished(study.path)} >= {"cohort", "expert", "readings"}
    assert left_over(study.path) == [] and ports and all(refuses(port) for port in ports)


def test_a_killed_training_job_is_told_with_what_to_lower_and_its_epochs_are_kept(tmp_path: Path) -> None:
    path = expert_study(tmp_path)
    with WatchedStudy(path) as study:
        study.wait_until(lambda: bool(study.training()))
        study.training()[0].kill()
        assert study.end() == 2
    assert "was killed (out of memory?)" in study.said() and "run again to go on" in study.said()
    assert "if memory ran out, lower expert.batch_size" in study.said()
    assert {name.partition("-")[0] for name in finished(path)} == {"cohort"} and left_over(path) == []
    assert len(list(tmp_path.glob("workspace/drafts/expert-*/scratch/training/progress.jsonl"))) == 1


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A real MLflow server on loopback, ended (with its workers) at the end."""
    environment = dict(os.environ)
    harden_environment(environment)
    line = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}",
            "--artifacts-destination", str(folder / "files")]
    with (folder / "mlflow.log").open("ab") as log:
        server = subprocess.Popen(line, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        limit = time.monotonic() + 240.0
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200:
                    break
            except httpx.TransportError:
                assert server.poll() is None and time.monotonic() < limit, (folder / "mlflow.log").read_text()
            time.sleep(0.2)
        yield server
    finally:
        kill_group(server)


def kill_group(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def test_a_study_ends_with_a_next_step_when_mlflow_is_killed_and_goes_on_when_it_is_back(tmp_path: Path) -> None:
    path = expert_study(tmp_path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    places = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
    with mlflow_server(tmp_path, port) as server, WatchedStudy(path, places) as study:
        study.wait_until(lambda: bool(study.training()))
        kill_group(server)
        assert study.end() == 2
        answer = json.loads(study.results.read_text().splitlines()[-1])
        assert answer["error"] == "tracking" and "run the same command again" in answer["next"]
    before = finished(path)
    assert before
    with mlflow_server(tmp_path, port), WatchedStudy(path, places) as again:
        assert again.end() == 0, again.said()
        assert {name: finished(path)[name] for name in before} == before
        runs = httpx.post(f"http://127.0.0.1:{port}/api/2.0/mlflow/runs/search", json={"experiment_ids": ["1"]},
                          trust_env=False).json()["runs"]
        names = {run["info"]["run_name"] for run in runs if run["info"]["status"] == "FINISHED"}
        assert names >= {"cohort", "expert", "readings"}
    assert left_over(path) == []
