"""Processor, GPU and memory, as the doctor sees them (Linux: elsewhere the doctor says that it cannot tell)."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from configs.schema import Config
from operations.checks import Check, Status

_GIB = 1 << 30
# A careful allowance for the default model: the server without its KV cache, and a training job beside it.
_SERVER_GIB, _TRAINING_GIB = 3.0, 3.0
_SMALL_MODEL = "smollm2-135m"


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> Iterator[Check]:
    """Cores, and the instructions that vLLM's CPU build needs (AVX2 at least, AVX-512 for speed)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Check("cores", "ok" if cores >= 2 else "warn", f"{cores} usable",
                "" if cores >= 2 else "training and serving share one core; expect twice the time")
    machine = platform.machine()
    if machine not in ("x86_64", "AMD64"):
        fine = machine in ("aarch64", "arm64")
        yield Check("cpu features", "ok" if fine else "fail", machine,
                    "" if fine else "use an x86-64 or aarch64 machine, or set policy.grpo.engine=transformers")
        return
    flags = _flags(cpuinfo)
    if "avx512f" in flags:
        yield Check("cpu features", "ok", "AVX-512" + (" with bfloat16" if "avx512_bf16" in flags else ""))
    elif "avx2" in flags:
        yield Check("cpu features", "warn", "AVX2 without AVX-512", "all runs, but vLLM is slower than with AVX-512")
    else:
        yield Check("cpu features", "fail", "neither AVX-512 nor AVX2",
                    "vLLM's CPU build does not start here: use another machine, or a server elsewhere (serving.url)")


def libraries(names: tuple[str, ...] = ("libnuma.so.1", "libstdc++.so.6")) -> Iterator[Check]:
    """System libraries that vLLM's CPU build links to and no package of Python brings."""
    missing = []
    for name in names:
        try:
            ctypes.CDLL(name)
        except OSError:
            missing.append(name)
    yield (Check("libraries", "fail", f"missing: {', '.join(missing)}",
                 "install them (Debian, Ubuntu: apt-get install libnuma1 libstdc++6; Fedora: dnf install numactl-libs)")
           if missing else Check("libraries", "ok", ", ".join(names)))


def gpu(config: Config) -> Iterator[Check]:
    """GPUs by nvidia-smi, and whether the installed torch can use them."""
    from importlib.metadata import version

    if shutil.which("nvidia-smi") is None:
        big = config.policy.model != _SMALL_MODEL and not Path(config.policy.model).is_dir()
        yield Check("gpu", "warn" if big else "ok", "none; the CPU is used",
                    f"{config.policy.model} is likely too large for a CPU: use a GPU machine, or --config tjh_small"
                    if big else "")
        return
    answer = subprocess.run(["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"],
                            capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False)
    if answer.returncode:
        yield Check("gpu", "warn", f"nvidia-smi fails: {(answer.stderr or answer.stdout).strip()[:200]}",
                    "mend the driver, or set EAG_RL_DEVICE=cpu for ./scripts/setup")
        return
    found = "; ".join(answer.stdout.strip().splitlines())
    if version("torch").endswith("+cpu"):
        yield Check("gpu", "warn", f"{found}; but torch is the CPU build", "EAG_RL_DEVICE=gpu ./scripts/setup")
    else:
        yield Check("gpu", "ok", found)


def memory(config: Config, meminfo: Path = Path("/proc/meminfo"),
           cgroup: Path = Path("/sys/fs/cgroup")) -> Iterator[Check]:
    """Memory that is free now, within the container's limit, against what server and training take together."""
    free = _available(meminfo)
    limit = _cgroup_room(cgroup)
    free = min(free, limit) if limit is not None else free
    need = _SERVER_GIB + _TRAINING_GIB + (config.serving.kv_cache_gib if shutil.which("nvidia-smi") is None else 0.0)
    status: Status = "ok" if free >= need * _GIB else "warn" if free >= 0.6 * need * _GIB else "fail"
    yield Check("memory", status, f"{free / _GIB:.1f} GiB free, about {need:.0f} GiB are used at the peak",
                "" if status == "ok" else "close other programs, or set serving.kv_cache_gib and serving.context lower")


def _flags(cpuinfo: Path) -> set[str]:
    for line in cpuinfo.read_text(encoding="utf-8").splitlines():
        if line.startswith("flags"):
            return set(line.partition(":")[2].split())
    return set()


def _available(meminfo: Path) -> int:
    for line in meminfo.read_text(encoding="utf-8").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"{meminfo} has no line MemAvailable")


def _cgroup_room(cgroup: Path) -> int | None:
    """What the container may still take, None without a limit (cgroup v2)."""
    try:
        limit = (cgroup / "memory.max").read_text(encoding="ascii").strip()
        used = int((cgroup / "memory.current").read_text(encoding="ascii"))
    except FileNotFoundError:
        return None
    return None if limit == "max" else max(int(limit) - used, 0)
