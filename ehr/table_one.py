"""Table 1 of a cohort: who is in it, by split and by label (package tableone, Pollard et al. 2018).

In: a `Cohort`. Out: a frame, one row a variable or one of its levels, and the same as Markdown and CSV without small
cells. A row describes stays: median [Q1,Q3] of a number, n (%) of a level; features by the last value of the stay.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from contracts.errors import StorageError
from contracts.features import catalogue
from contracts.frames import SPLITS, feature_columns
from ehr.folder import Cohort
from ehr.small_cells import hidden, small

FILES = ("table_one.md", "table_one.csv")
LABELS = ("label 0", "label 1")
GROUPS = ("overall", *SPLITS, *LABELS)
TEXT = ("variable", "level", "missing", *GROUPS, "SMD")
_COUNT = "n "
_NUMBERS = {"age": "age [years]", "days": "daily records", "length": "length of stay [days]"}
_LEVELS = {"sex": "sex", "outcome": "label"}
# The sums of one row: each group of columns tiles the stays.
_TILES = ((0, 1, 2, 3), (0, 4, 5))


def table_one(cohort: Cohort) -> pl.DataFrame:
    """The whole table, small cells still in it: do not hand it out, write it with `write`.

    Returns:
        variable, level ("" where a variable has none), missing (stays without a value), overall, one column a split
        and a label, SMD (standardised mean difference between the labels), all text; then, as "n overall" and so on,
        the number of stays that each cell speaks of.
    """
    wide = _wide(cohort)
    names = feature_columns(cohort.filled)
    numbers = [name for name in (*_NUMBERS, *names) if wide[name].count()]
    by_split = _cells(wide, numbers, [*_LEVELS], "split")
    by_label = _cells(wide, numbers, ["sex"], "label")
    shown = _titles(cohort, names)
    rows = [_row("n", "", by_split, by_label, wide, "stays")]
    for name in (*_LEVELS, *_NUMBERS, *names):
        if name in _LEVELS:
            rows += [_row(name, level, by_split, by_label, wide, f"{shown[name]}, n (%)")
                     for level in wide[name].unique().sort()]
        else:
            rows.append(_row(name, "", by_split, by_label, wide, f"{shown[name]}, median [Q1,Q3]"))
    counts = {f"{_COUNT}{group}": pl.Int64 for group in GROUPS}
    return pl.DataFrame(rows, schema={**dict.fromkeys(TEXT, pl.String), **counts}, orient="row")


def suppressed(table: pl.DataFrame, smallest: int) -> pl.DataFrame:
    """The text columns of `table_one` without cells of fewer than `smallest` stays, nor those that give them away."""
    counts = table.select(f"{_COUNT}{group}" for group in GROUPS).to_numpy()
    mask = hidden(counts, smallest, _sums(table))
    # A percentage beside a shown count would tell the size of a group that is hidden.
    mask |= mask[0] & np.isin(np.arange(table.height), _counted(table))[:, None]
    shown = {group: [f"<{smallest}" if small(counts, smallest)[row, column] else "hidden" if mask[row, column] else text
                     for row, text in enumerate(table[group])] for column, group in enumerate(GROUPS)}
    missing = [_missing(text, int(counts[0, 0]), smallest) for text in table["missing"]]
    far = ["" if mask[row, 4:].any() else text for row, text in enumerate(table["SMD"])]
    return table.select(TEXT).with_columns(**{name: pl.Series(values) for name, values in shown.items()},
                                           missing=pl.Series(missing), SMD=pl.Series(far))


def markdown(table: pl.DataFrame, smallest: int) -> str:
    """The written table as Markdown, with a note on how to read it."""
    lines = [list(TEXT), ["---", "---", *("---:" for _ in TEXT[2:])],
             *([str(cell).replace("|", "\\|") for cell in row] for row in suppressed(table, smallest).iter_rows())]
    note = ("Stays: n (%) or median [Q1,Q3]; features by the last value of the stay. SMD: standardised mean "
            f"difference between the labels. Cells of fewer than {smallest} stays, and cells that would give them "
            "away, are hidden. Made with tableone.")
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{note}\n"


def write(table: pl.DataFrame, folder: Path, smallest: int) -> tuple[Path, Path]:
    """Writes `table_one.md` and `table_one.csv`, both without small cells; returns their paths.

    Raises:
        StorageError: the folder cannot be written.
    """
    text, comma = (folder / name for name in FILES)
    try:
        text.write_text(markdown(table, smallest), encoding="utf-8")
        suppressed(table, smallest).write_csv(comma)
    except OSError as error:
        raise StorageError(f"cannot write Table 1: {error}", "a writable folder with free space",
                           "free space, or change paths.workspace") from error
    return text, comma


def _wide(cohort: Cohort) -> pl.DataFrame:
    """One row a stay: its facts and the last value of each feature."""
    names = feature_columns(cohort.filled)
    last = cohort.filled.sort("stay_id", "visit").group_by("stay_id").agg(pl.col(*names).last())
    hours = (pl.col("discharged_at") - pl.col("admitted_at")).dt.total_seconds() / 3600.0
    return cohort.stays.join(last, on="stay_id", how="left", maintain_order="left").with_columns(
        (hours / 24.0).alias("length"), pl.col("label").cast(pl.String).alias("outcome"),
        pl.format("label {}", "label").alias("label"))


def _cells(wide: pl.DataFrame, numbers: list[str], levels: list[str], by: str) -> dict[tuple[str, str, str], str]:
    """(variable, level, column) to the text of tableone's cell; columns are the groups, "Missing" and "SMD"."""
    # Imported here: it takes pandas and statsmodels along, seconds that only this table needs.
    from tableone import TableOne

    frame = wide.select(*numbers, *levels, by).to_pandas()
    with warnings.catch_warnings():
        # A group without any value has no quartiles and no SMD: its cell is empty, which is all there is to say.
        warnings.simplefilter("ignore", RuntimeWarning)
        made = TableOne(frame, columns=[*levels, *numbers], categorical=levels, continuous=numbers, nonnormal=numbers,
                        groupby=by, smd=True, label_suffix=False,
                        decimals={**dict.fromkeys(levels, 1), **_decimals(wide, numbers)}).tableone
    cells: dict[tuple[str, str, str], str] = {}
    for (variable, level), row in made.iterrows():
        for (_, column), cell in row.items():
            name = "SMD" if str(column).startswith("SMD") else str(column).replace("Overall", "overall")
            cells[str(variable), str(level), name] = "" if "nan" in str(cell) else str(cell)
    return cells


def _decimals(wide: pl.DataFrame, numbers: list[str]) -> dict[str, int]:
    """Decimals that leave about three significant digits of the median's size."""
    sizes = {name: float(np.median(np.abs(wide[name].drop_nulls().to_numpy()))) for name in numbers}
    return {name: 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3 for name, size in sizes.items()}


def _titles(cohort: Cohort, names: list[str]) -> Mapping[str, str]:
    units = {item.name: item.unit for item in catalogue(cohort.meta["catalogue"])}
    return {**_LEVELS, **_NUMBERS, **{name: f"{name} [{units[name]}]" if units.get(name) else name for name in names}}


def _row(name: str, level: str, by_split: Mapping[tuple[str, str, str], str],
         by_label: Mapping[tuple[str, str, str], str], wide: pl.DataFrame, title: str) -> tuple[Any, ...]:
    cells = [by_split.get((name, level, group), "") for group in ("overall", *SPLITS)]
    cells += [by_label.get((name, level, group), "") for group in LABELS]
    # tableone writes a variable's SMD beside its first level.
    far = by_label.get((name, level, "SMD"), "")
    counts = _counts(wide, name, level)
    missing = "" if name == "n" or level else str(wide.height - counts[0])
    return (title, level, missing, *cells, far, *counts)


def _counts(wide: pl.DataFrame, name: str, level: str) -> list[int]:
    """Stays behind each cell: with this level, or with a value."""
    part = wide if name == "n" else wide.filter(pl.col(name) == level) if level else wide.drop_nulls(name)
    groups = [part, *(part.filter(pl.col("split") == split) for split in SPLITS),
              *(part.filter(pl.col("label") == label) for label in LABELS)]
    return [group.height for group in groups]


def _sums(table: pl.DataFrame) -> list[list[tuple[int, int]]]:
    """Cells that add up: a row's tiles, and in each column all stays and the levels of one variable."""
    sums = [[(row, column) for column in tile] for row in _counted(table) for tile in _TILES]
    names = table["variable"].to_list()
    starts = [row for row, name in enumerate(names) if row == 0 or name != names[row - 1]] + [len(names)]
    for first, past in pairwise(starts):
        if past - first > 1:
            sums += [[(row, column) for row in (0, *range(first, past))] for column in range(len(GROUPS))]
    return sums


def _counted(table: pl.DataFrame) -> list[int]:
    """Rows of counts: all stays, and levels. The others hold medians, which do not add up."""
    return [0, *(row for row, level in enumerate(table["level"]) if level)]


def _missing(text: str, stays: int, smallest: int) -> str:
    if text and (0 < int(text) < smallest or 0 < stays - int(text) < smallest):
        return "hidden" if int(text) >= smallest else f"<{smallest}"
    return text
