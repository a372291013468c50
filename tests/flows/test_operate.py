"""`eag-rl up` on a stack that runs, and `eag-rl deploy`: what they tell Prefect's server, and what they refuse."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prefect.exceptions import ObjectNotFound

from contracts.errors import ConfigError, ServerError
from flows import deploy as registering
from flows import settle_runs
from flows.operate import deploy, up
from operations import stack

PAGES = {"prefect": "http://127.0.0.1:4321", "mlflow": "http://127.0.0.1:5432"}
NAMES = ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "PREFECT_HOME", "PYTHONDONTWRITEBYTECODE")


class Told:
    """Stands for Prefect's server: what it has of the watch, and what it was told."""

    def __init__(self) -> None:
        self.stands: str | None = None
        self.registered: list[str] = []
        self.begun = 0

    def register(self, _section: object, _kind: str = "process", watched: str = "") -> list[str]:
        assert os.environ["PREFECT_API_URL"] == "http://127.0.0.1:4321/api"
        self.registered.append(watched)
        self.stands = watched
        return ["watch-extracts"]

    def begin(self, _settled: object) -> None:
        self.begun += 1


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """A stack that runs, with a server that says what it was told; the environment stays as it was."""
    server = Told()
    for name in NAMES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(stack, "running", lambda _: {"state": "ready", "since": 0.0, "pages": PAGES})
    monkeypatch.setattr(registering, "deploy", server.register)
    monkeypatch.setattr(registering, "watched_with", lambda: server.stands)
    monkeypatch.setattr(settle_runs, "settle", lambda _: [])
    monkeypatch.setattr(settle_runs, "begin_watch", server.begin)
    return server


def again(folder: Path, watch: str | None = None) -> None:
    up(config="demo", overrides=[f"paths.workspace={folder}"], watch=watch)


def test_a_stack_whose_first_up_was_interrupted_is_deployed_by_the_next(told: Told, tmp_path: Path) -> None:
    again(tmp_path)
    assert told.registered == ["mimic_iv_mortality"] and told.begun == 1


def test_an_up_on_a_running_stack_keeps_its_watch_where_none_is_asked_for(
        told: Told, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told.stands = "mimic_demo"
    again(tmp_path)
    said = capsys.readouterr().out
    assert told.registered == ["mimic_demo"] and told.begun == 0
    assert "It runs already" in said and "full hour" not in said


def test_an_up_on_a_running_stack_takes_another_watch_and_says_when_it_begins(
        told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text("extends: mimic_demo\n")
    monkeypatch.chdir(tmp_path)
    told.stands = "mimic_demo"
    again(tmp_path, watch="mine.yaml")
    assert told.registered == [str(tmp_path / "mine.yaml")] and told.begun == 1
    assert "a watch with mimic_demo that runs ends at the next full hour" in capsys.readouterr().out


@pytest.mark.parametrize("command", [up, deploy])
def test_a_watch_that_is_no_configuration_is_refused_before_anything_is_registered(command: Any, told: Told,
                                                                                  tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mimic_iv_mortalty"):
        command(config="demo", overrides=[f"paths.workspace={tmp_path}"], watch="mimic_iv_mortalty")
    assert told.registered == []


@pytest.mark.parametrize("pool", ["process", "docker"])
def test_a_watch_in_a_file_is_registered_by_its_whole_path_where_runs_are_this_machines(
        pool: str, told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text("extends: mimic_demo\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4321/api")
    deploy(config="demo", overrides=[f"paths.workspace={tmp_path}"], pool=pool, watch="mine.yaml")
    assert told.registered == [str(tmp_path / "mine.yaml") if pool == "process" else "mine.yaml"]


@pytest.mark.usefixtures("told")
def test_a_deploy_to_a_server_that_is_away_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> list[str]:
        raise httpx.ConnectError("[Errno 111] Connection refused")

    monkeypatch.setattr(registering, "deploy", away)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(ServerError, match=r"http://127\.0\.0\.1:9/api does not answer \(ConnectError\)"):
        deploy(config="demo", overrides=[f"paths.workspace={tmp_path}"], pool="process", watch="mimic_demo")


@pytest.mark.parametrize("stands", ["mimic_demo", None])
def test_the_server_is_asked_what_its_watch_was_told(stands: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        def __enter__(self) -> Client:
            return self

        def __exit__(self, *_: object) -> None:
            """Nothing is open."""

        def read_deployment_by_name(self, name: str) -> SimpleNamespace:
            assert name == "watch-extracts/watch-extracts"
            if stands is None:
                raise ObjectNotFound(http_exc=ValueError("404"))
            return SimpleNamespace(parameters={"config": stands, "overrides": []})

    monkeypatch.setattr(registering, "get_client", lambda **_: Client())
    assert registering.watched_with() == stands
