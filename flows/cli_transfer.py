"""`eag-rl transfer`: policies and models of one study judged on the test stays of another."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from flows.cli_options import AsJson, console

Source = Annotated[str, typer.Option("--config", "-c", help="The study that trained: a configuration or YAML file.")]
Target = Annotated[str, typer.Option("--to", help="The study whose test stays are judged: tjh_external, a YAML file.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", "-s", help="Dotted setting of the source.")]
TargetOverrides = Annotated[list[str] | None, typer.Option("--set-to", help="Dotted setting of the target.")]


def transfer(to: Target, config: Source = "demo", overrides: Overrides = None, to_overrides: TargetOverrides = None,
             as_json: AsJson = False) -> None:
    """Judge what one study trained on another's test stays, beside what was trained there; takes over both studies."""
    from flows.environment import prefect_api, prepare

    with prefect_api(prepare(config, overrides or ())) as wait:
        from flows.judge_transfer import judge_transfer
        from flows.opening import deliver_logs, open_session
        from flows.printing import print_decisions, print_transfer

        session = open_session(config, overrides or ())
        wait()
        try:
            artifacts = judge_transfer(config, to, list(overrides or ()), list(to_overrides or ()))
        finally:
            deliver_logs()
    folder = session.workspace / artifacts["transfer"]["uri"]
    rows = json.loads((folder / "table.json").read_text(encoding="utf-8"))
    if as_json:
        result = {"table": rows, "page": str(folder / "transfer.html")}
        print(json.dumps({"artifacts": artifacts, "stages": [vars(one) for one in session.decisions],
                          "result": result}))
        return
    print_decisions(console, session.decisions)
    print_transfer(console, rows)
    console.print(f"Page: {folder / 'transfer.html'}", soft_wrap=True)
