"""The server's door: every path but /health asks for the key. A small ASGI wrapper that vLLM loads by `--middleware`.

vLLM's own check guards only some path prefixes; `/invocations`, which generates text as well, and the adapter paths of
other hosting services stand open to every local user without this.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
OPEN_PATHS = frozenset({"/health"})


class RequireKey:
    """Answers 401 to every request without `Authorization: Bearer $VLLM_API_KEY`, except for /health."""

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]]) -> None:
        self.app = app
        self.expected = f"Bearer {os.environ['VLLM_API_KEY']}".encode()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope.get("path") in OPEN_PATHS or self._knows_key(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await send({"type": "http.response.start", "status": 401, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"the API key is missing or wrong\n"})

    def _knows_key(self, scope: Message) -> bool:
        given = dict(scope.get("headers") or ()).get(b"authorization", b"")
        return secrets.compare_digest(given, self.expected)
