"""`eag-rl serve` as a user starts it, on real vLLM and the tiny random policy: load, answer, drain, leave nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest

from support.champion import champion_study, living
from support.tiny_study import command

pytestmark = [pytest.mark.smoke, pytest.mark.timeout(1800)]
_LOAD_SECONDS = 900.0


def test_serve_answers_on_loopback_drains_and_leaves_no_process(tmp_path: Path) -> None:
    config = champion_study(tmp_path, evaluation={"completion_tokens": 24}, api={"samples": 4})
    token = tmp_path / "workspace" / "serve" / "token"
    environment = {**os.environ, "COLUMNS": "200"}
    environment.pop("EAG_RL_SERVE_TOKEN", None)
    log = tmp_path / "serve.log"
    with log.open("w") as stream:
        child = subprocess.Popen(command("serve", "--config", str(config)), stderr=stream, stdout=stream,
                                 env=environment)
    try:
        while "listening on" not in log.read_text():
            assert child.poll() is None, log.read_text()
            time.sleep(0.2)
        told = log.read_text().splitlines()[:3]
        assert str(token) in told[0] and token.stat().st_mode & 0o777 == 0o600
        assert token.read_text().strip() not in "".join(told)
        home = told[2].rpartition(" ")[2].strip()
        assert home.startswith("http://127.0.0.1:")
        headers = {"Authorization": f"Bearer {token.read_text().strip()}"}
        with httpx.Client(base_url=home, trust_env=False, timeout=600.0, headers=headers) as client:
            assert client.get("/healthz").status_code == 200
            limit = time.monotonic() + _LOAD_SECONDS
            while client.get("/readyz").status_code != 200:
                assert child.poll() is None and time.monotonic() < limit
                time.sleep(1.0)
            family = psutil.Process(child.pid).children(recursive=True)
            assert len(family) >= 2
            patient = client.get("/v1/examples").json()[1]["patient"]
            found = client.post("/v1/predict", json=patient)
            assert found.status_code == 200, found.text
            first = found.json()
            assert first["model"].startswith("rl-") and 0.0 < first["expert_risk"] < 1.0
            assert len(first["expert_features"]) == 5 and isinstance(first["reasoning"], str)
            assert client.post("/v1/predict", json=patient).json() == first  # one seed, one answer
            assert client.post("/v1/predict", json={**patient, "age": -1}).status_code == 422
            codes: list[int] = []
            last = threading.Thread(target=lambda: codes.append(httpx.post(
                f"{home}/v1/predict", json={**patient, "age": 50}, headers=headers, trust_env=False,
                timeout=600.0).status_code))
            last.start()
            while not codes and "eag_rl_predictions_running 1.0" not in client.get("/metrics").text:
                time.sleep(0.01)
            child.send_signal(signal.SIGTERM)
            last.join()
        assert child.wait(120.0) == 0 and codes == [200]
        psutil.wait_procs(family, timeout=10.0)
        assert [one.pid for one in family if living(one.pid)] == []
    finally:
        child.kill()
    text = log.read_text()
    assert token.read_text().strip() not in text and "Heart Rate" not in text and "Traceback" not in text
