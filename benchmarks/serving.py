"""The API under load: concurrent predictions for a while on the tiny random policy, real vLLM behind `eag-rl serve`.

    python benchmarks/serving.py [--at-once 100] [--seconds 60] [--samples 8] [--tokens 24] [--json]

Reported: answers by status, answers per second, p50, p90, p99 and longest latency, and the memory (proportional set
size) of the API process and of the model server when the load begins, at its end and at most; then whether SIGTERM
left a process behind. The policy is random, so what it answers means nothing; a prediction is one greedy answer and
`samples` sampled ones. Patients differ, so that no prompt is wholly in the prefix cache.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.champion import champion_study, living  # noqa: E402

_LOAD_SECONDS = 1800.0
_TOKEN = "b" * 40


def main() -> None:
    """Runs the benchmark and prints what it found."""
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        config = champion_study(Path(folder), serving={"slots": 64, "start_seconds": _LOAD_SECONDS},
                                evaluation={"completion_tokens": options.tokens},
                                api={"samples": options.samples, "requests_per_minute": 1e6, "burst": 100_000,
                                     "queue": 4 * options.at_once, "request_seconds": 600.0})
        result = _measured(config, options)
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name}: {value}")


def _measured(config: Path, options: argparse.Namespace) -> dict[str, Any]:
    child = subprocess.Popen([sys.executable, "-m", "flows.cli", "serve", "--config", str(config)], text=True, cwd=ROOT,
                             stderr=subprocess.PIPE, env={**os.environ, "EAG_RL_SERVE_TOKEN": _TOKEN,
                                                          "PYTHONPATH": str(ROOT)})
    try:
        home = _address(child)
        log = _Drain(child)
        began = time.monotonic()
        _wait(home, child)
        loaded = time.monotonic() - began
        family = [child.pid, *(one.pid for one in psutil.Process(child.pid).children(recursive=True))]
        result = asyncio.run(_load(home, child.pid, options))
        child.send_signal(signal.SIGTERM)
        code = child.wait(120.0)
    finally:
        child.kill()
        child.wait()
    left = sum(living(pid) for pid in family)
    return {"at once": options.at_once, "seconds": options.seconds, "answers sampled": options.samples,
            "tokens an answer": options.tokens, "seconds to ready": round(loaded, 1), **result,
            "exit code after SIGTERM": code, "processes left": left, "lines of the log": log.lines}


async def _load(home: str, pid: int, options: argparse.Namespace) -> dict[str, Any]:
    limits = httpx.Limits(max_connections=options.at_once, max_keepalive_connections=options.at_once)
    async with httpx.AsyncClient(base_url=home, trust_env=False, limits=limits, timeout=600.0,
                                 headers={"Authorization": f"Bearer {_TOKEN}"}) as client:
        patient = (await client.get("/v1/examples")).json()[1]["patient"]
        numbers = itertools.count()
        await asyncio.gather(*(_ask(client, patient, next(numbers)) for _ in range(max(1, options.at_once // 10))))
        answers: list[tuple[str, float]] = []
        before, end = _memory(pid), time.monotonic() + options.seconds
        peaks = [before]

        async def worker() -> None:
            while time.monotonic() < end:
                answers.append(await _ask(client, patient, next(numbers)))

        async def watch() -> None:
            while time.monotonic() < end:
                await asyncio.sleep(5.0)
                peaks.append(_memory(pid))

        began = time.monotonic()
        await asyncio.gather(watch(), *(worker() for _ in range(options.at_once)))
        took = time.monotonic() - began
    return _summary(answers, took, [*peaks, _memory(pid)])


def _summary(answers: list[tuple[str, float]], took: float, memory: list[dict[str, float]]) -> dict[str, Any]:
    times = np.array([seconds for _, seconds in answers])
    quantiles = {f"p{share}": round(float(np.quantile(times, share / 100)), 3) for share in (50, 90, 99)}
    statuses = Counter(status for status, _ in answers)
    return {"answers": dict(statuses), "errors": sum(count for status, count in statuses.items() if status != "200"),
            "answers a second": round(len(answers) / took, 2), "latency [s]": {**quantiles,
                                                                               "longest": round(float(times.max()), 3)},
            "memory [MiB]": {part: {"start": memory[0][part], "end": memory[-1][part],
                                    "most": max(one[part] for one in memory)} for part in memory[0]}}


async def _ask(client: httpx.AsyncClient, patient: dict[str, Any], number: int) -> tuple[str, float]:
    noise = random.Random(number)
    visits = [{**visit, "values": {**visit["values"], "Heart Rate": noise.randint(40, 180)}}
              for visit in patient["visits"]]
    began = time.perf_counter()
    try:
        answer = await client.post("/v1/predict", json={**patient, "age": noise.randint(20, 90), "visits": visits})
        status = str(answer.status_code)
    except httpx.HTTPError as error:
        status = type(error).__name__
    return status, time.perf_counter() - began


def _memory(pid: int) -> dict[str, float]:
    """MiB of the API's process and of all below it."""
    api = psutil.Process(pid)
    below = sum(one.memory_full_info().pss for one in api.children(recursive=True))
    return {"api": round(api.memory_full_info().pss / 2**20, 1), "model server": round(below / 2**20, 1)}


def _address(child: subprocess.Popen[str]) -> str:
    assert child.stderr is not None
    for line in child.stderr:
        if "listening on " in line:
            return line.rpartition(" ")[2].strip()
    raise SystemExit(f"the service ended with code {child.wait()}")


class _Drain:
    """Reads the service's log away, so that its pipe never fills; counts the lines."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        import threading

        self.lines = 0
        self._stream = child.stderr
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for _ in self._stream or ():
            self.lines += 1


def _wait(home: str, child: subprocess.Popen[str]) -> None:
    limit = time.monotonic() + _LOAD_SECONDS
    while child.poll() is None and time.monotonic() < limit:
        if httpx.get(f"{home}/readyz", trust_env=False, timeout=60.0).status_code == 200:
            return
        time.sleep(1.0)
    raise SystemExit("the service did not become ready")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at-once", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
