"""Deployments name flows that really load: a broken import would otherwise pass as an empty placeholder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]


def test_each_deployment_has_a_name_of_its_own_and_a_dotted_entrypoint() -> None:
    names = [deployment["name"] for deployment in DEPLOYMENTS]
    assert names and len(set(names)) == len(names)
    assert [one["entrypoint"] for one in DEPLOYMENTS if "/" in one["entrypoint"] or ":" in one["entrypoint"]] == []


@pytest.mark.parametrize("entrypoint", sorted({deployment["entrypoint"] for deployment in DEPLOYMENTS}))
def test_an_entrypoint_loads_from_anywhere_and_is_no_placeholder(entrypoint: str, tmp_path: Path) -> None:
    wanted = [deployment.get("parameters", {}) for deployment in DEPLOYMENTS if deployment["entrypoint"] == entrypoint]
    code = ("from prefect.flows import load_flow_from_entrypoint\n"
            f"flow = load_flow_from_entrypoint({entrypoint!r}, use_placeholder_flow=False)\n"
            f"for parameters in {wanted!r}:\n"
            "    flow.validate_parameters(parameters)\n"
            "print(flow.name)")
    answer = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert answer.stdout.strip()


def test_deployments_name_shipped_configurations() -> None:
    from configs.load import shipped

    named = {deployment["parameters"]["config"] for deployment in DEPLOYMENTS if "config" in deployment["parameters"]}
    assert named <= set(shipped())
