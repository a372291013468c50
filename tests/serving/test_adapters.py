"""Adapters on a scripted server: names by content, the least recently used makes room, the canary speaks up."""

from __future__ import annotations

import asyncio
import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from configs.schema import Serving
from contracts.errors import ModelError, ServerError
from serving import client as client_module
from serving.adapters import CANARY_PROMPT, AdapterShelf, adapter_name, changes_nothing
from serving.client import Client
from support.openai_server import Fault, ScriptedServer

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch):
    monkeypatch.setattr(client_module, "FIRST_WAIT", 0.01)


class Watched:
    """A server object whose process is the scripted server; ensure() may bring back an emptied one."""

    model_name = "base"

    def __init__(self, scripted):
        self.scripted, self.ensured, self.dies = scripted, 0, False

    def ensure(self):
        self.ensured += 1
        if self.dies:
            self.scripted.adapters.clear()
            self.dies = False


def adapter(folder, value=0.5, rank=2, dtype=np.float32):
    """A PEFT-like adapter whose B is `value` everywhere."""
    folder.mkdir()
    save_file({"m.q_proj.lora_A.weight": np.ones((rank, 4), dtype), "m.q_proj.lora_B.weight": np.full(
        (4, rank), value, dtype)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank}))
    return folder


@pytest.fixture
def scripted():
    with ScriptedServer() as server:
        yield server


@pytest.fixture
async def shelf(scripted):
    async with Client(scripted.url, scripted.key, Serving(adapters=2), 4096) as client:
        yield AdapterShelf(client, Watched(scripted))


async def test_an_adapter_is_loaded_under_the_hash_of_its_content(shelf, scripted, tmp_path):
    folder = adapter(tmp_path / "a")
    name = await shelf.load(folder)
    assert name == adapter_name(folder)
    assert scripted.requests(LOAD) == [{"lora_name": name, "lora_path": str(folder)}]


def test_the_name_depends_on_weights_and_config_and_not_on_the_place(tmp_path):
    first, copy, other = adapter(tmp_path / "a"), adapter(tmp_path / "b"), adapter(tmp_path / "c", value=0.25)
    assert adapter_name(first) == adapter_name(copy) != adapter_name(other)
    (copy / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 7}))
    assert adapter_name(first) != adapter_name(copy)


async def test_an_adapter_is_sent_and_checked_once(shelf, scripted, tmp_path):
    folder = adapter(tmp_path / "a")
    for _ in range(3):
        await shelf.load(folder)
    assert len(scripted.requests(LOAD)) == 1
    assert [body["model"] for body in scripted.requests()] == ["base", adapter_name(folder)]


async def test_many_who_ask_at_once_send_it_once(shelf, scripted, tmp_path):
    folder = adapter(tmp_path / "a")
    assert len(set(await asyncio.gather(*(shelf.load(folder) for _ in range(8))))) == 1
    assert len(scripted.requests(LOAD)) == 1


async def test_the_least_recently_used_makes_room(shelf, scripted, tmp_path):
    folders = [adapter(tmp_path / str(number), value=number + 1.0) for number in range(3)]
    first, second = await shelf.load(folders[0]), await shelf.load(folders[1])
    await shelf.load(folders[0])
    third = await shelf.load(folders[2])
    assert shelf.loaded == (first, third)
    assert scripted.requests(UNLOAD) == [{"lora_name": second}]
    assert set(scripted.adapters) == {first, third}


async def test_an_adapter_that_came_back_is_not_checked_again(shelf, scripted, tmp_path):
    folders = [adapter(tmp_path / str(number), value=number + 1.0) for number in range(3)]
    for folder in (*folders, folders[0]):
        await shelf.load(folder)
    assert len(scripted.requests()) == 1 + 3  # the base once, each adapter once


async def test_a_server_that_ignores_adapters_is_found_out(tmp_path):
    with ScriptedServer(ignores_adapters=True) as scripted:
        async with Client(scripted.url, scripted.key, Serving(), 4096) as client:
            shelf = AdapterShelf(client, Watched(scripted))
            with pytest.raises(ModelError, match="the same with and without adapter a"):
                await shelf.load(adapter(tmp_path / "a"))
        assert scripted.adapters == {}
        assert shelf.loaded == ()


@pytest.mark.parametrize("zero", [0.0, -0.0])
async def test_an_adapter_that_starts_training_changes_nothing_and_needs_no_canary(tmp_path, zero):
    with ScriptedServer(ignores_adapters=True) as scripted:
        async with Client(scripted.url, scripted.key, Serving(), 4096) as client:
            await AdapterShelf(client, Watched(scripted)).load(adapter(tmp_path / "a", value=zero))
        assert scripted.requests() == []


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_one_small_weight_is_a_change(tmp_path, dtype):
    folder = adapter(tmp_path / "a", value=0.0, dtype=dtype)
    assert changes_nothing(folder)
    weights = np.zeros((4, 2), dtype)
    weights[3, 1] = 1e-7
    save_file({"m.lora_B.weight": weights}, folder / "adapter_model.safetensors")
    assert not changes_nothing(folder)


async def test_the_canary_shows_no_patient_text(shelf, scripted, tmp_path):
    await shelf.load(adapter(tmp_path / "a"))
    assert [tuple(body["prompt"]) for body in scripted.requests()] == [CANARY_PROMPT] * 2


async def test_adapters_come_back_after_the_server_was_restarted(scripted, tmp_path):
    async with Client(scripted.url, scripted.key, Serving(), 4096) as client:
        watched = Watched(scripted)
        shelf = AdapterShelf(client, watched)
        name = await shelf.load(adapter(tmp_path / "a"))
        scripted.faults.append(Fault(0))
        watched.dies = True
        (one,) = await client.generate([1, 2], model=name, max_tokens=5)
    assert one.text == "ok"
    assert [body["lora_name"] for body in scripted.requests(LOAD)] == [name, name]


async def test_loading_notices_a_restart_that_nobody_told_it_of(scripted, shelf, tmp_path):
    first = await shelf.load(adapter(tmp_path / "a"))
    scripted.adapters.clear()
    second = await shelf.load(adapter(tmp_path / "b", value=0.25))
    assert set(scripted.adapters) == {first, second}


class TellingServer(ScriptedServer):
    """Says from which folder it has an adapter, as vLLM does."""

    def __init__(self):
        super().__init__()
        plain, adapters = self._http.RequestHandlerClass, self.adapters

        class Handler(plain):
            def _send(self, status, body, headers=None):
                if isinstance(body, dict) and "data" in body:
                    body = {"data": [card | {"root": adapters.get(card["id"], "")} for card in body["data"]]}
                super()._send(status, body, headers)

        self._http.RequestHandlerClass = Handler


async def test_an_adapter_that_the_server_already_has_is_taken_as_loaded(tmp_path):
    folder, copy = adapter(tmp_path / "a"), adapter(tmp_path / "copy")
    for source in (folder, copy):
        with TellingServer() as server:
            server.adapters[adapter_name(folder)] = str(source)
            async with Client(server.url, server.key, Serving(), 4096) as client:
                shelf = AdapterShelf(client, Watched(server))
                assert await shelf.load(folder) == adapter_name(folder) == shelf.loaded[0]
            assert server.requests(LOAD) == server.requests(UNLOAD) == []


@pytest.mark.parametrize("kind", [ScriptedServer, TellingServer])
async def test_a_name_that_is_bound_to_a_deleted_folder_is_bound_anew(kind, tmp_path):
    folder = adapter(tmp_path / "a")
    with kind() as server:
        server.adapters[adapter_name(folder)] = str(tmp_path / "scratch" / "step-0")
        async with Client(server.url, server.key, Serving(), 4096) as client:
            shelf = AdapterShelf(client, Watched(server))
            for _ in range(2):
                await shelf.load(folder)
        assert server.adapters == {adapter_name(folder): str(folder)}
        assert len(server.requests(UNLOAD)) == len(server.requests(LOAD)) == 1


async def test_an_adapter_on_the_shelf_outlives_the_copy_that_another_client_loaded(tmp_path):
    folder, scratch = adapter(tmp_path / "a"), adapter(tmp_path / "step-0")
    with TellingServer() as server:
        server.adapters[adapter_name(folder)] = str(scratch)
        async with Client(server.url, server.key, Serving(), 4096) as client:
            shelf = AdapterShelf(client, Watched(server))
            await shelf.load(folder)
            shutil.rmtree(scratch)
            await shelf.load(folder)
        assert server.adapters == {adapter_name(folder): str(folder)}


async def test_a_refused_adapter_says_why(tmp_path):
    class Refusing(ScriptedServer):
        def order(self, path, body):  # noqa: ARG002
            return 400, {"error": {"message": "LoRA rank 64 is greater than max_lora_rank 16.", "type": "BadRequest"}}

    with Refusing() as scripted:
        async with Client(scripted.url, scripted.key, Serving(), 4096) as client:
            with pytest.raises(ServerError, match="rank 64 is greater than max_lora_rank 16"):
                await AdapterShelf(client, Watched(scripted)).load(adapter(tmp_path / "a"))


@pytest.mark.parametrize("missing", ["adapter_model.safetensors", "adapter_config.json"])
def test_an_unfinished_adapter_folder_is_named(tmp_path, missing):
    folder = adapter(tmp_path / "a")
    (folder / missing).unlink()
    with pytest.raises(ModelError, match=f"holds no {missing}"):
        adapter_name(folder)


def test_broken_weights_are_an_error(tmp_path):
    folder = adapter(tmp_path / "a")
    (folder / "adapter_model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ModelError, match="cannot be read"):
        changes_nothing(folder)


def test_weights_without_b_are_no_adapter(tmp_path):
    folder = adapter(tmp_path / "a")
    save_file({"weight": np.ones(2)}, folder / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="no lora_B matrix"):
        changes_nothing(folder)
