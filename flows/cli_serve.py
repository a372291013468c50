"""The command `eag-rl serve`: the champion of a study behind an HTTP API on this machine."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from flows.cli_options import ConfigName, Overrides, notes

Port = Annotated[int | None, typer.Option(help="Port on 127.0.0.1; 0: a free one. Default: api.port.")]


def serve(config: ConfigName = "demo", overrides: Overrides = None, port: Port = None) -> None:
    """Serve the study's champion over HTTP on this machine, with a page to try it, until Ctrl-C or SIGTERM."""
    from flows.environment import prepare

    wanted = [*(overrides or ()), *([] if port is None else [f"api.port={port}"])]
    prepare(config, wanted)
    from flows.opening import open_session
    from tasks.champion import held_champion
    from tasks.serve import serve as serve_champion

    logging.getLogger("httpx").setLevel(logging.WARNING)
    session = open_session(config, wanted)
    with held_champion(session) as champion:
        serve_champion(session, champion, lambda text: notes.print(text, soft_wrap=True, highlight=False))
