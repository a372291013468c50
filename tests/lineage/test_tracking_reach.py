"""MLflow's server is away: a TrackingError with a next step, from a real client; other failures stay what they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from requests.exceptions import ConnectionError as NoConnection

from contracts.errors import TrackingError
from lineage.tracking import Tracker
from lineage.tracking_reach import reaching, tracking_errors
from serving.server import free_port


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> str:
    """An address where nobody answers; MLflow's client asks once."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return f"http://127.0.0.1:{free_port(0)}"


def test_a_server_that_does_not_answer_is_told_with_a_next_step(nowhere: str) -> None:
    client = reaching(MlflowClient(tracking_uri=nowhere), nowhere)
    for ask in (lambda: client.create_run("1"), lambda: client.log_text("0" * 32, "x", "a.txt"),
                lambda: client.get_experiment_by_name("eag-rl")):
        with pytest.raises(TrackingError) as caught:
            ask()
        assert nowhere in caught.value.value and "run the same command again" in caught.value.next_step


def test_a_tracker_says_so_before_a_study_begins(nowhere: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nowhere)
    with pytest.raises(TrackingError):
        Tracker(tmp_path, "study")


@pytest.mark.slow
def test_other_failures_keep_their_kind(tmp_path: Path) -> None:
    client = reaching(MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}"), "here")
    with pytest.raises(MlflowException, match="not found|No Run"):
        client.get_run("0" * 32)
    with pytest.raises(ZeroDivisionError), tracking_errors("here"):
        print(1 / 0)


class Gone:
    """A client whose server went away in the middle."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def set_tag(self, *_: object) -> None:
        self.asked.append("set_tag")
        with tracking_errors("there"):
            raise NoConnection("refused")

    set_terminated = set_tag


@pytest.mark.parametrize(("error", "asked"), [(TrackingError("a", "b", "c"), []), (ValueError("first"), ["set_tag"])])
def test_the_first_failure_is_the_one_that_is_told(error: Exception, asked: list[str]) -> None:
    tracker = object.__new__(Tracker)
    gone = Gone()
    tracker.client = gone  # type: ignore[assignment]

    def guarded() -> Iterator[str]:
        yield from tracker._guarded("run")

    run = guarded()
    next(run)
    with pytest.raises(type(error)) as caught:
        run.throw(error)
    assert caught.value is error and gone.asked == asked
