"""Commands that run it day by day: `eag-rl up`, `down`, `deploy`, `landing`."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from flows.cli_options import AsJson, ConfigName, Overrides, console

app = typer.Typer()
WATCHED = "mimic_iv_mortality"


@app.command()
def up(config: ConfigName = "demo", overrides: Overrides = None,
       watch: Annotated[str, typer.Option(help="Configuration of the studies of new extracts.")] = WATCHED) -> None:
    """Start Prefect, MLflow and a worker on 127.0.0.1 in the background, deploy every flow, say where to click."""
    from configs.load import load
    from operations import stack
    from operations.privacy import harden_environment
    from operations.services import api_address, mlflow_server, prefect_server, tracking_address, worker

    load(watch)  # refused now, not in the worker
    watch = str(Path(watch).resolve()) if Path(watch).is_file() else watch
    section = load(config, overrides or ()).operations
    workspace = Path(load(config, overrides or ()).paths.workspace).resolve()
    if (found := stack.running(workspace)) is not None:
        _say(f"It runs already ({workspace}).")
        _addresses(stack.wait(workspace)["pages"] if found["state"] != "ready" else found["pages"], workspace)
        return
    harden_environment()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    for name in ("prefect", "mlflow"):
        (workspace / name).mkdir(parents=True, exist_ok=True)
    # What this command itself asks is asked of the servers that it starts.
    os.environ |= {"PREFECT_HOME": str(workspace / "prefect"), "PREFECT_API_URL": api_address(section),
                   "MLFLOW_TRACKING_URI": tracking_address(section)}
    stack.launch(workspace, [prefect_server(workspace, section), mlflow_server(workspace, section),
                             worker(workspace, section)])
    _say("Starting Prefect, MLflow and a worker; half a minute ...")
    found = stack.wait(workspace)
    from flows.deploy import deploy as register
    from flows.settle_runs import begin_watch, settle

    names = register(section, watched=watch)
    left = settle(datetime.fromtimestamp(found["since"], UTC))
    for run in left:
        _say(f"Had not ended when the stack was last ended, now marked as crashed: {run.name}")
    begin_watch(left)
    _say(f"Deployed: {', '.join(names)}")
    _addresses(found["pages"], workspace)


@app.command()
def down(config: ConfigName = "demo", overrides: Overrides = None) -> None:
    """End what `eag-rl up` started in this workspace, flow runs of its worker included, and nothing else."""
    from configs.load import load
    from operations import stack

    workspace = Path(load(config, overrides or ()).paths.workspace).resolve()
    _say("Ended." if stack.finish(workspace) else f"Nothing runs in {workspace}.")


@app.command()
def deploy(config: ConfigName = "demo", overrides: Overrides = None,
           pool: Annotated[str, typer.Option(help="process, docker or kubernetes.")] = "process",
           watch: Annotated[str, typer.Option(help="Configuration of the studies that new extracts get.")] = WATCHED
           ) -> None:
    """Register pool, limits and every deployment with the server of `up`, or that PREFECT_API_URL names."""
    from configs.load import load
    from contracts.errors import ServerError
    from flows.environment import prepare

    prepare(config, overrides or ())
    if "PREFECT_API_URL" not in os.environ:
        raise ServerError("no Prefect server runs in this workspace", "deployments are registered with a server",
                          "run ./scripts/up, or name one in PREFECT_API_URL")
    from flows.deploy import deploy as register

    _say(f"Deployed: {', '.join(register(load(config, overrides or ()).operations, pool, watch))}")


@app.command()
def landing(config: ConfigName = WATCHED, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Print what was seen in the landing folder: of each extract what became of it, and why."""
    from configs.load import load
    from flows.printing import print_rows
    from operations.ledger import Ledger

    rows = Ledger(Path(load(config, overrides or ()).paths.workspace)).rows()
    if as_json:
        print(json.dumps(rows))
    else:
        shown = ("time", "extract", "status", "reason")
        print_rows(console, "Extracts", [{name: row.get(name, "") for name in shown} for row in rows])


def _addresses(pages: dict[str, str], workspace: Path) -> None:
    _say(f"Prefect: {pages['prefect']}/deployments   start a study: its deployment, then Run > Quick run or Custom run")
    _say(f"MLflow:  {pages['mlflow']}   runs, models, what each was made of")
    _say(f"Logs:    {workspace / 'stack'}")
    _say("./scripts/down ends it.")


def _say(text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False)
