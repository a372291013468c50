"""Where the service may listen, and how it stops: in a process of its own, by real signals."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from api.listen import address, bound
from configs.schema import Api
from contracts.errors import ConfigError, ServerError
from support.predictor import PATIENT, TOKEN

TESTS = Path(__file__).parents[1]
_SECONDS = 120.0
CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from api.app import Service
from api.listen import address, bound, run
from api.tokens import Tokens
from configs.schema import Api
from contracts.errors import ModelError
from support.predictor import TOKEN, ScriptedPredictor
section = Api(port=0, drain_seconds=60)
predictor = ScriptedPredictor(seconds=float(sys.argv[2]),
                              refusal=ModelError("no model", "b", "c") if "broken" in sys.argv else None)
listener = bound(section)
try:
    run(Service(predictor, section, Tokens([TOKEN], "test")), listener, lambda text: print(text, flush=True))
finally:
    print("closed", predictor.closed, "finished", predictor.finished, flush=True)
"""


def started(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(TESTS), *arguments], text=True, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
    assert child.stdout is not None
    return child, child.stdout.readline().rpartition(" ")[2].strip()


def ready(url: str) -> None:
    limit = time.monotonic() + _SECONDS
    while time.monotonic() < limit:
        try:
            if httpx.get(f"{url}/readyz", trust_env=False, timeout=_SECONDS).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise TimeoutError("the child is not ready")


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_predictions_end_and_then_closes(stop: signal.Signals) -> None:
    child, url = started("3")
    key = {"Authorization": f"Bearer {TOKEN}"}
    try:
        ready(url)
        codes: list[int] = []
        asking = threading.Thread(target=lambda: codes.append(httpx.post(
            f"{url}/v1/predict", json=PATIENT, headers=key, trust_env=False, timeout=_SECONDS).status_code))
        asking.start()
        while "predictions_running 1.0" not in httpx.get(f"{url}/metrics", headers=key, trust_env=False,
                                                       timeout=_SECONDS).text:
            assert not codes
        child.send_signal(stop)
        with pytest.raises(httpx.TransportError):
            while not codes:
                httpx.get(f"{url}/healthz", trust_env=False, timeout=_SECONDS)
        asking.join(timeout=_SECONDS)
        out, errors = child.communicate(timeout=_SECONDS)
    finally:
        child.kill()
    assert codes == [200] and "closed 1 finished 1" in out
    assert child.returncode == 0, errors


def test_a_model_that_cannot_be_opened_ends_the_service_with_its_error() -> None:
    child, _ = started("0", "broken")
    out, errors = child.communicate(timeout=_SECONDS)
    assert child.returncode == 1 and "ModelError: no model" in errors and "closed 1" in out


def test_only_loopback_is_listened_on_unless_permission_and_tls_are_given(tmp_path: Path) -> None:
    for section in (Api(host="192.0.2.1"), Api(host="192.0.2.1", allow_remote=True), Api(host="ward.example")):
        with pytest.raises(ConfigError, match="api.host") as caught:
            bound(section)
        assert "TLS" in caught.value.rule
    with pytest.raises(ConfigError, match="no file"):
        bound(Api(certificate=str(tmp_path / "a.pem"), key=str(tmp_path / "b.pem")))
    with pytest.raises(ValueError, match="together"):
        Api(certificate="a.pem")


def test_an_address_in_use_is_told_at_once() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ServerError, match="cannot listen on 127.0.0.1"):
            bound(Api(port=other.getsockname()[1]))


def test_the_address_says_host_and_port() -> None:
    with bound(Api(port=0)) as listener:
        assert address(Api(), listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"
