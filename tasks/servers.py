"""Model servers of this process: started when a stage first needs one, shared by all later stages, always stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from serving.adapters import AdapterShelf
from serving.client import Client
from serving.server import Server, connect, open_server
from tasks import gpu
from tasks.display import say
from tasks.meter import Tokens
from tasks.session import Session

Result = TypeVar("Result")
_open: dict[tuple[Path, str, str], Server] = {}


def server_of(session: Session, model: Path) -> Server:
    """A healthy server for a base model; started at first use (about a minute on a CPU), restarted if it died."""
    config = session.config
    key = (session.workspace, str(model), config.serving.model_dump_json())
    if key not in _open:
        stop_servers()
        gpu.take("server")
        say("starting the model server ...")
        server = open_server(config.serving, model=model, workdir=session.workspace / "server",
                             dtype=config.policy.dtype, lora_rank=config.policy.lora.rank, seed=config.study.seed)
        server.start()
        _open[key] = server
    _open[key].ensure()
    return _open[key]


def stop_servers() -> None:
    """Stops every server that this process started."""
    while _open:
        _, server = _open.popitem()
        server.stop()
    gpu.give_back("server")


def with_client(session: Session, model: Path, work: Callable[[Client, AdapterShelf, Server], Awaitable[Result]]
                ) -> Result:
    """Runs `work(client, shelf, server)` in an event loop of its own and closes the client."""
    server = server_of(session, model)

    async def run() -> Result:
        client = connect(server)
        try:
            return await work(client, AdapterShelf(client, server), server)
        finally:
            await client.close()
            Tokens.add(client.usage.prompt_tokens, client.usage.completion_tokens)

    return asyncio.run(run())
