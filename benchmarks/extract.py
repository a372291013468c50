"""How fast and in how much memory a MIMIC-IV extract becomes daily records, on generated extracts.

    python benchmarks/extract.py make --stays 5000 --out FOLDER    an extract (about 4,200 event rows a stay)
    python benchmarks/extract.py cold FOLDER                       raw files to daily records, nothing cached
    python benchmarks/extract.py warm FOLDER                       parsed tables to daily records
    python benchmarks/extract.py newer FOLDER                      the same where 1 % of the patients got new rows
    python benchmarks/extract.py pandas FOLDER                     the same job in plain pandas, and whether it is equal

Each prints rows of both tables, seconds, million rows a second and the peak memory of its process. `cold`,
`warm` and `newer` follow one another: they share FOLDER/.cache.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
import polars as pl  # noqa: E402

from ehr.extracts.write import synthesize  # noqa: E402
from ehr.sources.days import daily_records  # noqa: E402
from ehr.sources.mimic_iv.ingest import ingest  # noqa: E402
from ehr.sources.mimic_iv.items import items  # noqa: E402
from ehr.sources.mimic_iv.layout import open_extract  # noqa: E402
from ehr.sources.mimic_iv.source import EVENTS  # noqa: E402
from ehr.sources.mimic_iv.stays import read_stays  # noqa: E402
from ehr.sources.parts import COLUMNS, PARTS, Scatter, sort_parts  # noqa: E402


def windows(folder: Path) -> pl.DataFrame:
    """Whole stays."""
    stays = read_stays(open_extract(folder), "mortality", "all").stays
    return stays.select("stay", "subject", pl.col("intime").dt.epoch("s").alias("begin"),
                        pl.col("outtime").dt.epoch("s").alias("end"))


def parsed(folder: Path, cache: Path) -> tuple[list[Path], int]:
    """Folders of the parsed tables and the rows of the raw ones."""
    extract = open_extract(folder)
    folders = [ingest(extract.tables[name], f"{name.replace('/', '-'):0<16}", cache, 1.0) for name in EVENTS]
    return folders, sum(json.loads((one / "counts.json").read_text())["rows"] for one in folders)


def cold(folder: Path) -> dict[str, Any]:
    """Raw files to daily records."""
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    began = time.perf_counter()
    folders, rows = parsed(folder, folder / ".cache")
    parsing = time.perf_counter() - began
    days = daily_records(folders, windows(folder), folder / ".cache", items())
    return figures(rows, began, days=days.days.height, parsing_seconds=round(parsing, 2))


def warm(folder: Path) -> dict[str, Any]:
    """Parsed tables to daily records, none of them known."""
    for stale in (folder / ".cache").glob("days-*"):
        shutil.rmtree(stale)
    folders, rows = parsed(folder, folder / ".cache")
    stays = windows(folder)
    began = time.perf_counter()
    days = daily_records(folders, stays, folder / ".cache", items())
    return figures(rows, began, computed=days.computed, reused=days.reused)


def newer(folder: Path) -> dict[str, Any]:
    """As if the parsed tables of a newer extract had one more measurement for one patient in a hundred."""
    cache, changed = folder / ".cache", folder / ".cache" / "newer"
    shutil.rmtree(changed, ignore_errors=True)
    folders, rows = parsed(folder, cache)
    touched = pl.read_parquet(folders[0] / "patients.parquet")["subject"].gather_every(100)
    changed.mkdir()
    with Scatter(changed) as scatter:
        for part in range(PARTS):
            frame = pl.read_parquet(folders[0] / f"part-{part:03d}.parquet")
            more = frame.filter(pl.col("subject").is_in(touched.implode())).unique("subject", keep="first")
            for rows_ in (frame, more.with_columns(pl.col("value") + 1.0, pl.col("time") + 60)):
                scatter.add(*(rows_[name].to_numpy() for name in COLUMNS))
    sort_parts(changed)
    stays = windows(folder)
    began = time.perf_counter()
    days = daily_records([changed, *folders[1:]], stays, cache, items())
    return figures(rows, began, computed=days.computed, reused=days.reused)


def with_pandas(folder: Path) -> dict[str, Any]:
    """The same job as most people write it: whole tables, merges, a group-by."""
    import pandas as pd

    began = time.perf_counter()
    known, rows, tables = items(), 0, []
    names = known.catalogue.names
    for name in EVENTS:
        table = open_extract(folder).tables[name]
        frame = pd.read_csv(table.path, usecols=["subject_id", "itemid", "charttime", "value", "valuenum", "valueuom"])
        rows += len(frame)
        frame = frame[frame["itemid"].isin(list(known.items))].copy()
        frame["feature"] = frame["itemid"].map({number: item.feature for number, item in known.items.items()})
        pairs = {(number, unit): known.conversion(known.items[number], "" if pd.isna(unit) else unit)
                 for number, unit in set(zip(frame["itemid"], frame["valueuom"], strict=True))}
        both = [pairs[pair] or (float("nan"),) * 2 for pair in zip(frame["itemid"], frame["valueuom"], strict=True)]
        frame["value_"] = frame["valuenum"] * [one[0] for one in both] + [one[1] for one in both]
        for feature, words in known.coded.items():
            coded = frame["feature"] == feature
            frame.loc[coded, "value_"] = frame.loc[coded, "value"].str.strip().map(words).astype(float)
        frame["time"] = pd.to_datetime(frame["charttime"])
        tables.append(frame[["subject_id", "time", "feature", "value_"]].dropna())
    events = pd.concat(tables).rename(columns={"subject_id": "subject", "value_": "value"})
    stays = read_stays(open_extract(folder), "mortality", "all").stays
    events = events.merge(stays.select("stay", "subject", "intime", "outtime").to_pandas(), on="subject")
    events = events[(events["time"] >= events["intime"]) & (events["time"] <= events["outtime"])]
    events = events[["stay", "time", "feature", "value"]].drop_duplicates()
    for total, parts in known.sums.items():
        scores = events[events["feature"].isin(parts)].groupby(["stay", "time", "feature"])["value"].max()
        sums = scores.unstack().dropna().sum(axis=1).rename("value").reset_index()
        events = pd.concat([events, sums.assign(feature=total)])
    for feature, (low, high) in known.fractions.items():
        fraction = (events["feature"] == feature) & events["value"].between(low, high)
        events.loc[fraction, "value"] *= 100.0
    events["date"] = events["time"].dt.date
    every = events[["stay", "date"]].drop_duplicates()
    low, high = ([getattr(item, bound) for item in known.catalogue] for bound in ("low", "high"))
    feature = events["feature"].astype(int)
    events = events[events["value"].between(feature.map(dict(enumerate(low))), feature.map(dict(enumerate(high))))]
    ordinal = events["feature"].isin([place for place, item in enumerate(known.catalogue) if item.kind == "ordinal"])
    means = events[~ordinal].groupby(["stay", "date", "feature"])["value"].mean()
    last = events[ordinal].sort_values(["time", "value"]).groupby(["stay", "date", "feature"])["value"].last()
    wide = pd.concat([means, last]).unstack().reindex(columns=range(len(names)))
    wide = every.merge(wide.reset_index(), how="left", on=["stay", "date"]).sort_values(["stay", "date"])
    seconds = time.perf_counter() - began
    plain = pl.from_pandas(wide.set_axis(["stay", "date", *names], axis=1)).with_columns(pl.col(names).cast(pl.Float64))
    ours = daily_records(parsed(folder, folder / ".cache")[0], windows(folder), folder / ".cache", items()).days
    plain = plain.with_columns(pl.col(names).fill_nan(None))
    equal = plain.select("stay", "date").equals(ours.select("stay", "date")) and plain.select(
        pl.col(names).is_null()).equals(ours.select(pl.col(names).is_null()))
    largest = np.nanmax(np.abs(plain.select(names).to_numpy() - ours.select(names).to_numpy()))
    result = figures(rows, began, equal_days_and_gaps=equal, largest_difference=float(largest))
    return {**result, "seconds": round(seconds, 2), "million_rows_per_second": round(rows / seconds / 1e6, 3)}


def warm_up() -> None:
    """Imports what is imported late, and loads compiled code from its cache (about a second a process)."""
    with TemporaryDirectory() as name:
        folder = synthesize(Path(name) / "x", "mimic-iv-3.1", 3, rows_per_stay=100).folder
        daily_records(parsed(folder, folder / ".cache")[0], windows(folder), folder / ".cache", items())


def figures(rows: int, began: float, **more: Any) -> dict[str, Any]:
    """What is printed."""
    seconds = time.perf_counter() - began
    return {"rows": rows, "seconds": round(seconds, 2), "million_rows_per_second": round(rows / seconds / 1e6, 2),
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, **more}


def main() -> None:
    """Runs one of the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    make = parts.add_parser("make")
    make.add_argument("--stays", type=int, default=5000)
    make.add_argument("--rows-per-stay", type=int, default=4000)
    make.add_argument("--out", type=Path, required=True)
    for name in ("cold", "warm", "newer", "pandas"):
        parts.add_parser(name).add_argument("folder", type=Path)
    options = parser.parse_args()
    if options.part == "make":
        synthesize(options.out, "mimic-iv-3.1", options.stays, 42, rows_per_stay=options.rows_per_stay)
        return
    warm_up()
    print(json.dumps({"cold": cold, "warm": warm, "newer": newer, "pandas": with_pandas}[options.part](options.folder)))


if __name__ == "__main__":
    main()
