"""From measurements to calendar-day records, a part of the patients at a time; patients that did not change not again.

In: folders of parts (`ehr.sources.parts`) and the stays' windows. Out: `Days`: one row a calendar day of a stay with
any measurement, and attrition. `<cache>/days-<rules>-<slot>` keeps both, with a digest of each patient's measurements
and windows; a later call takes over the rows of every patient whose digest is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
import polars as pl

from ehr.aggregate import DIGITS
from ehr.attrition import Step
from ehr.sources.aggregation import COUNTS, Daily, Rules, Windows, aggregate
from ehr.sources.drafts import drafted, locked
from ehr.sources.parts import mix, part_of, read_part
from ehr.sources.places import readable

FORMAT = 5
WORKERS = 2


@dataclass(frozen=True)
class Days:
    """R stay-days.

    Attributes:
        days: stay (Int64), date, then the F features (Float64, null = not measured that day); by stay and date.
        steps: attrition.
        computed, reused: patients.
    """

    days: pl.DataFrame = field(repr=False)
    steps: tuple[Step, ...]
    computed: int
    reused: int


@dataclass(frozen=True)
class Part:
    """The work on one part, as it travels to a worker.

    Attributes:
        folders: of the tables. windows: stay, subject, begin, end of its patients, by subject and begin.
        places: for each table start and rows of these patients, two vectors.
    """

    number: int
    folders: tuple[Path, ...]
    windows: pl.DataFrame = field(repr=False)
    places: tuple[tuple[np.ndarray, np.ndarray], ...] = field(repr=False)
    rules: Rules = field(repr=False)

    def daily(self) -> Daily:
        """Reads and aggregates it."""
        tables = [read_part(folder, self.number, *place)
                  for folder, place in zip(self.folders, self.places, strict=True)]
        return aggregate(tables, Windows.of(self.windows), self.rules)


Engine = Callable[[Sequence[Part]], Iterable[Daily]]


def threads(parts: Sequence[Part]) -> list[Daily]:
    """Works on some parts at once, in this process."""
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(Part.daily, parts))


def daily_records(folders: Sequence[Path], windows: pl.DataFrame, cache: Path, known: Rules, slot: str = "all",
                  engine: Engine = threads) -> Days:
    """Aggregates all measurements of the stays inside their windows.

    Args:
        folders: each with parts and `patients.parquet`.
        windows: stay, subject (Int64), begin, end (Int64, seconds since 1970, both included); one row a stay, no two of
            one patient overlap.
        cache: where the rows of finished patients lie.
        known: what the features are.
        slot: names the rows that this call may take over and replaces; calls with other windows have another one.
        engine: gives each part's records, in order.

    Raises:
        StorageError: the disk is full or not writable.
    """
    place = cache / f"days-{_rules_key(known)}-{slot}-{FORMAT}"
    tables = [_patients(folder, windows) for folder in folders]
    digests = _digests(tables, windows)
    with locked(place):
        unchanged, days, counts = _unchanged(place, digests, known)
        changed = windows.filter(~pl.col("subject").is_in(unchanged.implode()))
        fresh = list(engine(_parts(folders, tables, changed, known)))
        if fresh:
            # Both by stay and date, and no stay in both.
            days = pl.concat([days, _day_frame(fresh, known)]).sort("stay", maintain_order=True)
            counts = pl.concat([counts, _count_frame(fresh, known)])
        with drafted(place) as draft:
            for name, frame in (("days", days), ("counts", counts), ("patients", digests)):
                frame.write_ipc(draft / f"{name}.arrow")
    totals = counts.drop("subject").sum()
    return Days(days.drop("subject"), _steps(totals.row(0, named=True), known),
                digests.height - unchanged.len(), unchanged.len())


def _rules_key(known: Rules) -> str:
    """Names all that turns measurements into records: the source's rules, and what the catalogue says of the features.

    Units, aliases and normal ranges are left out: they change no record.
    """
    told = [(item.name, item.low, item.high, item.kind) for item in known.catalogue]
    return sha256(f"{known.digest}\n{told}".encode()).hexdigest()[:8]


def _patients(folder: Path, windows: pl.DataFrame) -> pl.DataFrame:
    """What `patients.parquet` says of the patients with a stay, by subject."""
    known = pl.read_parquet(readable(folder / "patients.parquet"))
    return known.join(windows.select("subject").unique(), on="subject", how="semi").sort("subject")


def _digests(tables: Sequence[pl.DataFrame], windows: pl.DataFrame) -> pl.DataFrame:
    """subject and digest of each patient with a stay: of its measurements in all tables and of its windows."""
    own = np.zeros(windows.height, np.uint64)
    for name in ("stay", "subject", "begin", "end"):
        own = mix(own + windows[name].to_numpy().astype(np.int64).view(np.uint64))
    subject = np.concatenate([windows["subject"].to_numpy(), *(table["subject"].to_numpy() for table in tables)])
    digest = np.concatenate([own, *(mix(table["digest"].to_numpy() + np.uint64(number))
                                    for number, table in enumerate(tables))])
    order = np.argsort(subject, kind="stable")
    distinct, starts = np.unique(subject[order], return_index=True)
    # The sum wraps around at 2^64 and does not depend on the order.
    totals = np.add.reduceat(digest[order], starts) if distinct.size else np.empty(0, np.uint64)
    return pl.DataFrame({"subject": distinct, "digest": totals})


def _unchanged(place: Path, digests: pl.DataFrame, known: Rules) -> tuple[pl.Series, pl.DataFrame, pl.DataFrame]:
    """Patients whose rows of the last call are still right, their days and their counts."""
    names = known.catalogue.names
    days = pl.DataFrame(schema={"subject": pl.Int64, "stay": pl.Int64, "date": pl.Date,
                                **dict.fromkeys(names, pl.Float64)})
    counts = pl.DataFrame(schema=dict.fromkeys(("subject", *COUNTS, *names), pl.Int64))
    try:
        old, *frames = (pl.read_ipc(place / f"{name}.arrow") for name in ("patients", "days", "counts"))
    except (OSError, pl.exceptions.PolarsError):
        return pl.Series("subject", [], dtype=pl.Int64), days, counts
    same = digests.join(old, on=["subject", "digest"], how="semi")["subject"]
    days, counts = (frame.filter(pl.col("subject").is_in(same.implode())) for frame in frames)
    return same, days, counts


def _parts(folders: Sequence[Path], tables: Sequence[pl.DataFrame], windows: pl.DataFrame, known: Rules) -> list[Part]:
    """The work on the patients of these windows."""
    shares = windows.with_columns(part=part_of(windows["subject"].to_numpy())).sort("part", "subject", "begin")
    chosen = [table.join(windows.select("subject").unique(), on="subject", how="semi") for table in tables]
    places = [table.partition_by("part", as_dict=True) for table in chosen]
    parts = []
    for key, share in shares.partition_by("part", as_dict=True, include_key=False).items():
        found = [place.get(key, table.clear()) for place, table in zip(places, chosen, strict=True)]
        starts = tuple((one["start"].to_numpy(), one["rows"].to_numpy()) for one in found)
        parts.append(Part(int(str(key[0])), tuple(folders), share, starts, known))
    return parts


def _day_frame(fresh: Sequence[Daily], known: Rules) -> pl.DataFrame:
    subject, stay, day, values = (np.concatenate([getattr(one, name) for one in fresh])
                                  for name in ("subject", "stay", "day", "values"))
    measured = pl.DataFrame(values, schema=dict.fromkeys(known.catalogue.names, pl.Float64), nan_to_null=True)
    dates = pl.Series("date", day.astype(np.int32)).cast(pl.Date)
    rounded = [pl.col(item.name).round_sig_figs(DIGITS) for item in known.catalogue if item.kind == "numeric"]
    return pl.DataFrame({"subject": subject, "stay": stay, "date": dates}).hstack(measured).with_columns(rounded).sort(
        "stay", "date")


def _count_frame(fresh: Sequence[Daily], known: Rules) -> pl.DataFrame:
    counts = np.concatenate([one.counts for one in fresh])
    frame = pl.DataFrame(counts, schema=dict.fromkeys((*COUNTS, *known.catalogue.names), pl.Int64))
    return frame.select(pl.Series("subject", np.concatenate([one.subjects for one in fresh])), pl.all())


def _steps(totals: dict[str, int], known: Rules) -> tuple[Step, ...]:
    left = totals["measurements"]
    steps = [Step("measurement of a patient with a stay", "values", left, 0, left)]
    for name, rule in (("outside", "outside of all stays and windows"),
                       ("repeated", "repeats stay, time, feature and value")):
        left -= totals[name]
        steps.append(Step(f"measurement {rule}: dropped", "values", totals[name], totals[name], left))
    left += totals["summed"]
    steps.append(Step("Glasgow coma scale total: sum of its parts charted at one moment", "values", totals["summed"], 0,
                      left))
    steps.append(Step("inspired oxygen given as a fraction: taken as percent", "values", totals["fractions"], 0, left))
    for item in known.catalogue:
        if totals[item.name]:
            left -= totals[item.name]
            rule = f"{item.name} outside {item.low:g} to {item.high:g} {item.unit}".rstrip()
            steps.append(Step(f"{rule}: dropped", "values", totals[item.name], totals[item.name], left))
    return tuple(steps)
