"""What the images and the compose file promise: loopback, secrets from files, no root, health checks, pinned bases."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from configs.schema import Policy, Serving
from operations.pools import IN_IMAGE
from operations.privacy import DEFAULTS, ENFORCED
from serving.command import Launch, arguments

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
DOCKERFILES = sorted(path for path in DOCKER.glob("Dockerfile*") if path.suffix != ".dockerignore")
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONCE = {name for name, service in SERVICES.items() if service["restart"] == "no"}
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|KEY|AUTH")


def environment(service: dict[str, Any]) -> dict[str, str]:
    return service.get("environment", {})


def mounts(service: dict[str, Any]) -> list[str]:
    """A service's volumes in the short form."""
    return [volume if isinstance(volume, str) else
            f"{volume['source']}:{volume['target']}{':ro' * volume.get('read_only', False)}"
            for volume in service["volumes"]]


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_compose_files_keep_the_compose_specification(name: str) -> None:
    schema = json.loads((ROOT / "tests" / "support" / "compose_spec.json").read_text())
    values = yaml.safe_load((DOCKER / name).read_text(encoding="utf-8"))
    jsonschema.Draft201909Validator(schema).validate(values)
    values["services"]["worker"]["portz"] = ["1:1"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft201909Validator(schema).validate(values)


def flags(words: list[str]) -> dict[str, str]:
    """Flags with their values, those that a user has not set at their defaults."""
    line = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", " ".join(words))
    return {name: value.strip() for name, value in re.findall(r"(--[\w-]+)((?: (?!--)\S+)*)", line)}


@pytest.mark.parametrize(("name", "device", "dtype"), [("compose.yaml", "cpu", "float32"),
                                                       ("compose.gpu.yaml", "cuda", "bfloat16")])
def test_the_vllm_of_the_compose_files_is_told_what_a_study_tells_its_own(name: str, device: Any, dtype: str) -> None:
    served = yaml.safe_load((DOCKER / name).read_text(encoding="utf-8"))["services"]["vllm"]["command"]
    launch = Launch("/models/model", dtype, Policy(model="m").lora.rank, seed=0, port=8000, api_key="")
    own = flags(arguments(launch, Serving(), device))
    # The network is the container's; a request of a study names its seed.
    assert flags(served) == {**{flag: value for flag, value in own.items() if flag != "--seed"}, "--host": "0.0.0.0"}


def test_the_stack_has_its_parts() -> None:
    assert set(SERVICES) == {"prefect-db", "prefect", "mlflow-db", "mlflow", "store", "bucket", "worker", "deploy",
                             "vllm", "serve"}
    assert {"bucket", "deploy"} == ONCE
    gpu = yaml.safe_load((DOCKER / "compose.gpu.yaml").read_text(encoding="utf-8"))["services"]
    assert set(gpu) <= set(SERVICES) and all(service["image"].endswith(":gpu") for service in gpu.values())


def test_what_is_published_is_published_on_loopback_only() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"prefect", "mlflow", "serve"}
    assert [port for ports in published.values() for port in ports if not port.startswith("127.0.0.1:")] == []
    assert not any(service.get("network_mode") == "host" for service in SERVICES.values())


def test_what_holds_data_or_sees_patients_has_no_way_out() -> None:
    assert COMPOSE["networks"]["inside"]["internal"] is True
    alone = {name for name, service in SERVICES.items() if service["networks"] == ["inside"]}
    assert alone == set(SERVICES) - {"prefect", "mlflow", "serve"}
    assert all(volume.endswith((":/data:ro", ":/models:ro")) or volume == "workspace:/app/.eag-rl"
               for name in ("worker", "vllm", "serve") for volume in mounts(SERVICES[name]))


def test_a_folder_that_a_user_names_is_never_read_as_the_name_of_a_volume() -> None:
    for name, service in SERVICES.items():
        assert not any("$" in volume for volume in service.get("volumes", ()) if isinstance(volume, str)), name
    folders = re.findall(r"export EAG_RL_\w+=(\S+?)`", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert folders and all(folder.strip('"').startswith(("$PWD/", "/", "<")) for folder in folders)


def test_runs_of_the_docker_pool_find_what_the_worker_of_the_compose_file_finds() -> None:
    pools = yaml.safe_load((ROOT / "operations" / "pools.yaml").read_text(encoding="utf-8"))
    docker, kubernetes, worker = pools["docker"]["defaults"], pools["kubernetes"], SERVICES["worker"]
    named = {name: (entry or {}).get("name", name) for name, entry in COMPOSE["volumes"].items()}
    parts = [volume.partition(":") for volume in mounts(worker)]
    assert docker["volumes"] == [f"{named.get(name, name)}:{place}" for name, _, place in parts]
    own = {name: value for name, value in environment(worker).items()
           if not name.endswith("_FILE") and not name.startswith("PREFECT_WORKER_")}
    assert docker["env"] == own and docker["image"] == worker["image"]
    assert docker["networks"] == [COMPOSE["networks"][name]["name"] for name in worker["networks"]]
    places = {mount["name"]: mount["mountPath"] for mount in kubernetes["container"]["volumeMounts"]}
    env = kubernetes["defaults"]["env"]
    assert places == {"workspace": env["EAG_RL_WORKSPACE"], "data": env["EAG_RL_DATA"]}
    assert env == {name: own[name] for name in env} and kubernetes["defaults"]["image"] == docker["image"]
    assert own["EAG_RL_WORKSPACE"] == f"{IN_IMAGE}/.eag-rl"
    assert f'VOLUME ["{own["EAG_RL_WORKSPACE"]}"]' in (DOCKER / "Dockerfile").read_text(encoding="utf-8")


def test_secrets_come_from_files_and_each_service_has_only_its_own() -> None:
    for name, service in SERVICES.items():
        mounted = set(service.get("secrets", ()))
        read = set(re.findall(r"/run/secrets/(\w+)", str([environment(service), service.get("command")])))
        assert mounted == read <= set(COMPOSE["secrets"]), name
        bare = [key for key in environment(service) if SECRET.search(key) and not key.endswith("_FILE")]
        assert bare == [], name
    words = " ".join(str(service.get("command", "")) for service in SERVICES.values())
    assert not re.search(r"://\w+:[^@/\s]+@|--api-key|password=", words)


def test_a_script_draws_every_secret_and_keeps_what_stands(tmp_path: Path) -> None:
    def draw() -> dict[str, str]:
        subprocess.run([ROOT / "scripts" / "docker-secrets", tmp_path / "s"], check=True, capture_output=True)
        return {path.name: path.read_text() for path in (tmp_path / "s").iterdir()}

    first = draw()
    assert set(first) == set(COMPOSE["secrets"]) == {Path(entry["file"]).name for entry in COMPOSE["secrets"].values()}
    assert re.fullmatch(r"eag-rl:[0-9a-f]{48}", first["prefect_auth"]) and len(set(first.values())) == len(first)
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700
    (tmp_path / "s" / "vllm_key").unlink()
    again = draw()
    assert again.pop("vllm_key") != first.pop("vllm_key") and again == first
    ignored = subprocess.run(["git", "check-ignore", "docker/secrets/vllm_key", "docker/.env"], cwd=ROOT, check=False,
                             capture_output=True, text=True).stdout.split()
    assert len(ignored) == 2


def test_services_are_not_root_cannot_become_it_and_tell_how_they_are() -> None:
    for name, service in SERVICES.items():
        assert service["user"] in ("10001:10001", "postgres"), name
        assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"], name
        assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & set(service), name
        assert "docker.sock" not in str(service.get("volumes"))
        check = service["healthcheck"]
        assert check == {"disable": True} if name in ONCE else {"test", "interval", "timeout", "retries"} <= set(check)


def test_who_waits_waits_for_health_and_not_for_a_start() -> None:
    for service in SERVICES.values():
        for before, how in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if before in ONCE else "service_healthy"
            assert how == {"condition": wanted}


def test_images_are_pinned_or_built_here() -> None:
    for name, service in SERVICES.items():
        if "build" in service:
            assert (DOCKER / Path(service["build"]["dockerfile"]).name).is_file(), name
        else:
            assert re.search(r":\d+\.\d+", service["image"]), name
        assert "latest" not in service["image"]


def test_prefect_asks_for_a_password_and_a_token_and_mlflow_knows_its_names() -> None:
    prefect, mlflow = environment(SERVICES["prefect"]), environment(SERVICES["mlflow"])
    assert prefect["PREFECT_SERVER_API_AUTH_STRING_FILE"]
    assert prefect["PREFECT_SERVER_CSRF_PROTECTION_ENABLED"] == "true"
    assert "*" not in mlflow["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert "serving.door.RequireKey" in SERVICES["vllm"]["command"]


def test_the_image_of_mlflow_is_as_hardened_as_every_other_mlflow() -> None:
    text = (DOCKER / "Dockerfile.mlflow").read_text()
    for name, value in {**ENFORCED, **DEFAULTS}.items():
        if name.startswith("MLFLOW_"):
            assert re.search(rf"^(?:ENV|   ) *.*\b{name}=\"?{re.escape(value)}\"?(?: \\)?$", text, re.MULTILINE), name


def test_the_pins_of_the_image_of_mlflow_have_hashes_and_are_those_of_everywhere() -> None:
    def pins(name: str) -> dict[str, str]:
        return dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE))

    mlflow, cpu = pins("mlflow.txt"), pins("cpu.txt")
    assert {"mlflow", "psycopg2-binary", "boto3"} <= set(mlflow)
    assert {name: version for name, version in mlflow.items() if cpu.get(name, version) != version} == {}
    assert (ROOT / "requirements" / "mlflow.txt").read_text().count("--hash=sha256:") >= len(mlflow)


def faults(text: str) -> set[str]:
    """Rules that a Dockerfile breaks."""
    steps = re.sub(r"\\\n", " ", "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#")))
    lines = steps.splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    bases = re.findall(r"^ARG BASE=(\S+)", steps, re.MULTILINE) + [
        base for base in re.findall(r"^FROM (\S+)", steps, re.MULTILINE) if "$" not in base]
    named = re.findall(r"^FROM \S+ AS (\S+)", steps, re.MULTILINE)
    rules = {
        "base without a tag": any(base not in named and not re.search(r":[\w.-]*\d[\w.-]*", base) for base in bases),
        "latest": any(":latest" in base for base in bases),
        "root": not users or users[-1].partition(":")[0] in ("root", "0") or not users[-1][0].isdigit(),
        "ADD": any(line.startswith("ADD ") for line in lines),
        "secret in the image": any(re.match(rf"(?:ENV|ARG) .*(?:{SECRET.pattern})\w*=\S", line) for line in lines),
        "no health check": not any(line.startswith("HEALTHCHECK ") for line in lines),
        "shell form": any(re.match(r"(?:ENTRYPOINT|CMD) (?!\[)", line) for line in lines),
        "piped script": any(re.search(r"(?:curl|wget)\b.*\|\s*(?:ba)?sh\b", line) for line in lines),
        "sudo": any(re.search(r"\bsudo\b", line) for line in lines),
        "apt leaves its lists": any("apt-get install" in line and not (
            "--no-install-recommends" in line and "rm -rf /var/lib/apt/lists" in line) for line in lines),
        "pip keeps its cache": any("pip install" in line and "--no-cache-dir" not in line for line in lines),
        "unpinned packages": any("pip install" in line and "--require-hashes" not in line for line in lines),
        "remote frontend": bool(re.search(r"^#\s*syntax=", text, re.MULTILINE)),
    }
    return {rule for rule, broken in rules.items() if broken}


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_keeps_the_rules(path: Path) -> None:
    assert faults(path.read_text(encoding="utf-8")) == set()


def test_the_rules_find_what_they_are_for() -> None:
    bad = ("# syntax=docker/dockerfile:1\nFROM python\nFROM python:latest AS two\nADD x /\nENV API_KEY=abc\nUSER root\n"
           "RUN curl x | sh && sudo true\nRUN apt-get install gcc\nRUN pip install torch\nCMD eag-rl\n")
    assert faults(bad) == {"base without a tag", "latest", "root", "ADD", "secret in the image", "no health check",
                           "shell form", "piped script", "sudo", "apt leaves its lists", "pip keeps its cache",
                           "unpinned packages", "remote frontend"}


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_pleases_hadolint(path: Path) -> None:
    answer = subprocess.run(["hadolint", path], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout
