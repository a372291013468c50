"""Commands that run it day by day: `eag-rl up`, `down`, `deploy`, `landing`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli_options import AsJson, ConfigName, Overrides, console

if TYPE_CHECKING:
    from configs.schema import Operations

app = typer.Typer()
WATCHED = "mimic_iv_mortality"


@app.command()
def up(config: ConfigName = "demo", overrides: Overrides = None,
       watch: Annotated[str | None, typer.Option(help="Configuration of the studies of new extracts.",
                                                 show_default=WATCHED)] = None) -> None:
    """Start Prefect, MLflow and a worker on 127.0.0.1 in the background, deploy every flow, say where to click."""
    from configs.load import load
    from operations import stack
    from operations.privacy import harden_environment
    from operations.services import api_address, mlflow_server, prefect_server, tracking_address, worker

    asked = _watched(watch) if watch else None
    settings = load(config, overrides or ())
    section, workspace = settings.operations, Path(settings.paths.workspace).resolve()
    harden_environment()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if (found := stack.running(workspace)) is not None:
        _say(f"It runs already ({workspace}).")
        found = stack.wait(workspace) if found["state"] != "ready" else found
        _ask(workspace, found["pages"]["prefect"] + "/api", found["pages"]["mlflow"])
        _complete(section, found, asked, already=True)
        _addresses(found["pages"], workspace)
        return
    for name in ("prefect", "mlflow"):
        (workspace / name).mkdir(parents=True, exist_ok=True)
    _ask(workspace, api_address(section), tracking_address(section))
    stack.launch(workspace, [prefect_server(workspace, section), mlflow_server(workspace, section),
                             worker(workspace, section)])
    _say("Starting Prefect, MLflow and a worker; half a minute ...")
    found = stack.wait(workspace)
    _complete(section, found, asked, already=False)
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
    from flows.environment import prepare, reached

    watched = _watched(watch, pool)
    prepare(config, overrides or ())
    if "PREFECT_API_URL" not in os.environ:
        raise ServerError("no Prefect server runs in this workspace", "deployments are registered with a server",
                          "run ./scripts/up, or name one in PREFECT_API_URL")
    from flows.deploy import deploy as register

    with reached(os.environ["PREFECT_API_URL"]):
        _say(f"Deployed: {', '.join(register(load(config, overrides or ()).operations, pool, watched))}")


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


def _watched(watch: str, pool: str = "process") -> str:
    """The configuration to watch with, a file of this machine as a whole path: a worker stands elsewhere.

    Raises:
        ConfigError: it is not valid, which is said now and not by an hourly run.
    """
    from configs.load import load

    load(watch)
    return str(Path(watch).resolve()) if pool == "process" and Path(watch).is_file() else watch


def _ask(workspace: Path, prefect: str, mlflow: str) -> None:
    """What this command itself asks is asked of the stack's servers."""
    os.environ |= {"PREFECT_HOME": str(workspace / "prefect"), "PREFECT_API_URL": prefect,
                   "MLFLOW_TRACKING_URI": mlflow}


def _complete(section: Operations, found: Mapping[str, Any], asked: str | None, already: bool) -> None:
    """Gives a stack what it lacks beside servers: deployments, a watch, an end of what its last worker left. Doing it
    again changes nothing: the watch of a stack that ran already stays, unless one is asked for."""
    from flows.deploy import deploy as register
    from flows.deploy import watched_with
    from flows.environment import reached
    from flows.settle_runs import begin_watch, settle

    with reached(os.environ["PREFECT_API_URL"]):
        stands = watched_with() if already else None
        watched = asked or stands or WATCHED
        names = register(section, watched=watched)
        left = settle(datetime.fromtimestamp(found["since"], UTC))
        for run in left:
            _say(f"Had not ended when the stack was last ended, now marked as crashed: {run.name}")
        if asked or stands is None:
            begin_watch(left)
    _say(f"Deployed: {', '.join(names)}")
    if stands not in (None, watched):
        _say(f"New extracts are studied with {watched}; a watch with {stands} that runs ends at the next full hour.")


def _addresses(pages: dict[str, str], workspace: Path) -> None:
    _say(f"Prefect: {pages['prefect']}/deployments   start a study: its deployment, then Run > Quick run or Custom run")
    _say(f"MLflow:  {pages['mlflow']}   experiment eag-rl, Training runs: models, and what each was made of")
    _say(f"Logs:    {workspace / 'stack'}")
    _say("./scripts/down ends it.")


def _say(text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False)
