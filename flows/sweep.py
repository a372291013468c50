"""Many studies that differ in a few settings, under one parent run: grid or random search over the configuration.

Each study shares with the others every artifact that its settings do not touch, and a sweep that was interrupted goes
on where it stopped. In MLflow the studies are children of the sweep's run, with their settings as parameters and the
figures of the report as metrics: choose them all and "Compare" draws parallel coordinates.
"""

from __future__ import annotations

import csv
import itertools
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from prefect import flow

from configs.load import load
from contracts.errors import ConfigError, EagRlError
from evaluation import tables
from flows.opening import open_session
from flows.run_study import run_study
from tasks.display import say

MOST = 1000


@dataclass(frozen=True)
class Point:
    """One study of a sweep: its settings (dotted name to value), and its figures or why it failed."""

    settings: Mapping[str, Any]
    figures: Mapping[str, float] = field(default_factory=dict)
    study_run: str = ""
    error: str = ""


def points(over: Sequence[str], draws: int | None, seed: int) -> list[dict[str, Any]]:
    """The settings of each study.

    Args:
        over: "section.key=value,value,..." or "section.key=[value, ...]"; each value is read as YAML.
        draws: none: the whole grid; else so many of its points, drawn without repeating.
        seed: of the draw.

    Raises:
        ConfigError: an entry is not of that form, a setting stands twice, or there are more than MOST points.
    """
    axes = dict(map(_axis, over))
    if len(axes) < len(over) or not axes:
        raise ConfigError(f"--over {' '.join(over) or 'nothing'}", "at least one setting, each once",
                          "for example --over rewards.weight=0.4,0.6,0.8")
    size = 1
    for values in axes.values():
        size *= len(values)
    wanted = size if draws is None else min(draws, size)
    if wanted > MOST or wanted < 1:
        raise ConfigError(f"{wanted} studies", f"a sweep has 1 to {MOST}", "fewer values, or --random with a number")
    grid = range(size) if draws is None else sorted(random.Random(seed).sample(range(size), wanted))
    return [_point(axes, number) for number in grid]


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
    chosen = points(over, draws, seed)
    for one in chosen:
        load(config, [*base, *_overrides(one)])  # every point is checked before the first study runs
    session = open_session(config, base)
    with session.tracker.sweep_run({"over": " ".join(over), "points": len(chosen), "seed": seed}) as parent:
        for number, one in enumerate(chosen, 1):
            say(f"[bold]sweep {number}/{len(chosen)}[/bold] " + "  ".join(_overrides(one)))
            found.append(_study(config, [*base, *_overrides(one)], one, parent))
        folder = _written(session.workspace / "sweeps" / parent, found)
    return {"sweep": parent, "folder": str(folder), "rows": rows(found)}


def rows(found: Iterable[Point]) -> list[dict[str, Any]]:
    """One row a study: settings, figures, the study's run and why it failed ("" where it did not)."""
    return [{**one.settings, **one.figures, "study run": one.study_run, "error": one.error} for one in found]


def _axis(entry: str) -> tuple[str, list[Any]]:
    name, sign, text = entry.partition("=")
    try:
        values = yaml.safe_load(text if text.strip().startswith("[") else f"[{text}]")
    except yaml.YAMLError:
        values = None
    if not sign or not name.strip() or not isinstance(values, list) or not values:
        raise ConfigError(f"--over {entry!r}", "section.key=value,value,...", "for example rewards.weight=0.4,0.6,0.8")
    return name.strip(), values


def _point(axes: dict[str, list[Any]], number: int) -> dict[str, Any]:
    """Point `number` of the grid, the last axis turning fastest."""
    point = {}
    for name in reversed(axes):
        number, place = divmod(number, len(axes[name]))
        point[name] = axes[name][place]
    return {name: point[name] for name in axes}


def _overrides(point: Mapping[str, Any]) -> list[str]:
    return [f"{name}={json.dumps(value)}" for name, value in point.items()]


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
