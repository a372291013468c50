"""Where a command's runs are recorded: the running stack of the workspace, its files, or nowhere but in a database."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from filelock import FileLock

from contracts.errors import ServerError
from flows.cli_lineage import gc, lineage
from flows.environment import reach, reached

PAGES = {"prefect": "http://127.0.0.1:4321", "mlflow": "http://127.0.0.1:5432"}
POSTGRES = "operations.mlflow_database=postgresql://me@127.0.0.1/mlflow"
NAMES = ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "PREFECT_HOME")


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the addresses is set, and none stays."""
    for name in NAMES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@contextmanager
def stack(workspace: Path, state: str) -> Iterator[None]:
    """What a living keeper leaves: its lock, held, and what it says of itself."""
    folder = workspace / "stack"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(json.dumps({"pid": 1, "since": 0, "state": state, "pages": PAGES}))
    with FileLock(folder / "keeper.lock"):
        yield


def test_a_running_stack_is_asked_and_what_the_user_set_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with stack(tmp_path, "ready"):
        reach("demo", [f"paths.workspace={tmp_path}", POSTGRES])
    assert os.environ["MLFLOW_TRACKING_URI"] == PAGES["mlflow"]
    assert os.environ["PREFECT_API_URL"] == "http://127.0.0.1:9/api"


def test_without_a_stack_the_workspace_keeps_its_own_records(tmp_path: Path) -> None:
    reach("demo", [f"paths.workspace={tmp_path}"])
    assert not any(name in os.environ for name in NAMES)


@pytest.mark.parametrize("command", [gc, lineage])
@pytest.mark.parametrize("state", ["none", "starting"])
def test_records_in_a_database_are_not_looked_for_in_files(command: object, state: str, tmp_path: Path) -> None:
    overrides = [f"paths.workspace={tmp_path}", POSTGRES]
    with pytest.raises(ServerError, match="eag-rl up"):
        if state == "none":
            command(config="demo", overrides=overrides)  # type: ignore[operator]
        else:
            with stack(tmp_path, state):
                command(config="demo", overrides=overrides)  # type: ignore[operator]
    assert not (tmp_path / "mlflow").exists()


def test_a_server_that_is_named_reaches_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert reach("demo", [f"paths.workspace={tmp_path}", POSTGRES]).operations.mlflow_database
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:9"


def answered(address: str, status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", f"{address}/work_pools/filter")
    return httpx.HTTPStatusError("no", request=request, response=httpx.Response(status, request=request))


@pytest.mark.parametrize(("status", "cause", "next_step"), [
    (401, "does not take the password", "PREFECT_API_AUTH_STRING"),
    (500, "answered 500 to POST /api/work_pools/filter", "read its log")])
def test_a_prefect_server_that_refuses_is_told_with_a_next_step(status: int, cause: str, next_step: str) -> None:
    address = "http://127.0.0.1:9/api"
    with pytest.raises(ServerError) as caught, reached(address):
        raise answered(address, status)
    assert address in str(caught.value) and cause in str(caught.value) and next_step in str(caught.value)


def test_the_refusal_of_another_server_is_not_put_down_to_prefects() -> None:
    with pytest.raises(httpx.HTTPStatusError), reached("http://127.0.0.1:9/api"):
        raise answered("http://127.0.0.1:8000/v1", 401)
