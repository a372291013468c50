"""Telemetry and risky switches are off, in Python and in the shell alike, and the libraries obey."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.errors import ConfigError
from operations.privacy import DEFAULTS, ENFORCED, check_exposure, harden_environment

ROOT = Path(__file__).parents[2]


def test_hardening_twice_is_hardening_once() -> None:
    environment: dict[str, str] = {}
    assert harden_environment(environment) == []
    once = dict(environment)
    assert harden_environment(environment) == [] and environment == once == {**DEFAULTS, **ENFORCED}


def test_choices_stand_and_what_safety_demands_does_not_yield() -> None:
    environment = {"TOKENIZERS_PARALLELISM": "true", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true", "HOME": "/here"}
    assert harden_environment(environment) == ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"]
    assert environment["TOKENIZERS_PARALLELISM"] == "true" and environment["HOME"] == "/here"
    assert environment["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"


def test_scripts_set_what_python_sets() -> None:
    clean = {name: value for name, value in os.environ.items() if name not in {**ENFORCED, **DEFAULTS}}
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    command = ["bash", "-c", f"source scripts/env.sh && {sys.executable} -c '{code}'"]
    answer = subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, check=True)
    exported = json.loads(answer.stdout)
    assert {name: exported.get(name) for name in {**ENFORCED, **DEFAULTS}} == {**ENFORCED, **DEFAULTS}


@pytest.mark.slow
def test_the_libraries_read_these_names() -> None:
    code = """
from operations.privacy import ENFORCED, DEFAULTS, harden_environment
import os
for name in {**ENFORCED, **DEFAULTS}: os.environ.pop(name, None)
harden_environment()
import huggingface_hub.constants as hub
from mlflow import environment_variables as mlflow
from mlflow.telemetry.utils import is_telemetry_disabled
from prefect.settings import get_current_settings
assert hub.HF_HUB_DISABLE_TELEMETRY and hub.HF_HUB_DISABLE_UPDATE_CHECK
assert is_telemetry_disabled()
assert mlflow.MLFLOW_ALLOW_PICKLE_DESERIALIZATION.get() is False
assert mlflow.MLFLOW_SERVER_ENABLE_JOB_EXECUTION.get() is False
assert mlflow.MLFLOW_MODEL_CATALOG_URI.get() == ""
assert mlflow.MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE.get() == "false"
assert "127.0.0.1:*" in mlflow.MLFLOW_SERVER_ALLOWED_HOSTS.get()
assert get_current_settings().server.analytics_enabled is False
missing = [name for name in ENFORCED if name.startswith("MLFLOW") and not hasattr(mlflow, name)]
assert not missing, missing
"""
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr[-2000:]


def test_vllm_reads_these_names() -> None:
    import importlib.util

    spec = importlib.util.find_spec("vllm")  # found, not imported: it takes half a minute
    assert spec is not None and spec.origin is not None
    text = Path(spec.origin).with_name("envs.py").read_text()
    assert all(f'"{name}"' in text for name in ENFORCED if name.startswith("VLLM"))


@pytest.mark.parametrize(("environment", "words"), [
    ({"PREFECT_API_URL": "http://prefect.hospital:4200/api"}, "without a password"),
    ({"PREFECT_API_URL": "http://me:hunter22@127.0.0.1:4200/api"}, "carries a password"),
    ({"MLFLOW_TRACKING_URI": "https://me:hunter22@mlflow.hospital"}, "carries a password"),
    ({"PREFECT_SERVER_API_HOST": "10.0.0.5"}, "without a password"),
])
def test_a_server_beyond_loopback_needs_a_password_that_is_not_in_its_address(environment: dict[str, str],
                                                                              words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        check_exposure(environment)
    assert "hunter22" not in str(caught.value)


def test_loopback_needs_none_and_beyond_it_csrf_tokens_are_asked_for() -> None:
    for fine in ({}, {"PREFECT_API_URL": "http://127.0.0.1:4200/api"}, {"MLFLOW_TRACKING_URI": "sqlite:///x.db"},
                 {"PREFECT_SERVER_API_HOST": "127.0.0.1"},
                 {"PREFECT_API_URL": "http://prefect:4200/api", "PREFECT_API_AUTH_STRING": "a:b"}):
        before = dict(fine)
        check_exposure(fine)
        assert fine == before
    open_one = {"PREFECT_SERVER_API_HOST": "10.0.0.5", "PREFECT_SERVER_API_AUTH_STRING": "a:b"}
    check_exposure(open_one)
    assert open_one["PREFECT_SERVER_CSRF_PROTECTION_ENABLED"] == "true"
