"""`eag-rl cohort --diff OLD NEW`: finds the two cohorts, compares them, prints and writes what differs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from contracts.errors import ArtifactError
from ehr.compare import Comparison, as_dict, compare, shifted
from ehr.comparison_files import by_size, write
from ehr.folder import read
from lineage.store import Store

_PRINTED = 20


def compare_cohorts(names: tuple[str, str], workspace: Path, out: Path | None, as_json: bool, console: Console) -> bool:
    """Compares two cohorts and prints the result.

    Args:
        names: folder, artifact id or its beginning, of the older and of the newer cohort.
        workspace: whose store the ids are of.
        out: folder for the files; None: nothing is written.

    Returns:
        whether nothing that was found is an error.

    Raises:
        ArtifactError: a cohort is not there, or is none.
        DataError: their catalogues differ.
    """
    old, new = (find(name, workspace) for name in names)
    comparison = compare(read(old), read(new))
    files = [str(path) for path in write(comparison, out)] if out is not None else []
    if as_json:
        print(json.dumps({**as_dict(comparison), "files": files}))
    else:
        print_comparison(console, comparison)
        for path in files:
            console.print(f"wrote {path}", soft_wrap=True, highlight=False)
    return not any(finding.level == "error" for finding in comparison.findings)


def find(name: str, workspace: Path) -> Path:
    """The folder of a cohort: the folder `name` itself, or that of the artifact `name`.

    Raises:
        ArtifactError: there is neither, or the artifact is no cohort.
    """
    if Path(name).is_dir():
        return Path(name)
    store = Store(workspace)
    artifact = store.resolve(name)
    if artifact.kind != "cohort":
        raise ArtifactError(f"{artifact.id} is no cohort", "two cohorts are compared",
                            "`eag-rl lineage` without an id lists them")
    return store.folder(artifact)


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Counts, differing settings, the largest shifts and the findings."""
    _print(console, "Stays", ("stays", "count"),
           [(name.replace("_", " "), str(count)) for name, count in comparison.counts.items()])
    if comparison.settings:
        _print(console, "Settings and files that differ", ("key", "old", "new"),
               [(key, *map(str, pair)) for key, pair in comparison.settings.items()])
    rows = by_size(comparison.shifts).head(_PRINTED).iter_rows(named=True)
    title = f"Largest shifts ({shifted(comparison.shifts).height} of {comparison.shifts.height} beyond the threshold)"
    _print(console, title, ("feature", "SMD last", "SMD all", "KS last", "missing old", "missing new"), [_shift(row)
                                                                                                      for row in rows])
    for finding in comparison.findings:
        colour = "red" if finding.level == "error" else "yellow"
        console.print(f"[{colour}]{finding.level}[/]: {escape(finding.value)}; {escape(finding.next_step)}",
                      soft_wrap=True, highlight=False)


def _shift(row: Mapping[str, Any]) -> tuple[str, ...]:
    numbers = (row[name] for name in ("smd_last", "smd_all", "ks_last", "missing_old", "missing_new"))
    return str(row["name"]), *("" if number is None else f"{number:.3f}" for number in numbers)


def _print(console: Console, title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    table = Table(title=title, title_justify="left")
    for place, name in enumerate(columns):
        table.add_column(name, justify="left" if place == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)
