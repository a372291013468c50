"""The command `eag-rl champion`: which models answer for a study, since when and why; and the choice by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.markup import escape

from contracts.errors import ConfigError
from contracts.redaction import one_line
from flows.cli_options import AsJson, ConfigName, Overrides, console

Chosen = Annotated[str | None, typer.Option("--crown", metavar="ARTIFACT", help="Make it the champion: an expert or a "
                                                                               "policy (id, or its beginning).")]
Reason = Annotated[str | None, typer.Option(metavar="TEXT", help="With --crown: why.")]


def champion(crown: Chosen = None, reason: Reason = None, config: ConfigName = "demo", overrides: Overrides = None,
             as_json: AsJson = False) -> None:
    """Print which expert and policy are the study's champions, since when and why; or set one by hand."""
    from configs.load import dump, load
    from flows.environment import prepare

    if crown is None and reason is not None:
        raise ConfigError("--reason without --crown", "the reason is that of a choice", "add --crown ARTIFACT")
    prepare(config, overrides or ())
    from flows.crown_champion import champions, crown_champion, last_policy
    from tasks.session import session_of

    session = session_of(dump(load(config, overrides or ())))
    found = champions(session) if crown is None else crown_champion(session, crown, reason or "")
    if as_json:
        print(json.dumps(found))
        return
    for role in ("expert", "policy"):
        console.print(f"{role}: {_words(found[role])}", soft_wrap=True, highlight=False)
    if found["policy"] is None and (last := last_policy(session)):
        console.print(f"As long as no policy is champion, the study's last one answers: {last}", soft_wrap=True,
                      highlight=False)


def _words(one: Mapping[str, Any] | None) -> str:
    if one is None:
        return "none"
    since = one["since"] or "a time that was not written down"
    return (f"{one['artifact']}, version {one['version']} of {escape(one['model'])}, since {since}: "
            f"{escape(one_line(one['reason'])) or 'no reason given'}")
