"""The door of the server: every path but /health needs the key."""

from __future__ import annotations

import pytest

from serving.door import RequireKey


@pytest.fixture
def door(monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "key")

    async def behind(scope, receive, send):  # noqa: ARG001
        await send({"type": "http.response.start", "status": 200})

    return RequireKey(behind)


async def status_of(door, kind="http", path="/invocations", headers=()):
    sent = []

    async def send(message):
        sent.append(message)

    await door({"type": kind, "path": path, "headers": list(headers)}, None, send)
    return sent[0].get("status", sent[0]["type"])


BEARER = (b"authorization", b"Bearer key")


@pytest.mark.parametrize(("path", "headers", "status"), [
    ("/invocations", [], 401), ("/adapters", [], 401), ("/metrics", [], 401), ("/v1/completions", [], 401),
    ("/invocations", [(b"authorization", b"Bearer other")], 401), ("/invocations", [(b"authorization", b"key")], 401),
    ("/healthy", [], 401), ("/health", [], 200), ("/invocations", [BEARER], 200)])
async def test_only_health_is_open_without_the_key(door, path, headers, status):
    assert await status_of(door, path=path, headers=headers) == status


async def test_websockets_need_the_key_too(door):
    assert await status_of(door, kind="websocket", path="/v1/realtime") == "websocket.close"
    assert await status_of(door, kind="websocket", path="/v1/realtime", headers=[BEARER]) == 200


async def test_the_lifespan_passes(door):
    assert await status_of(door, kind="lifespan", path="") == 200
