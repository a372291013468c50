"""The API's door, an ASGI wrapper: Host, token, rate and size are checked here, and every answer gets its headers.

Only the page, its files, the schema of the API and the health checks are open; they hold nothing of a patient.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from api.limits import Bucket
from api.logs import NAME, line
from api.metrics import Metrics
from api.problems import RefusedError, answer_to
from api.tokens import Tokens
from configs.schema import Api

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

OPEN = frozenset({"/", "/healthz", "/readyz", "/openapi.json"})
METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS"})
ROUTES = OPEN | {"/v1/predict", "/v1/schema", "/v1/model", "/v1/examples", "/metrics"}
WATCHED = frozenset({"/healthz", "/readyz", "/metrics"})  # asked every few seconds: logged only where they break
FILES = "/page/"
LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
                               "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff", "x-frame-options": "DENY", "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin", "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()", "cache-control": "no-store"}
_TLS = {"strict-transport-security": "max-age=31536000"}


class Door:
    """Wraps an ASGI app.

    Args:
        names: hosts that requests may be addressed to, beside those of loopback (against DNS rebinding).
        clock: of the rate limits.
    """

    def __init__(self, app: App, section: Api, tokens: Tokens, metrics: Metrics, names: Collection[str] = (),
                 clock: Callable[[], float] = time.monotonic) -> None:
        self.app, self.section, self.tokens, self.metrics = app, section, tokens, metrics
        self._names = LOOPBACK_NAMES | {name.casefold() for name in names}
        rate = section.requests_per_minute / 60.0
        self._buckets = [Bucket(rate, section.burst, clock) for _ in range(len(tokens))]
        self._headers = [(name.encode(), value.encode())
                         for name, value in (HEADERS | (_TLS if section.certificate else {})).items()]

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Message, receive: Receive, send: Send) -> None:
        began, request, status = time.perf_counter(), secrets.token_hex(8), 500
        route, method = route_of(scope["path"]), scope["method"] if scope["method"] in METHODS else "other"

        async def marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = {name for name, _ in self._headers}
                kept = [(name, value) for name, value in message.get("headers", ()) if name.lower() not in own]
                message = {**message, "headers": [*kept, *self._headers, (b"x-request-id", request.encode())]}
            await send(message)

        try:
            try:
                self._check(scope)
                await self.app(scope, self._measured(receive), marked)
            except RefusedError as error:
                await answer_to(error)(scope, receive, marked)
        finally:
            seconds = time.perf_counter() - began
            self.metrics.answered(route, method, status, seconds)
            level = logging.DEBUG if route in WATCHED and status != 500 else logging.INFO
            logging.getLogger(NAME).log(level, line(request, method, route, status, seconds))

    def _check(self, scope: Message) -> None:
        headers = dict(scope.get("headers") or ())
        self._check_host(headers.get(b"host", b""))
        if scope["path"] not in OPEN and not scope["path"].startswith(FILES):
            self._check_token(headers.get(b"authorization", b""), counted=scope["path"] != "/metrics")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length[:12]) > self._most():
            raise self._too_large()

    def _check_host(self, header: bytes) -> None:
        try:
            name = urlsplit(f"//{header.decode('ascii')}").hostname
        except ValueError:
            name = None
        if name is None or name.casefold() not in self._names:
            raise RefusedError(421, "the request is addressed to another host", "Host is loopback or one of api.names",
                               "use http://127.0.0.1, or add the name to api.names")

    def _check_token(self, header: bytes, counted: bool) -> None:
        owner = self.tokens.owner(header)
        if owner is None:
            raise RefusedError(401, "the token is missing or wrong", "Authorization: Bearer <token>",
                               "read the token from the file that `eag-rl serve` names",
                               {"WWW-Authenticate": "Bearer"})
        wait = self._buckets[owner].take() if counted else 0.0
        if wait > 0.0:
            raise RefusedError(429, "too many requests of this token", f"{self.section.requests_per_minute:g} a minute "
                               f"(api.requests_per_minute), {self.section.burst} at once (api.burst)",
                               "wait as long as Retry-After says", {"Retry-After": str(math.ceil(wait))})

    def _measured(self, receive: Receive) -> Receive:
        """Receives no more than the largest request, whatever its header promised."""
        got = 0

        async def measured() -> Message:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            if got > self._most():
                raise self._too_large()
            return message

        return measured

    def _most(self) -> int:
        return self.section.body_kib * 1024

    def _too_large(self) -> RefusedError:
        return RefusedError(413, "the request is too large", f"at most {self.section.body_kib} KiB (api.body_kib)",
                            "send fewer visits, only what was measured")


def route_of(path: str) -> str:
    """A path as a fixed word for logs and metrics."""
    return path if path in ROUTES else FILES if path.startswith(FILES) else "other"
