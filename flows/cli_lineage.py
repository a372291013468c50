"""The commands of `eag-rl` about artifacts: where they come from, taking a study elsewhere, and freeing space."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from contracts.errors import ConfigError
from flows.cli_options import AsJson, ConfigName, Overrides, console


class Form(StrEnum):
    """How a chain is drawn."""

    tree = "tree"
    mermaid = "mermaid"
    html = "html"


def register(app: typer.Typer) -> None:
    """Adds the commands to `eag-rl`."""
    app.command()(lineage)
    app.command(name="export")(export_study)
    app.command(name="import")(import_study)
    app.command()(gc)


def lineage(artifact: Annotated[str | None, typer.Argument(help="Id, its beginning, or a kind.")] = None,
            config: ConfigName = "demo", overrides: Overrides = None, as_json: AsJson = False,
            verify: Annotated[bool, typer.Option(help="Recompute digests, sources' too; no artifact: of all.")] = False,
            stay: Annotated[str | None, typer.Option(help="Go down to the prediction for this stay.")] = None,
            arm: Annotated[str | None, typer.Option(help="With --stay: whose prediction.")] = None,
            form: Annotated[Form, typer.Option("--format", help="How it is drawn.")] = Form.tree,
            out: Annotated[Path | None, typer.Option(help="File to write instead of printing.")] = None) -> None:
    """Walk from an artifact, or from one prediction, back to the sha256 of its source files."""
    from flows.trace_lineage import trace

    if (stay is None) != (arm is None):
        raise ConfigError("--stay and --arm", "a prediction is of one stay by one arm", "give both, or neither")
    if artifact is None and stay is None:
        if out is not None or form is not Form.tree:
            raise ConfigError(f"--out {out}" if out is not None else f"--format {form}",
                              "one artifact's chain is drawn or written", "name an artifact, for example `report`")
        _show_all(_session(config, overrides).store, verify, as_json)
        return
    session = _session(config, overrides)
    found = trace(session, artifact, verify, stay, arm)
    _show(found, verify, form, as_json, out)
    if verify and not found.whole:
        raise typer.Exit(2)


def _show_all(store: Any, verify: bool, as_json: bool) -> None:
    """Lists all artifacts; verified, it says which were altered and ends with an error if any was."""
    from flows.printing import print_artifacts

    entries = list(store.manifests())
    altered = store.verify_all() if verify else {}
    if as_json:
        named = [entry["artifact"] for entry in entries]
        print(json.dumps({"artifacts": named, "altered_artifacts": altered} if verify else named))
    else:
        print_artifacts(console, entries)
        _print_altered(altered)
        if verify:
            every = {entry["artifact"]["id"] for entry in entries} | set(altered)
            _print_verified(f"{len(every) - len(altered)} of {len(every)} artifacts")
    if altered:
        raise typer.Exit(2)


def _print_altered(altered: Mapping[str, list[str]]) -> None:
    for name, what in altered.items():
        console.print(f"[red]altered[/red] {escape(name)}: {escape(', '.join(what))}", soft_wrap=True, highlight=False)


def _print_verified(what: str) -> None:
    console.print(f"verified: {what} are as they were recorded", soft_wrap=True, highlight=False)


def _show(found: Any, verify: bool, form: Form, as_json: bool, out: Path | None) -> None:
    from flows.printing import lineage_tree
    from flows.trace_lineage import as_json as values_of
    from lineage.chain import members, source_files
    from lineage.drawing import drawing, mermaid
    from lineage.page import render
    from lineage.store import storage_errors

    if as_json or form is not Form.tree:
        text = (json.dumps(values_of(found, source_files(found.node))) if as_json
                else mermaid(drawing(found.node, found.broken)) if form is Form.mermaid
                else render(found.node, found.broken, found.unreached))
        if out is None:
            print(text)
            return
        with storage_errors(out):
            out.write_text(text, encoding="utf-8")
        console.print(f"wrote {out}", soft_wrap=True, highlight=False)
        return
    if out is not None:
        raise ConfigError(f"--out {out} with a tree", "a tree is for a terminal", "add --format html or mermaid")
    console.print(lineage_tree(found.node, found.broken), soft_wrap=True)
    _print_altered(found.altered)
    for name, what in found.broken.items():
        console.print(f"[red]altered[/red] source {escape(name)} {what}", soft_wrap=True, highlight=False)
    if found.unreached:
        console.print(f"not reachable now: {len(found.unreached)} source files", soft_wrap=True, highlight=False)
    if verify:
        artifacts = {one["id"] for one in members(found.node) if "altered" in one}
        files = source_files(found.node)  # one can be another file now and, of another extract, out of reach
        _print_verified(f"{len(artifacts) - len(found.altered)} of {len(artifacts)} artifacts and "
                        f"{len(files) - len({*found.broken, *found.unreached})} of {len(files)} source files")


def export_study(study: Annotated[str, typer.Argument(help="Name of a study of the workspace (study.name).")],
                 out: Annotated[Path, typer.Option(help="File to write, *.tar.gz.")],
                 config: ConfigName = "demo", overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Write a study's reports, metrics, models, manifests and MLflow runs to one file; no patient rows."""
    from flows.carry_study import write_bundle

    contents = write_bundle(_session(config, overrides), study, out)
    if as_json:
        print(json.dumps(contents))
        return
    counts = ", ".join(f"{contents[name]} {name}" for name in ("artifacts", "files", "runs"))
    console.print(f"wrote {out}: {counts}, {_size(contents['bytes'])}", soft_wrap=True, highlight=False)


def import_study(file: Annotated[Path, typer.Argument(help="What `eag-rl export` wrote.")],
                 config: ConfigName = "demo", overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Bring an exported study into this workspace and its MLflow; what is there already is not made twice."""
    from flows.carry_study import read_bundle

    contents = read_bundle(_session(config, overrides), file)
    if as_json:
        print(json.dumps(contents))
        return
    runs = f"{contents['new_runs']} of {contents['runs']} runs are new in MLflow"
    files = f"{contents['files']} files in {contents['folder']}"
    console.print(f"study {contents['study']}: {files}; {runs}", soft_wrap=True, highlight=False)


def gc(keep: Annotated[list[str] | None, typer.Option(help="Study to keep; none named: all of them.")] = None,
       older_than: Annotated[float, typer.Option(min=0.0, metavar="DAYS", help="Only what is older.")] = 0.0,
       dry_run: Annotated[bool, typer.Option(help="Say what would be freed, and free nothing.")] = False,
       config: ConfigName = "demo", overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Free what no kept, running or serving study and no champion needs: artifacts, scratch, caches, results."""
    from flows.free_space import free_space

    freed = free_space(_session(config, overrides), keep, older_than, dry_run)
    if as_json:
        print(json.dumps(freed))
        return
    for kind, size in freed["by_kind"].items():
        console.print(f"{kind}: {freed['counts'][kind]}, {_size(size)}", highlight=False)
    named = {name: ", ".join(freed[name]) or "none" for name in ("kept", "running", "answering")}
    console.print(f"{'would free' if dry_run else 'freed'} {_size(freed['bytes'])}; kept studies: {named['kept']}; "
                  f"running: {named['running']}; answering: {named['answering']}", soft_wrap=True, highlight=False)


def _session(config: str, overrides: list[str] | None) -> Any:
    """The session of a configuration, without Prefect, which none of these commands needs."""
    from configs.load import dump
    from flows.environment import reach
    from tasks.session import session_of

    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    return session_of(dump(reach(config, overrides or ())))


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"
