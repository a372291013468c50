"""The model server as a child process: a model folder goes in, an address with a key that answers /health comes out.

`VllmServer` starts, watches and always ends vLLM on loopback; `ExternalServer` stands for one that somebody else runs.
No signal handlers are installed: the child lives in a session of its own under `launcher`, which ends it when this
process is gone, be it by an exception, SIGTERM, Ctrl-C or kill -9.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import random
import secrets
import socket
import ssl
import subprocess
import threading
import time
from functools import cache
from pathlib import Path
from typing import Self

import httpx

from configs.schema import Serving
from contracts.errors import ModelError, ServerError
from serving import supervised
from serving.client import Client
from serving.command import BASE_MODEL, Launch, arguments, environment, installed_device
from serving.guard import checked_address

HEALTH_SECONDS = 5.0
GRACE_SECONDS = 5.0
POLL_SECONDS = 0.2
PORT_SECONDS = 20.0
PORTS = range(20_000, 32_768)
TAIL_LINES = 30
MOST_RESTARTS = 5
KEY_VARIABLE = "EAG_RL_API_KEY"


class VllmServer:
    """One vLLM server on 127.0.0.1, started on demand and ended with us.

    Attributes:
        base_url, api_key: where and with which key it answers; both survive a restart.
        model_name: the base model's name in requests.
        epoch: how often it was started; adapters of an earlier epoch are gone.
        context: longest prompt and answer together [tokens].

    Args:
        model: folder of the model (or its Hugging Face name).
        section: port, slots, limits.
        workdir: folder for `vllm.log`.
        dtype: precision of the weights, "bfloat16" or "float32".
        lora_rank: largest rank of the adapters to come.
        seed: of the server's sampling where a request names none.
    """

    model_name = BASE_MODEL

    def __init__(self, model: Path | str, section: Serving, workdir: Path, dtype: str, lora_rank: int,
                 seed: int) -> None:
        self.section, self.workdir, self.context = section, workdir, section.context
        self.log_path = workdir / "vllm.log"
        self.api_key = secrets.token_urlsafe(32)
        self.epoch = 0
        self._model, self._dtype, self._lora_rank, self._seed = str(model), dtype, lora_rank, seed
        self._port = section.port
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.RLock()

    @property
    def base_url(self) -> str:
        """Address without `/v1`.

        Raises:
            ServerError: the server was never started.
        """
        if not self._port:
            raise ServerError("the model server has no port yet", "it is started before it is used", "call start()")
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """Process id of the supervisor (leader of the server's process group) while it lives."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts the server and waits until it is healthy; does nothing when it already runs.

        Raises:
            ModelError: the model folder holds no model.
            ServerError: the port is taken, vLLM is missing, it exits or is not healthy within `start_seconds`
                (with the tail of its log).
        """
        with self._lock:
            if self.pid is not None:
                return
            _check_model(self._model)
            command, variables = self._command()
            self.workdir.mkdir(parents=True, exist_ok=True)
            self._process = supervised.start(command, self.log_path, variables, folder=self.workdir,
                                             grace=GRACE_SECONDS)
            atexit.register(self.stop)
            try:
                self._wait_until_healthy()
            except BaseException:
                self.stop()
                raise
            self.epoch += 1

    def stop(self) -> None:
        """Ends the whole process group: SIGTERM, then SIGKILL. Safe to call at any time, any number of times."""
        with self._lock:
            process, self._process = self._process, None
            atexit.unregister(self.stop)
            if process is not None:
                supervised.end(process, GRACE_SECONDS)

    def healthy(self) -> bool:
        """Whether the server answers /health right now."""
        return self.pid is not None and _answers(self.base_url)

    def ensure(self) -> None:
        """Restarts the server (same address, same key, no adapters) if it died or no longer answers /health.

        Raises:
            ServerError: it cannot be started, or died more than MOST_RESTARTS times.
        """
        with self._lock:
            if self.healthy():
                return
            if self.epoch > MOST_RESTARTS:
                raise ServerError(f"the model server died {self.epoch} times; its log ends with:\n{self.log_tail()}",
                                  f"at most {MOST_RESTARTS} restarts", "lower serving.slots or serving.kv_cache_gib if "
                                  "memory ran out, then rerun: finished work is kept")
            self.stop()
            self.start()

    def log_tail(self, lines: int = TAIL_LINES) -> str:
        """The last lines of the server's log (it never holds prompts)."""
        try:
            text = self.log_path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return "(no log)"
        return "\n".join(text.splitlines()[-lines:])

    def _command(self) -> tuple[list[str], dict[str, str]]:
        """Command and environment; settles the port."""
        device = installed_device()
        self._port = free_port(self._port, patience=PORT_SECONDS if self.epoch else 0.0)
        launch = Launch(self._model, self._dtype, self._lora_rank, self._seed, self._port, self.api_key)
        return arguments(launch, self.section, device), environment(launch, device)

    def _wait_until_healthy(self) -> None:
        deadline = time.monotonic() + self.section.start_seconds
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                code = None if self._process is None else self._process.returncode
                raise ServerError(f"the model server exited with code {code}; its log ends with:\n{self.log_tail()}",
                                  "it becomes healthy", f"read {self.log_path}; the last error above names the cause")
            if _answers(self.base_url):
                return
            time.sleep(POLL_SECONDS)
        raise ServerError(
            f"the model server is not healthy after {self.section.start_seconds:g} s; its log ends with:\n"
            f"{self.log_tail()}", "it becomes healthy within serving.start_seconds",
            "raise serving.start_seconds (the first start on a machine is the slowest), or read the log")


class ExternalServer:
    """A vLLM server that somebody else runs at `section.url`; same attributes as `VllmServer`.

    It must run with `--enable-lora` and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and see adapter folders by the same path.
    The key is read from the environment variable EAG_RL_API_KEY.

    Raises:
        ConfigError: the address is not loopback and not allowed by name.
    """

    def __init__(self, section: Serving) -> None:
        self.section, self.context = section, section.context
        self.base_url = checked_address(section.url or "", section.allowed_hosts)
        self.api_key = os.environ.get(KEY_VARIABLE, "")
        self.model_name = BASE_MODEL
        self.epoch = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Asks the server for its model's name and context.

        Raises:
            ServerError: it does not answer, refuses the key, or its context is shorter than `section.context`.
        """
        card = self._first_model()
        self.model_name = card["id"]
        served = int(card.get("max_model_len") or self.section.context)
        if served < self.section.context:
            raise ServerError(f"the server at {self.base_url} has a context of {served} tokens",
                              f"at least serving.context = {self.section.context}", "lower serving.context")
        self.epoch = self.epoch or 1

    def _first_model(self) -> dict[str, str]:
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        try:
            with httpx.Client(trust_env=False, timeout=HEALTH_SECONDS, headers=headers,
                              verify=_certificates()) as http:
                answer = http.get(f"{self.base_url}/v1/models")
                answer.raise_for_status()
                cards: list[dict[str, str]] = [card for card in answer.json()["data"] if not card.get("parent")]
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise ServerError(f"{self.base_url}/v1/models: {type(error).__name__}", "a vLLM server answers there",
                              f"start it, correct serving.url, or set {KEY_VARIABLE}") from error
        if not cards:
            raise ServerError(f"{self.base_url} serves no model", "it serves one base model", "start it with a model")
        return cards[0]

    def stop(self) -> None:
        """Nothing: the server belongs to somebody else."""

    def healthy(self) -> bool:
        """Whether the server answers /health right now."""
        return _answers(self.base_url)

    def ensure(self) -> None:
        """Checks that the server answers.

        Raises:
            ServerError: it does not.
        """
        self.start()

    def log_tail(self) -> str:
        """External servers keep their logs to themselves."""
        return "(the server's log is elsewhere)"


Server = VllmServer | ExternalServer


def open_server(section: Serving, *, model: Path | str, workdir: Path, dtype: str, lora_rank: int,
                seed: int) -> Server:
    """The server that the section names: the external one at `section.url`, else a vLLM of our own (not started yet).

    Raises:
        ConfigError: the address is not loopback and not allowed by name.
    """
    if section.url is not None:
        return ExternalServer(section)
    return VllmServer(model, section, workdir, dtype, lora_rank, seed)


def connect(server: Server) -> Client:
    """A client of a started server, which is restarted when it dies while it is asked."""

    async def recover() -> None:
        await asyncio.to_thread(server.ensure)

    return Client(server.base_url, server.api_key, server.section, server.context, recover=recover)


def free_port(port: int, patience: float = 0.0) -> int:
    """`port` if it is free on 127.0.0.1, or any free one for 0.

    Args:
        patience: how long a port in use may take to become free [s]: after a restart the dying server may still hold
            it.

    Raises:
        ServerError: the port is in use.
    """
    if port == 0:
        return _any_free_port()
    deadline = time.monotonic() + patience
    while (reason := _refused(port)) is not None:
        if time.monotonic() >= deadline:
            raise ServerError(f"port {port} on 127.0.0.1 is in use ({reason})", "the server's port is free",
                              "set serving.port=0 for a free one, or end the program that holds it")
        time.sleep(POLL_SECONDS)
    return port


def _any_free_port() -> int:
    """A free port below those that the system gives to outgoing connections, so that none of them takes it later."""
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        if _refused(port) is None:
            return port
    raise ServerError(f"all ports from {PORTS.start} to {PORTS.stop - 1} on 127.0.0.1 are in use", "one is free",
                      "name one with serving.port")


def _refused(port: int) -> str | None:
    """Why 127.0.0.1:`port` cannot be bound; None: it can."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return str(error.strerror)
    return None


@cache
def _certificates() -> ssl.SSLContext:
    """What httpx trusts by itself; reading it takes 40 ms, and health is asked for often."""
    return httpx.create_ssl_context(trust_env=False)


def _answers(base_url: str) -> bool:
    try:
        with httpx.Client(trust_env=False, timeout=HEALTH_SECONDS, verify=_certificates()) as http:
            return http.get(f"{base_url}/health").status_code == 200
    except httpx.TransportError:
        return False


def _check_model(model: str) -> None:
    """A path must hold a model; a name is looked up by vLLM."""
    folder = Path(model)
    looks_like_path = folder.is_absolute() or model.startswith((".", "~")) or folder.exists()
    if looks_like_path and not (folder / "config.json").is_file():
        raise ModelError(f"{model} holds no config.json", "a model folder with config.json and safetensors weights",
                         "correct policy.model, or let the converted model be made again")
