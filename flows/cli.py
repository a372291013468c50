"""`eag-rl`: one command for the whole study, one for each part, and what a person needs around them.

Errors that a user can cause are printed as value, rule and next step, without a traceback; the exit code is then 2.
Heavy libraries are imported inside the commands, so that help and completion answer at once.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from contracts.errors import ConfigError, EagRlError
from flows import operate
from flows.cli_champion import champion
from flows.cli_lineage import register as register_lineage
from flows.cli_options import AsJson, ConfigName, Overrides, console, notes
from flows.cli_serve import serve
from flows.cli_transfer import transfer
from flows.parts import Until

app = typer.Typer(name="eag-rl", help="Expert-attention-guided reinforcement learning for EHR reasoning.",
                  no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich")
_INTERRUPTED = 130  # exit code of a shell's command that Ctrl-C ended
data_app = typer.Typer(help="Get and check real data.", no_args_is_help=True)
config_app = typer.Typer(help="Look at configurations.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(config_app, name="config")
app.registered_commands += operate.app.registered_commands
register_lineage(app)
app.command()(serve)
app.command()(champion)


def main() -> None:
    """Entry point: runs the command, prints user errors without a traceback."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        app(standalone_mode=True)
    except EagRlError as error:
        _print_error(error)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, KeyboardInterrupt) or end.code == _INTERRUPTED:  # typer makes the one into the other
            notes.print("stopped; finished parts are kept, run the same command to go on")
            sys.exit(_INTERRUPTED)
        raise


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def _print_error(error: EagRlError) -> None:
    if "--json" in sys.argv:
        print(json.dumps(error.as_dict()))
    for word, text in ((f"{error.title} error", error.value), ("rule", error.rule), ("next step", error.next_step)):
        # Indented, so that no line of what was found can pass for one of ours.
        shown = escape(text).replace("\n", "\n    ")
        notes.print(f"[bold]{word}:[/bold] {shown}", highlight=False, soft_wrap=True)


def _run(config: str, overrides: list[str] | None, until: str) -> tuple[Any, dict[str, Any]]:
    """Runs the study's flow up to a part, or its robustness experiment; returns (session, artifacts)."""
    from flows.environment import prefect_api, prepare

    with prefect_api(prepare(config, overrides or ())) as wait:
        from flows.judge_robustness import judge_robustness
        from flows.opening import deliver_logs, open_session
        from flows.run_study import run_study

        session = open_session(config, overrides or ())
        wait()
        try:
            if until == "robustness":
                return session, judge_robustness(config, list(overrides or ()))
            return session, run_study(config, list(overrides or ()), Until(until))
        finally:
            deliver_logs()


def _finish(session: Any, artifacts: dict[str, Any], as_json: bool, result: Any = None) -> None:
    if as_json:
        stages = [vars(decision) for decision in session.decisions]
        print(json.dumps({"artifacts": artifacts, "stages": stages, "result": result}))
        return
    from flows.printing import print_decisions

    print_decisions(console, session.decisions)


@app.command()
def run(config: ConfigName = "demo", overrides: Overrides = None, as_json: AsJson = False,
        until: Annotated[Until, typer.Option(help="The last part that is wanted.")] = Until.report) -> None:
    """Run a study from hospital files to the report; what is finished and unchanged is not made again."""
    session, artifacts = _run(config, overrides, until)
    result = None
    if "report" in artifacts:
        folder = session.workspace / artifacts["report"]["uri"]
        result = {"table": json.loads((folder / "table.json").read_text(encoding="utf-8")),
                  "report": str(folder / "report.html")}
    _finish(session, artifacts, as_json, result)
    if result and not as_json:
        from flows.printing import print_results

        print_results(console, result["table"])
        console.print(f"Report: {result['report']}", soft_wrap=True)
        console.print("Prefect and MLflow pages of this workspace: `eag-rl up`", soft_wrap=True)


@app.command()
def cohort(config: ConfigName = "demo", overrides: Overrides = None, as_json: AsJson = False,
           diff: Annotated[tuple[str, str] | None, typer.Option(
               metavar="OLD NEW", help="Compare two cohorts instead: folders, or ids of artifacts.")] = None,
           out: Annotated[Path | None, typer.Option(help="With --diff: folder for tables and a plot.")] = None) -> None:
    """Prepare the cohort and print what was read, dropped (why, how many) and kept; or compare two."""
    if out is not None and diff is None:
        raise ConfigError(f"--out {out} without --diff", "--out is where --diff writes its files",
                          "leave it out: the cohort's own files lie in its artifact, see `eag-rl lineage cohort`")
    if diff is not None:
        from configs.load import load
        from flows.compare_cohorts import compare_cohorts

        if not compare_cohorts(diff, Path(load(config, overrides or ()).paths.workspace), out, as_json, console):
            raise typer.Exit(2)
        return
    session, artifacts = _run(config, overrides, "cohort")
    from ehr.cohort import counts, read
    from flows.printing import print_cohort

    table = counts(read(session.workspace / artifacts["cohort"]["uri"]))
    if as_json:
        print(json.dumps({**table, "artifact": artifacts["cohort"]["id"]}))
        return
    print_cohort(console, table)


@app.command()
def expert(config: ConfigName = "demo", overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Train the expert and print its metrics and the health of its attention."""
    session, artifacts = _run(config, overrides, "expert")
    metrics = {name: session.store.manifest(session.store.resolve(artifacts[name]["id"]))["metrics"]
               for name in ("expert", "readings")}
    _finish(session, artifacts, as_json, metrics)
    if not as_json:
        from flows.printing import print_metrics

        print_metrics(console, metrics)


@app.command()
def trees(config: ConfigName = "demo", overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Stage 1a: search for trajectories with the base model."""
    session, artifacts = _run(config, overrides, "trees")
    _finish(session, artifacts, as_json)


@app.command()
def policy(config: ConfigName = "demo", overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Stage 1b and stage 2: fine-tune on the trajectories, then optimise."""
    session, artifacts = _run(config, overrides, "policy")
    _finish(session, artifacts, as_json)


@app.command()
def sweep(over: Annotated[list[str], typer.Option("--over", help="Setting and its values: rewards.weight=0.4,0.6.")],
          config: ConfigName = "demo", overrides: Overrides = None, as_json: AsJson = False,
          draws: Annotated[int | None, typer.Option("--random", min=1, help="So many points, drawn.")] = None,
          seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 42) -> None:
    """Run a study for each point of a grid of settings; they share all artifacts that do not differ."""
    from flows.environment import prefect_api, prepare
    from flows.grid import checked

    checked(config, over, overrides or (), draws, seed)
    with prefect_api(prepare(config, overrides or ())) as wait:
        from flows.opening import deliver_logs
        from flows.sweep import sweep as run_sweep

        wait()
        try:
            result = run_sweep(config, list(over), list(overrides or ()), draws, seed)
        finally:
            deliver_logs()
    if as_json:
        print(json.dumps(result))
    else:
        from flows.printing import print_rows

        print_rows(console, "Studies of the sweep", result["rows"])
        console.print(f"Tables: {result['folder']}; in MLflow (`eag-rl up`): run {result['sweep']}", soft_wrap=True)
    if any(row["error"] for row in result["rows"]):
        raise typer.Exit(2)


@app.command()
def report(config: ConfigName = "demo", overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Judge all arms and write the report (the same as `run`)."""
    run(config, overrides, as_json, Until.report)


@app.command()
def robustness(config: ConfigName = "demo", overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Perturb the test stays step by step, judge them again, and say how far each arm falls; takes over the study."""
    session, artifacts = _run(config, overrides, "robustness")
    folder = session.workspace / artifacts["robustness"]["uri"]
    rows = json.loads((folder / "table.json").read_text(encoding="utf-8"))
    _finish(session, artifacts, as_json, {"table": rows, "page": str(folder / "robustness.html")})
    if not as_json:
        from flows.printing import print_robustness

        print_robustness(console, rows)
        console.print(f"Page: {folder / 'robustness.html'}", soft_wrap=True)


app.command()(transfer)


@app.command()
def predict(patient: Annotated[Path | None, typer.Argument(help="JSON of one patient; - reads stdin.")] = None,
            config: ConfigName = "demo", overrides: Overrides = None, as_json: AsJson = False,
            example: Annotated[bool, typer.Option(help="Print an example of the JSON and stop.")] = False) -> None:
    """One patient in; risk, reasoning and important features out."""
    from flows.environment import prepare

    prepare(config, overrides or ())
    from flows.opening import open_session
    from flows.printing import print_prediction
    from tasks.predict import example_patient, predict_patient, read_patient
    from tasks.servers import stop_servers

    session = open_session(config, overrides or ())
    if example:
        print(json.dumps(example_patient(session), indent=1))
        return
    try:
        result = predict_patient(session, read_patient(patient))
    finally:
        stop_servers()
    if as_json:
        print(json.dumps(result))
    else:
        print_prediction(console, result)


@data_app.command("fetch")
def data_fetch(name: Annotated[str, typer.Argument(help="tjh or mimic-demo.")],
               target: Annotated[Path, typer.Option(help="Folder to put the files in.")] = Path("data")) -> None:
    """Get open data from its public source: pinned, checksums verified, resumable."""
    from operations.fetch import fetch
    from tasks.display import progress

    with progress(f"fetch {name}") as advance:
        for path in fetch(name, target, advance):
            console.print(f"verified {path}", soft_wrap=True)
    console.print(f"Set EAG_RL_DATA={target.resolve()} to use it.", soft_wrap=True)


@data_app.command("check")
def data_check(folder: Path, as_json: AsJson = False) -> None:
    """Say which sources a folder holds and whether they are complete and unaltered."""
    from flows.check_data import check_data
    from tasks.display import progress

    with progress("data check") as advance:
        found = check_data(folder, advance)
    _print_checks(found, as_json)


@app.command()
def synthesize(out: Annotated[Path, typer.Option(help="New or empty folder.")],
               stays: Annotated[int, typer.Option(help="ICU stays.")],
               layout: Annotated[str, typer.Option(help="mimic-iv-2.0, -2.2, -3.0 or -3.1.")] = "mimic-iv-3.1",
               seed: Annotated[int, typer.Option(help="Equal arguments give equal files.")] = 42,
               dirty: Annotated[float, typer.Option(help="Share of measurements to spoil.")] = 0.0,
               rows_per_stay: Annotated[int | None, typer.Option(help="Mean rows of chartevents.")] = None,
               file_format: Annotated[str, typer.Option("--format", help="csv.gz, csv or parquet.")] = "csv.gz",
               as_json: AsJson = False) -> None:
    """Write generated files as a hospital gives them out, of any size, to try readers on. No real patient."""
    from ehr.extracts.write import synthesize as write_extract
    from tasks.display import progress

    with progress(f"synthesize {layout}") as advance:
        extract = write_extract(out, layout, stays, seed, dirty, rows_per_stay, file_format, advance)
    if as_json:
        print(json.dumps({"folder": str(out), "layout": extract.layout, "rows": extract.rows, "dirty": extract.dirty}))
        return
    table = Table("table", "rows", title=f"{extract.layout} in {out}", title_justify="left")
    for name, rows in extract.rows.items():
        table.add_row(name, str(rows))
    console.print(table)
    console.print(f"{extract.dirty} measurements spoilt (dirt.parquet); planted hazard: truth.parquet", soft_wrap=True)


@config_app.command("show")
def config_show(config: ConfigName = "demo", overrides: Overrides = None, as_json: AsJson = False,
                everything: Annotated[bool, typer.Option("--all", help="Every setting, its range.")] = False) -> None:
    """Print a configuration as it is after `extends` and overrides."""
    import yaml

    from configs.load import describe, dump, load

    values = dump(load(config, overrides or ()))
    if as_json:
        print(json.dumps(values))
    elif everything:
        table = Table("setting", "valid", "default", "meaning")
        for row in describe():
            table.add_row(*(escape(str(cell)) for cell in row))
        console.print(table)
    else:
        console.print(yaml.safe_dump(values, sort_keys=False), highlight=False)


@app.command()
def doctor(config: ConfigName = "demo", overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Check versions, machine, disk, ports and data; each failed check names its remedy."""
    from configs.load import load
    from flows.check_data import check_source
    from operations.doctor import examine

    _print_checks(examine(load(config, overrides or ()), check_source), as_json)


def _print_checks(checks: list[Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps([vars(check) for check in checks]))
    else:
        table = Table("", "check", "found", "remedy")
        colours = {"ok": "green", "warn": "yellow", "fail": "red"}
        for check in checks:
            table.add_row(f"[{colours[check.status]}]{check.status}[/]", escape(check.name), escape(check.found),
                          escape(check.remedy) if check.status != "ok" else "")
        console.print(table)
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(2)


if __name__ == "__main__":
    main()
