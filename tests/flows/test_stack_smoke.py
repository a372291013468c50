"""The stack as a user meets it: up, a study from a deployment, a new extract that starts its study, down."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import mlflow
import psutil
import pytest
import yaml

from ehr.extracts.write import synthesize
from serving.server import free_port
from support.tiny_study import eag_rl
from support.waiting import until

pytestmark = [pytest.mark.smoke, pytest.mark.timeout(1800)]
_HOLD = "import sys; from tasks.gpu import LIMIT, Slot; slot = Slot(LIMIT); slot.take('test'); sys.stdin.read()"


class Stack:
    """A running stack and the configuration that it was started with."""

    def __init__(self, folder: Path) -> None:
        self.workspace, self.config, self.study = folder / "workspace", folder / "landed.yaml", folder / "tiny.yaml"
        self.ports = [free_port(0), free_port(0)]
        self.config.write_text(yaml.safe_dump({
            "extends": "mimic_demo", "study": {"name": "landed"}, "paths": {"workspace": str(self.workspace)},
            "operations": {"prefect_port": self.ports[0], "mlflow_port": self.ports[1]},
            "landing": {"poll_seconds": 1.0, "until": "cohort"}}))
        self.study.write_text(yaml.safe_dump({
            "extends": "demo", "study": {"name": "tiny"}, "cohort": {"synthetic": {"stays": 60}},
            "expert": {"hidden": 8, "heads": 2, "epochs": 3, "seeds": 1, "permutations": 1}}))

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}/api"

    def post(self, path: str, **values: Any) -> Any:
        with httpx.Client(trust_env=False, timeout=30.0) as http:
            return http.post(f"{self.api}/{path}", json=values).raise_for_status().json()

    def start(self, name: str, **parameters: Any) -> str:
        """What the button of a deployment's page does; returns the flow run's id."""
        with httpx.Client(trust_env=False, timeout=30.0) as http:
            found = http.get(f"{self.api}/deployments/name/{name}").raise_for_status().json()
        return self.post(f"deployments/{found['id']}/create_flow_run", parameters=parameters)["id"]

    def runs(self, deployment: str) -> list[dict[str, Any]]:
        return self.post("flow_runs/filter", deployments={"name": {"any_": [deployment]}},
                         flow_runs={"state": {"name": {"not_any_": ["Scheduled"]}}})

    def state(self, run: str) -> str:
        return self.post("flow_runs/filter", flow_runs={"id": {"any_": [run]}})[0]["state_type"]

    def processes(self) -> list[str]:
        found = []
        for process in psutil.process_iter(["cmdline", "environ"]):
            seen = f"{process.info['cmdline']} {(process.info['environ'] or {}).get('PREFECT_HOME', '')}"
            found += [seen] if str(self.workspace) in seen and process.pid != os.getpid() else []
        return found


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    found = Stack(tmp_path_factory.mktemp("stack"))
    try:
        told = eag_rl("up", "--config", str(found.config), "--watch", str(found.config)).stdout
        assert f"http://127.0.0.1:{found.ports[0]}" in told and "new-extract" in told
        yield found
    finally:
        eag_rl("down", "--config", str(found.config), check=False)


def test_a_second_up_says_that_it_runs(stack: Stack) -> None:
    assert "It runs already" in eag_rl("up", "--config", str(stack.config)).stdout


def test_a_study_started_from_its_deployment_ends_completed_and_says_why_it_ran(stack: Stack) -> None:
    run = stack.start("run-study/demo", config=str(stack.study), until="expert")
    assert until(lambda: stack.state(run) in ("COMPLETED", "FAILED", "CRASHED"), 600.0)
    assert stack.state(run) == "COMPLETED"
    client = mlflow.MlflowClient(f"http://127.0.0.1:{stack.ports[1]}")
    experiment = client.get_experiment_by_name("eag-rl")
    found = {one.data.tags["mlflow.runName"]: one for one in client.search_runs([experiment.experiment_id])}
    assert found["tiny"].info.status == found["expert"].info.status == "FINISHED"
    assert found["expert"].data.metrics["cost.seconds"] > 0.0 and found["expert"].data.metrics["cost.child_mib"] > 50.0
    pages = {one["key"]: one["data"] for one in stack.post("artifacts/filter") if one["type"] == "markdown"}
    assert "# expert: miss, made" in pages["tiny-expert"] and "never made before" in pages["tiny-expert"]
    assert "| expert | miss |" in pages["tiny-why"]


def test_one_run_at_a_time_has_the_gpu(stack: Stack) -> None:
    """The global limit that `up` made is really waited for (that a GPU is there plays no part in it)."""
    variables = {**os.environ, "PREFECT_API_URL": stack.api}
    both = [subprocess.Popen([sys.executable, "-c", _HOLD], env=variables, stdin=subprocess.PIPE,
                             stderr=subprocess.DEVNULL) for _ in range(2)]
    try:
        with httpx.Client(trust_env=False, timeout=30.0) as http:
            def taken() -> int:
                return http.get(f"{stack.api}/v2/concurrency_limits/eag-rl-gpu").json()["active_slots"]

            assert until(lambda: taken() == 1, 120.0)
            time.sleep(3.0)
            assert taken() == 1
    finally:
        for child in both:
            child.kill()
            child.wait()


def test_a_new_extract_starts_its_study_within_a_minute_and_a_copy_of_it_none(stack: Stack, tmp_path: Path) -> None:
    made = synthesize(tmp_path / "x", "mimic-iv-3.1", 60, rows_per_stay=1).folder
    assert until(lambda: any(run["state_type"] == "RUNNING" for run in stack.runs("watch-extracts")), 300.0)
    shutil.copytree(made, stack.workspace / "landing" / "mimic-iv-3.1")
    begun = ("PENDING", "RUNNING", "COMPLETED")
    assert until(lambda: any(run["state_type"] in begun for run in stack.runs("new-extract")), 60.0)
    run = stack.runs("new-extract")[0]
    assert run["parameters"]["extract"] == str(stack.workspace / "landing" / "mimic-iv-3.1")
    shutil.copytree(made, stack.workspace / "landing" / "copy")
    assert until(lambda: stack.state(run["id"]) in ("COMPLETED", "FAILED", "CRASHED"), 600.0)
    assert stack.state(run["id"]) == "COMPLETED"
    text = eag_rl("landing", "--config", str(stack.config), "--json").stdout
    assert until(lambda: '"duplicate"' in eag_rl("landing", "--config", str(stack.config), "--json").stdout, 60.0)
    assert '"studied"' in text and len(stack.runs("new-extract")) == 1
    events = stack.post("events/filter", filter={"event": {"prefix": ["eag-rl."]}})["events"]
    heard = {event["event"] for event in events}
    assert {"eag-rl.extract.arrived", "eag-rl.extract.duplicate"} <= heard


def test_schedules_are_carried_out_and_no_transaction_of_the_server_fails(stack: Stack) -> None:
    """A watch ends with the hour and the nightly look comes by schedule alone: with no run to come there is neither."""
    def to_come() -> set[str]:
        coming = stack.post("flow_runs/filter", flow_runs={"state": {"type": {"any_": ["SCHEDULED"]}}})
        return {stack.post("deployments/filter", deployments={"id": {"any_": [run["deployment_id"]]}})[0]["name"]
                for run in coming if run["auto_scheduled"]}

    assert until(lambda: to_come() == {"watch-extracts", "new-extract"}, 150.0), to_come()
    told = (stack.workspace / "stack" / "prefect.log").read_text()
    assert "database is locked" not in told and "Traceback" not in told, told[-5000:]


def test_down_leaves_no_process_and_no_port(stack: Stack) -> None:
    assert "Ended." in eag_rl("down", "--config", str(stack.config)).stdout
    assert until(lambda: stack.processes() == [], 30.0), stack.processes()
    for port in stack.ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    assert "Nothing runs" in eag_rl("down", "--config", str(stack.config)).stdout
