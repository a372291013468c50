"""The doctor sees what is wrong with a machine, names the remedy, and survives what is missing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import zlib
from pathlib import Path

import psutil
import pytest

from configs.load import load
from operations import doctor, hardware
from operations.checks import Check

ROOT = Path(__file__).parents[2]


WHOLE_PACKAGES = doctor._packages


@pytest.fixture(autouse=True)
def without_the_slow_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparing 270 packages takes seconds; one test asks it, and test_pins.py tests the comparison."""
    monkeypatch.setattr(doctor, "_packages", lambda: iter([Check("packages", "ok", "not asked here")]))


def found(name: str, *overrides: str, config: str = "demo") -> Check:
    return next(result for result in doctor.examine(load(config, overrides)) if result.name == name)


def test_every_trouble_has_a_remedy_and_health_has_none(tmp_path: Path) -> None:
    results = doctor.examine(load("demo", [f"paths.workspace={tmp_path}"]))
    assert {"python", "packages", "cores", "memory", "disk", "workspace", "model", "data", "clock"} <= {
        result.name for result in results}
    assert all(bool(result.remedy) == (result.status != "ok") for result in results)
    assert list(tmp_path.iterdir()) == []


def test_this_environment_is_healthy_where_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_packages", WHOLE_PACKAGES)
    results = doctor.examine(load("demo", [f"paths.workspace={tmp_path}"]))
    matters = {"python", "packages", "workspace", "loopback", "model", "data"}  # not memory: others use it too
    assert [result for result in results if result.name in matters and result.status != "ok"] == []


def test_a_port_in_use_is_a_failure() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        setting = f"serving.port={busy.getsockname()[1]}"
        assert found("server port", setting).status == "fail"
    assert found("server port", setting).status == "ok"


def test_a_workspace_that_cannot_be_written_is_a_failure() -> None:
    result = found("workspace", "paths.workspace=/proc/eag-rl")
    assert result.status == "fail" and "paths.workspace" in result.remedy


def test_real_data_that_is_needed_and_not_named_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EAG_RL_DATA", raising=False)
    assert found("data", config="tjh_small").status == "fail"
    assert found("data").status == "ok"


def test_a_data_folder_without_the_source_is_a_failure(tmp_path: Path) -> None:
    assert found("data", f"paths.data={tmp_path}", config="tjh_small").status == "fail"
    assert found("data", f"paths.data={tmp_path / 'none'}", config="tjh_small").status == "fail"


@pytest.mark.parametrize(("settings", "remedy"), [
    (("cohort.source=mimic_iv",), "eag-rl data fetch mimic-demo"), (("cohort.source=meds",), "data/*.parquet"),
    (("cohort.source=tjh",), "eag-rl data fetch tjh")])
def test_each_source_that_is_not_there_has_a_remedy_of_its_own(settings: tuple[str, ...], remedy: str, tmp_path: Path,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EAG_RL_DATA", raising=False)
    for named in ((), (f"paths.data={tmp_path}",)):
        result = found("data", *settings, *named)
        assert result.status == "fail" and remedy in result.remedy


def test_a_source_that_its_own_reader_finds_is_there(tmp_path: Path) -> None:
    for source, name in (("mimic_iv", "mimic-iv"), ("meds", "meds")):
        config = load("demo", [f"cohort.source={source}", f"paths.data={tmp_path}"])
        results = doctor.examine(config, lambda *_, name=name: [Check(name, "ok", "whole")])
        assert [result.status for result in results if result.name == "data"] == ["ok"]


@pytest.mark.real_data
def test_the_demo_of_mimic_is_fit_for_its_configuration() -> None:
    if "EAG_RL_DATA" not in os.environ:
        pytest.skip("EAG_RL_DATA names no folder of real data")
    results = doctor.examine(load("mimic_demo"))
    assert {result.status for result in results if result.name.startswith("data")} <= {"ok", "warn"}


@pytest.mark.real_data
def test_the_real_data_folder_is_fit_for_tjh() -> None:
    if "EAG_RL_DATA" not in os.environ:
        pytest.skip("EAG_RL_DATA names no folder of real data")
    assert found("data", config="tjh_small").status == "ok"


def test_a_model_folder_without_weights_is_a_failure(tmp_path: Path) -> None:
    assert found("model", f"policy.model={tmp_path}").status == "fail"
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert found("model", f"policy.model={tmp_path}").status == "ok"


def test_a_model_of_the_hub_that_is_not_cached_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert found("model", "policy.model=some/model").status == "warn"
    (tmp_path / "models--some--model").mkdir()
    assert found("model", "policy.model=some/model").status == "ok"


@pytest.mark.parametrize(("flags", "status"), [("fpu avx2 avx512f", "ok"), ("fpu avx2", "warn"), ("fpu sse", "fail")])
def test_the_instructions_of_the_processor_decide(tmp_path: Path, flags: str, status: str,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware.platform, "machine", lambda: "x86_64")
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    results = {result.name: result.status for result in hardware.processor(tmp_path / "cpuinfo")}
    assert results["cpu features"] == status


@pytest.mark.parametrize(("free_gib", "limit_gib", "status"), [(32, None, "ok"), (32, 7, "warn"), (2, None, "fail"),
                                                               (32, 1, "fail")])
def test_the_smaller_of_memory_and_container_limit_counts(tmp_path: Path, free_gib: int, limit_gib: int | None,
                                                          status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware.shutil, "which", lambda _: None)
    (tmp_path / "meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable: {free_gib * 1024 * 1024} kB\n")
    if limit_gib is not None:
        (tmp_path / "memory.max").write_text(f"{limit_gib << 30}\n")
        (tmp_path / "memory.current").write_text("0\n")
    (result,) = hardware.memory(load("demo"), tmp_path / "meminfo", tmp_path)
    assert result.status == status


def test_a_missing_system_library_is_a_failure_with_the_package_to_install() -> None:
    (here,) = hardware.libraries(("libc.so.6",))
    (missing,) = hardware.libraries(("libc.so.6", "libnothing.so.0"))
    assert here.status == "ok" and missing.status == "fail"
    assert missing.found == "missing: libnothing.so.0" and "libnuma1" in missing.remedy


def test_a_gpu_beside_a_cpu_torch_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'Card, 80000 MiB, 550'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (result,) = hardware.gpu(load("demo"))
    assert "Card" in result.found
    assert result.status == ("warn" if doctor.installed_device() == "cpu" else "ok")
    tool.write_text("#!/bin/sh\necho 'driver mismatch' >&2; exit 9\n")
    (result,) = hardware.gpu(load("demo"))
    assert result.status == "warn" and "driver mismatch" in result.found


def test_a_proxy_that_would_swallow_loopback_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy", "http_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://10.0.0.1:3128")
    assert found("proxy").status == "warn"
    monkeypatch.setenv("NO_PROXY", "localhost, 127.0.0.1")
    assert "proxy" not in {result.name for result in doctor.examine(load("demo"))}


@pytest.mark.parametrize("error", [subprocess.TimeoutExpired("nvidia-smi", 10.0), zlib.error("invalid block type")])
def test_a_question_that_cannot_be_answered_stops_no_other(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def clock() -> None:
        raise error

    monkeypatch.setattr(doctor, "_clock", clock)
    results = {result.name: result for result in doctor.examine(load("demo"))}
    assert results["clock"].status == "warn" and type(error).__name__ in results["clock"].found and "data" in results


def test_a_missing_package_is_a_check_and_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("psutil", "fastexcel"):
        monkeypatch.setitem(sys.modules, name, None)
    results = {result.name: result for result in doctor.examine(load("demo"))}
    assert results["leftovers"].status == "fail" and "psutil" in results["leftovers"].found
    assert {"python", "memory", "clock"} <= set(results)


def test_a_server_whose_parent_was_killed_is_a_leftover() -> None:
    code = ("import subprocess, sys\n"
            "command = [sys.executable, '-c', 'import time; time.sleep(60)', 'vllm.entrypoints.openai.api_server']\n"
            "print(subprocess.Popen(command, stdout=subprocess.DEVNULL,"
            "      stderr=subprocess.DEVNULL, start_new_session=True).pid)")
    orphan = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    try:
        if psutil.Process(orphan).ppid() != 1:
            pytest.skip("orphans are adopted by another process than 1 here")
        result = found("leftovers")
        assert result.status == "warn" and str(orphan) in result.found.split()
    finally:
        os.kill(orphan, signal.SIGKILL)
    assert str(orphan) not in found("leftovers").found.split()
