"""Many studies that differ in a few settings, under one parent run: grid or random search over the configuration.

Each study shares with the others every artifact that its settings do not touch, and a sweep that was interrupted goes
on where it stopped. In MLflow the studies are children of the sweep's run, with their settings as parameters and the
figures of the report as metrics: choose them all and "Compare" draws parallel coordinates.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from prefect import flow

from contracts.errors import EagRlError
from evaluation import tables
from flows.grid import checked, settings_of
from flows.opening import open_session
from flows.run_study import run_study
from tasks.display import say


@dataclass(frozen=True)
class Point:
    """One study of a sweep: its settings (dotted name to value), and its figures or why it failed."""

    settings: Mapping[str, Any]
    figures: Mapping[str, float] = field(default_factory=dict)
    study_run: str = ""
    error: str = ""


@flow(name="sweep", flow_run_name="sweep-{config}")
def sweep(config: str, over: list[str], overrides: list[str] | None = None, draws: int | None = None,
          seed: int = 42) -> dict[str, Any]:
    """Runs a study for each point of a grid, or for some points drawn from it.

    Args:
        config: name of a shipped configuration, or path of a YAML file.
        over: settings with their values, such as "rewards.weight=0.4,0.6,0.8".
        overrides: dotted settings of all studies.
        draws: none: the whole grid; else how many points of it.
        seed: of the draw.
    """
    base, found = list(overrides or ()), []
    chosen = checked(config, over, base, draws, seed)  # every point, before the first study runs
    session = open_session(config, base)
    with session.tracker.sweep_run({"over": " ".join(over), "points": len(chosen), "seed": seed}) as parent:
        for number, one in enumerate(chosen, 1):
            say(f"[bold]sweep {number}/{len(chosen)}[/bold] " + "  ".join(settings_of(one)))
            found.append(_study(config, [*base, *settings_of(one)], one, parent))
        folder = _written(session.workspace / "sweeps" / parent, found)
    return {"sweep": parent, "folder": str(folder), "rows": rows(found)}


def rows(found: Iterable[Point]) -> list[dict[str, Any]]:
    """One row a study: settings, figures, the study's run and why it failed ("" where it did not)."""
    return [{**one.settings, **one.figures, "study run": one.study_run, "error": one.error} for one in found]


def _study(config: str, overrides: list[str], point: Mapping[str, Any], parent: str) -> Point:
    """Runs one study; an error of its own ends it and not the sweep."""
    session = open_session(config, overrides)
    session.sweep_run = parent
    try:
        made = run_study(config, overrides)
    except EagRlError as error:
        say(f"[red]failed[/red]: {error.value}")
        return Point(point, error=f"{error.value} | {error.next_step}")
    table = pl.read_parquet(session.workspace / made["report"]["uri"] / "table.parquet")
    metrics = session.store.manifest(session.store.resolve(made["report"]["id"]))["metrics"]
    arm = tables.main_arm(table)
    figures = {name.partition("/")[2]: value for name, value in metrics.items() if name.startswith(f"{arm}/")}
    return Point(point, figures, session.last_study_run or "")


def _written(folder: Path, found: Sequence[Point]) -> Path:
    """results.csv and results.json."""
    folder.mkdir(parents=True, exist_ok=True)
    table = rows(found)
    names = list(dict.fromkeys(itertools.chain.from_iterable(table)))
    with (folder / "results.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(table)
    (folder / "results.json").write_text(json.dumps(table, indent=1), encoding="utf-8")
    return folder
