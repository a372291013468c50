"""A soak: many studies one after the other, some killed at random; does anything grow that should not?

In: a folder, how many studies and how many kills. Each study is the tests' tiny one on the embedded cohort, every stage
real, with a seed of its own, under one Prefect server and one MLflow server that live through all of them. Out: one
line a study (seconds, disk, memory and open files of the servers, processes left) in `soak.jsonl`, and a verdict:

    python -m benchmarks.soak /tmp/soak --studies 20 --kills 5      # again after an interruption: goes on
    python -m benchmarks.soak /tmp/soak --studies 4 --kills 1 --until expert    # minutes

A killed study is run again at once; what it had finished must not be made anew.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from operations.privacy import harden_environment  # noqa: E402
from serving.server import free_port  # noqa: E402
from serving.supervised import end, start  # noqa: E402
from support.tiny_study import command, tiny_study  # noqa: E402

_MIB = 1 << 20
_LARGEST_GROWTH = 1.25
_FEWEST_FOR_A_VERDICT = 6
_WAIT_SECONDS = 600.0


@contextmanager
def servers(folder: Path) -> Iterator[tuple[dict[str, str], list[psutil.Process]]]:
    """Prefect and MLflow on loopback for all studies; yields what studies need to find them, and their processes."""
    environment = {**os.environ, "PREFECT_HOME": str(folder / "prefect"), "PREFECT_SERVER_LOGGING_LEVEL": "ERROR"}
    harden_environment(environment)
    prefect, mlflow = free_port(0), free_port(0)
    (folder / "mlflow").mkdir(parents=True, exist_ok=True)
    lines = {
        "prefect": [sys.executable, "-m", "flows.prefect_sqlite", "server", "start", "--host", "127.0.0.1", "--port",
                    str(prefect)],
        "mlflow": [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(mlflow), "--workers",
                   "1", "--backend-store-uri", f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}",
                   "--artifacts-destination", str(folder / "mlflow" / "files")]}
    children = [start(line, folder / f"{name}.log", environment) for name, line in lines.items()]
    try:
        for address in (f"http://127.0.0.1:{prefect}/api/health", f"http://127.0.0.1:{mlflow}/health"):
            _wait(address)
        found = [one for child in children for one in psutil.Process(child.pid).children(recursive=True)]
        yield {**environment, "PREFECT_API_URL": f"http://127.0.0.1:{prefect}/api",
               "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{mlflow}"}, found
    finally:
        for child in children:
            end(child)


def _wait(address: str) -> None:
    limit = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < limit:
        try:
            if httpx.get(address, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    raise TimeoutError(f"{address} does not answer within {_WAIT_SECONDS:.0f} s")


def one_study(config: Path, seed: int, until: str, kill_after: float | None, environment: Mapping[str, str]
              ) -> dict[str, Any]:
    """Runs one study to its end, killed once on the way if `kill_after` [s] says so."""
    line = command("run", "--config", str(config), "--set", f"study.seed={seed}", "--until", until, "--json")
    began, killed, before = time.monotonic(), False, {}
    log = config.parent / "studies.log"
    if kill_after is not None:
        with log.open("ab") as stream:
            child = subprocess.Popen(line, env=dict(environment), stdout=stream, stderr=stream)
        try:
            child.wait(kill_after)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            killed = True
        before = finished(config)
    with log.open("ab") as stream:
        code = subprocess.run(line, env=dict(environment), stdout=stream, stderr=stream, check=False).returncode
    after = finished(config)
    return {"seed": seed, "exit": code, "killed": killed, "seconds": round(time.monotonic() - began, 1),
            "finished": len(after), "remade": [name for name, moment in before.items() if after.get(name) != moment]}


def finished(config: Path) -> dict[str, float]:
    """Artifacts of the workspace and when each was finished."""
    return {path.parent.name: path.stat().st_mtime
            for path in config.parent.glob("workspace/artifacts/*/*/manifest.json")}


def measure(config: Path, watched: Sequence[psutil.Process]) -> dict[str, Any]:
    """What must not grow: drafts, partial files, processes, the servers' memory and open files; and the disk in use."""
    files = [path for path in config.parent.rglob("*") if path.is_file()]
    folder = config.parent
    left = [" ".join(process.info["cmdline"])[:120] for process in psutil.process_iter(["pid", "cmdline"])
            if process.info["pid"] not in {os.getpid(), *(one.pid for one in watched)}
            and f"{folder / 'workspace'}" in " ".join(process.info["cmdline"] or [])]
    return {"disk_mib": round(sum(path.stat().st_size for path in files) / _MIB, 1), "files": len(files),
            "drafts": len(list(folder.glob("workspace/drafts/*"))),
            "partial": sum(".partial" in one.name for one in files),
            "processes_left": left, "servers_mib": round(sum(one.memory_info().rss for one in watched) / _MIB, 1),
            "servers_open_files": sum(one.num_fds() for one in watched)}


def growth(values: Sequence[float]) -> float:
    """Median of the last third over the median of the third after the first value, which holds the start."""
    third = max(1, (len(values) - 1) // 3)
    return median(values[-third:]) / max(median(values[1:1 + third]), 1e-9)


def verdict(rows: Sequence[Mapping[str, Any]], kills: int) -> dict[str, Any]:
    """What was found, and `ok`: nothing lost, nothing left, nothing that grows."""
    added = [later["disk_mib"] - earlier["disk_mib"] for earlier, later in zip(rows, rows[1:], strict=False)]
    grown = {"servers_memory": growth([row["servers_mib"] for row in rows]),
             "servers_open_files": growth([row["servers_open_files"] for row in rows]),
             "disk_a_study": growth(added)} if len(rows) >= _FEWEST_FOR_A_VERDICT else {}
    faults = [f"seed {row['seed']}: exit {row['exit']}" for row in rows if row["exit"]]
    faults += [f"seed {row['seed']}: made again: {', '.join(row['remade'])}" for row in rows if row["remade"]]
    faults += [f"seed {row['seed']}: {name} left" for row in rows for name in ("drafts", "partial", "processes_left")
               if row[name]]
    faults += [f"{name} grew by {factor:.2f}" for name, factor in grown.items() if factor > _LARGEST_GROWTH]
    done = sum(row["killed"] for row in rows)
    faults += [f"{done} of {kills} kills hit a running study"] if done < kills else []
    return {"ok": not faults, "studies": len(rows), "killed": done, "faults": faults,
            "growth": {name: round(factor, 3) for name, factor in grown.items()},
            "disk_mib": [row["disk_mib"] for row in rows], "servers_mib": [row["servers_mib"] for row in rows],
            "servers_open_files": [row["servers_open_files"] for row in rows],
            "seconds": [row["seconds"] for row in rows]}


def main() -> int:
    """The command line; exit code 1 if something was lost, left or grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--studies", type=int, default=20)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=7, help="of which studies are killed and when")
    parser.add_argument("--until", default="report", help="as in `eag-rl run`")
    parser.add_argument("--longest", type=float, default=100.0, help="latest moment of a kill [s]")
    chosen = parser.parse_args()
    drawn = random.Random(chosen.seed)
    when = {index: drawn.uniform(0.3, 1.0) * chosen.longest
            for index in drawn.sample(range(chosen.studies), chosen.kills)}
    chosen.folder.mkdir(parents=True, exist_ok=True)
    config, log = chosen.folder / "tiny.yaml", chosen.folder / "soak.jsonl"
    if not config.is_file():
        tiny_study(chosen.folder)
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    with servers(chosen.folder) as (environment, watched):
        for index in range(len(rows), chosen.studies):
            row = one_study(config, 1000 + index, chosen.until, when.get(index), environment)
            row |= measure(config, watched)
            rows.append(row)
            with log.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
    result = verdict(rows, chosen.kills)
    print(json.dumps(result, indent=1))
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
