"""The cohort on disk: the folder that stage 1 writes and every later stage reads.

    stays.parquet       contract STAYS, and `days`: daily records of the stay before the window
    visits.parquet      contract VISITS, as measured
    filled.parquet      the same after LOCF; null = never observed so far
    first.parquet       each stay's first day alone, before the window merged any days: what a prediction at the first
                        visit may see
    scaling.json        {feature: {mean, sd, low, high}}, and "age"
    attrition.json      {"steps": [{rule, unit, found, dropped, kept}]}
    meta.json           source, catalogue, outcome, split, seeds, settings, features, files {name: sha256}
    targets.parquet     contract TARGETS: outcomes beside the label, from sources that know some (MIMIC-IV)
    truth.parquet       generated cohorts only: stay_id, feature, effect, rank

The same cohort gives the same bytes. meta.json is written last: a folder without it is unfinished.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from contracts.cohort_files import read_frame, read_json
from contracts.errors import ArtifactError, ContractError, StorageError
from contracts.features import catalogue
from contracts.frames import STAYS, TARGETS, Columns, check_first, check_visits
from ehr import attrition, scale
from ehr.attrition import Step
from ehr.scale import Moments
from ehr.sources.source import TRUTH
from ehr.splits import check_split

COHORT_STAYS = Columns("stays", {**STAYS.dtypes, "days": pl.Int32}, STAYS.key, STAYS.nullable)
_OPTIONAL = ("first", "truth", "targets")
_KEYS = ("source", "catalogue", "outcome", "split", "files", "features")


@dataclass(frozen=True)
class Cohort:
    """One study's stays and visits.

    Attributes:
        stays: contract STAYS and `days` (Int32), daily records before the window; ordered by stay_id.
        visits: contract VISITS, values as measured; ordered by stay_id and visit.
        filled: the same rows after LOCF.
        scaling: feature (and "age") to its moments in the training split.
        attrition: all that was met and dropped, from the file to the visits.
        meta: where it comes from (see the module's header).
        first: contract VISITS, the first day of each stay, ordered by stay_id; None in folders that were written before
            it was kept. `first_days` is for those who need it.
        truth: stay_id, feature, effect, rank of the planted hazard; None for real patients.
        targets: contract TARGETS, ordered by stay_id and name; None where the source knows none.
    """

    # No frame is printed: no patient's row reaches a log by way of a traceback.
    stays: pl.DataFrame = field(repr=False)
    visits: pl.DataFrame = field(repr=False)
    filled: pl.DataFrame = field(repr=False)
    scaling: dict[str, Moments] = field(repr=False)
    attrition: tuple[Step, ...]
    meta: dict[str, Any]
    first: pl.DataFrame | None = field(default=None, repr=False)
    truth: pl.DataFrame | None = field(default=None, repr=False)
    targets: pl.DataFrame | None = field(default=None, repr=False)

    @property
    def first_days(self) -> pl.DataFrame:
        """`first`.

        Raises:
            ArtifactError: the cohort does not know it.
        """
        if self.first is None:
            raise ArtifactError(f"the cohort of {self.meta['source']} has no first days (first.parquet)",
                                "a prediction at the first visit sees the first day alone", "recompute the cohort")
        return self.first


def write(cohort: Cohort, folder: Path) -> Path:
    """Writes the cohort; returns the folder.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    frames = {"stays": cohort.stays, "visits": cohort.visits, "filled": cohort.filled}
    frames |= {name: frame for name in _OPTIONAL if (frame := getattr(cohort, name)) is not None}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in ("meta.json", *(f"{name}.parquet" for name in _OPTIONAL)):
            (folder / stale).unlink(missing_ok=True)
        for name, frame in frames.items():
            frame.write_parquet(folder / f"{name}.parquet", compression="zstd", compression_level=3)
        _write_json(folder / "scaling.json", scale.as_values(cohort.scaling))
        _write_json(folder / "attrition.json", {"steps": attrition.as_values(cohort.attrition)})
        _write_json(folder / "meta.json", cohort.meta)
    except (OSError, pl.exceptions.PolarsError) as error:
        # A full disk reaches us as either, depending on who was writing.
        raise StorageError(f"cannot write the cohort to {folder}: {error}",
                           "a writable folder with free space", "free space, or change paths.workspace") from error
    return folder


def read(folder: Path) -> Cohort:
    """Reads what `write` wrote, and checks it.

    Raises:
        ArtifactError: the folder is missing, unfinished or unreadable.
        ContractError: a frame breaks its contract.
    """
    meta = read_json(folder / "meta.json")
    lacking = [key for key in _KEYS if key not in meta]
    if lacking:
        raise ContractError(f"{folder / 'meta.json'} lacks {lacking[0]!r}", f"it holds {', '.join(_KEYS)}",
                            "recompute the cohort")
    features = catalogue(meta["catalogue"]).names
    first, truth, targets = (read_frame(path) if (path := folder / f"{name}.parquet").is_file() else None
                             for name in _OPTIONAL)
    return Cohort(
        stays=check_split(COHORT_STAYS.check(read_frame(folder / "stays.parquet"))),
        visits=check_visits(read_frame(folder / "visits.parquet"), features),
        filled=check_visits(read_frame(folder / "filled.parquet"), features),
        scaling=scale.from_values(read_json(folder / "scaling.json")),
        attrition=attrition.from_values(read_json(folder / "attrition.json").get("steps", [])),
        meta=meta, first=check_first(first, features) if first is not None else None,
        truth=TRUTH.check(truth) if truth is not None else None,
        targets=TARGETS.check(targets) if targets is not None else None)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
