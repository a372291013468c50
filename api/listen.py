"""Runs the service: where it may listen, and how it stops. In: a `Service`; out: nothing, when it was stopped.

On SIGTERM or SIGINT it takes no new connection, answers what runs (at most `api.drain_seconds`), closes the predictor
and returns; a second signal does not wait.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn

from api.app import Service
from api.logs import logging_settings
from configs.schema import Api
from contracts.errors import ConfigError, ServerError
from serving.guard import is_loopback

_BACKLOG = 512
_BEYOND = 64  # connections beyond the queue, for health, metrics and the page


class _Server(uvicorn.Server):
    """uvicorn, but a signal ends it without being raised again afterwards: a wanted stop is no failure."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Drains at the first signal, does not wait at the second."""
        self.force_exit = self.should_exit
        self.should_exit = True


def bound(section: Api) -> socket.socket:
    """A socket on the address of the section, bound at once: an address in use is told before a model is loaded.

    Raises:
        ConfigError: the address is beyond loopback without permission or TLS, or a TLS file is missing.
        ServerError: the address is in use or not of this machine.
    """
    _check_reach(section)
    family = socket.AF_INET6 if ":" in section.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((section.host, section.port))
        made.listen(_BACKLOG)  # who connects from now on is answered as soon as the service runs
    except OSError as error:
        made.close()
        raise ServerError(f"cannot listen on {section.host}:{section.port} ({error.strerror or error})",
                          "the address is free and of this machine", "choose another --port or api.host") from error
    return made


def run(service: Service, listener: socket.socket, tell: Callable[[str], None]) -> None:
    """Serves until a signal.

    Args:
        tell: called with a sentence when it listens.

    Raises:
        EagRlError: the predictor could not be opened.
    """
    section = service.section
    server = _Server(uvicorn.Config(
        service.asgi, log_config=logging_settings(), access_log=False, server_header=False, proxy_headers=False,
        ws="none", lifespan="on", backlog=_BACKLOG, limit_concurrency=section.queue + _BEYOND, timeout_keep_alive=15,
        timeout_graceful_shutdown=section.drain_seconds, ssl_certfile=section.certificate, ssl_keyfile=section.key))
    service.stop = lambda: setattr(server, "should_exit", True)
    tell(f"listening on {address(section, listener)}")
    asyncio.run(server.serve(sockets=[listener]))
    if service.failure is not None:
        raise service.failure


def address(section: Api, listener: socket.socket) -> str:
    """The URL of the service."""
    host, port = listener.getsockname()[:2]
    return f"{'https' if section.certificate else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def _check_reach(section: Api) -> None:
    for name in (section.certificate, section.key):
        if name is not None and not Path(name).is_file():
            raise ConfigError(f"no file {name}", "api.certificate and api.key are PEM files", "correct them")
    if is_loopback(section.host):
        return
    if not section.allow_remote or section.certificate is None:
        raise ConfigError(f"api.host = {section.host!r}", "patients cross a network only by TLS and on purpose: "
                          "api.allow_remote, api.certificate and api.key are set",
                          "use 127.0.0.1 (for example behind an SSH tunnel), or set all three, and api.names")
