"""A real vLLM over a tiny random model: start, generate, constraints, adapters, death, restart, a killed parent."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from configs.schema import Serving
from serving.adapters import AdapterShelf
from serving.launcher import group_members
from serving.server import VllmServer, connect
from support.tiny_policy import tiny_adapter, tiny_policy

pytestmark = pytest.mark.smoke

SECTION = Serving(context=512, slots=8, kv_cache_gib=0.25, start_seconds=900.0)
WORDS = "The patient's lactate is rising and oxygen saturation is low. Risk: "
PARENT = """
import sys
from pathlib import Path
from configs.schema import Serving
from serving.server import VllmServer
server = VllmServer(Path(sys.argv[1]), Serving(context=512, slots=8, kv_cache_gib=0.25, start_seconds=900.0),
                    Path(sys.argv[2]), "float32", 8, 0)
server.start()
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_policy(tmp_path_factory.mktemp("policy") / "tiny")


@pytest.fixture(scope="module")
def prompt(model):
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(model / "tokenizer.json")).encode(WORDS).ids


@pytest.fixture(scope="module")
def adapters(model, tmp_path_factory):
    """Two adapters that change the output, and the one that training starts from."""
    folder = tmp_path_factory.mktemp("adapters")
    return [tiny_adapter(model, folder / "one", seed=1), tiny_adapter(model, folder / "two", seed=2),
            tiny_adapter(model, folder / "zero", scale=0.0)]


@pytest.fixture(scope="module")
def running(model, tmp_path_factory):
    with VllmServer(model, SECTION, tmp_path_factory.mktemp("work"), "float32", 8, 0) as server:
        yield server


async def ask(client, prompt, model="base", **settings):
    settings = {"max_tokens": 8, "temperature": 0.0} | settings
    return (await client.generate(prompt, model=model, **settings))[0]


async def test_it_generates_and_counts(running, prompt):
    async with connect(running) as client:
        rows = await client.generate(prompt, model="base", max_tokens=6, temperature=1.0, seed=1, count=3,
                                     top_logprobs=2)
        assert client.usage.prompt_tokens == len(prompt)
    assert len({row.token_ids for row in rows}) == 3
    assert all(len(row.token_ids) == len(row.logprobs) == len(row.top) == 6 for row in rows)
    assert all(len(position) == 2 for row in rows for position in row.top)


async def test_constraints_hold_whatever_the_model(running, prompt):
    async with connect(running) as client:
        numbers = await client.generate(prompt, model="base", max_tokens=8, temperature=1.0, regex=r"0\.[0-9]{2}",
                                        count=4)
        answer = await ask(client, prompt, temperature=1.0, choices=["Yes", "No"])
    assert all(re.fullmatch(r"0\.[0-9]{2}", row.text) for row in numbers)
    assert answer.text in ("Yes", "No")
    assert answer.finish_reason == "stop"


async def test_the_same_seed_gives_the_same_text_alone(running, prompt):
    async with connect(running) as client:
        one, same, other = [await ask(client, prompt, temperature=1.0, seed=seed) for seed in (5, 5, 6)]
    assert one.token_ids == same.token_ids != other.token_ids


async def test_adapters_act_together_and_leave_the_base_model_alone(running, prompt, adapters):
    async with connect(running) as client:
        shelf = AdapterShelf(client, running)
        base = await ask(client, prompt, top_logprobs=1)
        first, second = await shelf.load(adapters[0]), await shelf.load(adapters[1])
        names = ["base", first, second]
        alone = [await ask(client, prompt, name, top_logprobs=1) for name in names]
        together = await asyncio.gather(*(ask(client, prompt, name, top_logprobs=1) for name in names))
        zero = await shelf.load(adapters[2])
        assert shelf.loaded == (second, zero)
        assert (await ask(client, prompt, zero)).token_ids == base.token_ids
    assert len({row.logprobs[0] for row in alone}) == 3
    for row, same in zip(alone, together, strict=True):
        assert same.logprobs[0] == pytest.approx(row.logprobs[0], abs=1e-3)
    assert alone[0].logprobs[0] == pytest.approx(base.logprobs[0], abs=1e-3)


async def test_nothing_but_health_answers_without_the_key(running):
    async with httpx.AsyncClient(base_url=running.base_url) as stranger:
        for path in ("/v1/completions", "/invocations", "/adapters", "/tokenize", "/v1/load_lora_adapter"):
            assert (await stranger.post(path, json={})).status_code == 401
        assert (await stranger.get("/health")).status_code == 200


async def test_a_killed_server_comes_back_with_its_adapters_while_it_is_asked(running, prompt, adapters):
    async with connect(running) as client:
        shelf = AdapterShelf(client, running)
        name = await shelf.load(adapters[0])
        before, epoch = await ask(client, prompt, name), running.epoch
        os.killpg(running.pid, signal.SIGKILL)
        after = await ask(client, prompt, name)
    assert after.token_ids == before.token_ids
    assert running.epoch == epoch + 1
    assert client.usage.retries >= 1


def test_no_prompt_reaches_the_log(running):
    log = running.log_path.read_text(errors="replace")
    assert "Starting vLLM server" in log
    assert "lactate" not in log
    assert running.api_key not in log


def test_a_killed_parent_takes_the_server_and_its_engine_along(running, model, tmp_path):
    running.stop()
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(model), str(tmp_path)],
                              cwd=Path(__file__).resolve().parents[2])
    try:
        tree = _wait(lambda: _tree_of(parent.pid), _has_engine, 600.0)
    finally:
        parent.kill()
        parent.wait()
    assert not _wait(lambda: [pid for pid in tree if Path(f"/proc/{pid}").exists()], lambda left: not left, 30.0)


def _tree_of(parent):
    """The supervisor started by `parent`, the server and its engine."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [pid for child in children for pid in (int(child), *group_members(int(child)))]


def _has_engine(tree):
    return any("EngineCore" in Path(f"/proc/{pid}/cmdline").read_text() for pid in tree)


def _wait(look, enough, seconds):
    deadline = time.monotonic() + seconds
    while not enough(found := look()):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found
