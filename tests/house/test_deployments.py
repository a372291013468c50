"""Deployments name flows that really load: a broken import would otherwise pass as an empty placeholder."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
WATCHED = "mimic_iv_mortality"
_LOOK = """
import json, sys
from prefect.flows import load_flow_from_entrypoint
found = {}
for entrypoint, wanted in json.loads(sys.argv[1]).items():
    flow = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
    for parameters in wanted:
        flow.validate_parameters(parameters)
    found[entrypoint] = {"description": flow.description, "schema": flow.parameters.model_dump()}
print(json.dumps(found))
"""


def parameters_of(deployment: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(deployment.get("parameters", {})).replace("{{ $EAG_RL_WATCHED }}", WATCHED))


def flows_in(path: Path) -> list[str]:
    """Entrypoints of the flows that a file defines."""
    return [f"flows.{path.stem}.{node.name}" for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef) and any(ast.unparse(one).startswith("flow(")
                                                         for one in node.decorator_list)]


def test_every_flow_has_a_deployment() -> None:
    found = {entrypoint for path in (ROOT / "flows").glob("*.py") for entrypoint in flows_in(path)}
    assert len(found) >= 10 and found == {deployment["entrypoint"] for deployment in DEPLOYMENTS}


def test_each_deployment_has_a_name_of_its_own_and_a_dotted_entrypoint() -> None:
    names = [deployment["name"] for deployment in DEPLOYMENTS]
    assert names and len(set(names)) == len(names)
    assert [one["entrypoint"] for one in DEPLOYMENTS if "/" in one["entrypoint"] or ":" in one["entrypoint"]] == []


def test_each_deployment_says_what_it_is_and_what_happens_to_a_second_run() -> None:
    for one in DEPLOYMENTS:
        assert one["description"] and "eag-rl" in one["tags"], one["name"]
        assert one["concurrency_limit"]["collision_strategy"] in ("ENQUEUE", "CANCEL_NEW"), one["name"]
        assert one["work_pool"]["work_queue_name"] in ("studies", "watch"), one["name"]


def test_an_arrival_starts_the_study_of_its_extract() -> None:
    trigger = next(one for one in DEPLOYMENTS if one["name"] == "new-extract")["triggers"][0]
    assert trigger["expect"] == ["eag-rl.extract.arrived"]
    assert set(trigger["parameters"]) == {"config", "overrides", "extract", "until"}


@pytest.mark.slow
def test_every_entrypoint_loads_from_anywhere_and_each_parameter_has_help(tmp_path: Path) -> None:
    wanted: dict[str, list[dict[str, Any]]] = {one["entrypoint"]: [] for one in DEPLOYMENTS}
    for one in DEPLOYMENTS:
        wanted[one["entrypoint"]].append(parameters_of(one))
    answer = subprocess.run([sys.executable, "-c", _LOOK, json.dumps(wanted)], cwd=tmp_path, capture_output=True,
                            text=True, check=False, env={**os.environ, "PREFECT_HOME": str(tmp_path)})
    assert answer.returncode == 0, answer.stderr[-3000:]
    found = json.loads(answer.stdout.splitlines()[-1])
    assert found.keys() == wanted.keys()
    for entrypoint, one in found.items():
        bare = [name for name, entry in one["schema"]["properties"].items() if not entry.get("description")]
        assert one["description"] and one["schema"]["properties"] and bare == [], entrypoint


def test_deployments_name_shipped_configurations() -> None:
    from configs.load import shipped

    named = {parameters["config"] for one in DEPLOYMENTS if "config" in (parameters := parameters_of(one))}
    assert named <= set(shipped())
