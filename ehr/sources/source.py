"""What every source hands over: one frozen `Source`, checked.

A record is a moment at which anything was written down for a stay; a record may lose all its values in cleaning, and
its calendar day still counts as a visit (the paper's visit counts come out only so).

Duplicates: an event that repeats in all four columns is one event and refused here, so a reader drops it and counts it;
two different values of one feature at one moment are two measurements (numeric: both enter the day's mean; ordinal: the
larger value counts as the later one).

Targets (`Source.targets`) are outcomes beside the label, e.g. the remaining length of the stay. They are known only
afterwards: they travel beside stays and events and never become a feature.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import polars as pl

from contracts.errors import ContractError, DataError
from contracts.features import Catalogue
from contracts.frames import EVENTS, STAYS, TARGETS, Columns
from ehr.attrition import Step

RECORDS = Columns("records", {"stay_id": pl.String, "time": pl.Datetime("us")}, ("stay_id", "time"))
TRUTH = Columns("truth", {"stay_id": pl.String, "feature": pl.String, "effect": pl.Float64, "rank": pl.Int32},
                ("stay_id", "feature"))
STAYS_OF_SOURCE = Columns("stays", {name: dtype for name, dtype in STAYS.dtypes.items() if name != "split"}, STAYS.key,
                          STAYS.nullable)
SEXES = ("female", "male", "unknown")


@dataclass(frozen=True)
class Source:
    """What one source knows.

    Attributes:
        name: of the source ("tjh", "tjh_external", "synthetic").
        catalogue: name of its feature catalogue.
        stays: contract STAYS without `split`, ordered by `stay_id`, which is opaque: the order of the file or of the
            admissions cannot be read from it. sex is "female", "male" or "unknown"; age may be null.
        records: stay_id, time; one row a moment.
        events: contract EVENTS; values in the units of the catalogue, implausible ones still inside.
        attrition: what the reader met and dropped, in order.
        files: file name to sha256 of all that was read.
        truth: stay_id, feature, effect, rank of the planted hazard; None for real patients.
        fixed_split: patient_id, split of the published split; None where there is none or it was not asked for.
        days: stay_id, date, features: daily records, from sources that aggregate while they read; `records` and
            `events` are empty then.
        quarantine: table, key, reason, text of rows set aside.
        parsed: file name to the folder of the cache that holds what was parsed of it; "" for one of all files.
        version: of the extract, "" where there are none.
        targets: contract TARGETS: further outcomes of these stays (a stay may lack some); None from sources that know
            none.
    """

    name: str
    catalogue: str
    # No frame is printed: no patient's row reaches a log by way of a traceback.
    stays: pl.DataFrame = field(repr=False)
    attrition: tuple[Step, ...]
    records: pl.DataFrame = field(default_factory=RECORDS.empty, repr=False)
    events: pl.DataFrame = field(default_factory=EVENTS.empty, repr=False)
    files: dict[str, str] = field(default_factory=dict)
    truth: pl.DataFrame | None = field(default=None, repr=False)
    fixed_split: pl.DataFrame | None = field(default=None, repr=False)
    days: pl.DataFrame | None = field(default=None, repr=False)
    quarantine: pl.DataFrame | None = field(default=None, repr=False)
    parsed: Mapping[str, Path] = field(default_factory=dict)
    version: str = ""
    targets: pl.DataFrame | None = field(default=None, repr=False)


def opaque_ids(kind: str, keys: Iterable[object]) -> list[str]:
    """Text identifiers whose order says nothing about that of `keys`; equal keys of one kind get equal identifiers."""
    return [blake2b(f"{kind}/{key}".encode(), digest_size=8).hexdigest() for key in keys]


def checked(source: Source, catalogue: Catalogue) -> Source:
    """Returns the source unchanged if it keeps its contracts.

    Raises:
        ContractError: a frame breaks its contract or speaks of an unknown stay.
        DataError: there is no stay, a feature is not of the catalogue, or all stays bear the same label.
    """
    STAYS_OF_SOURCE.check(source.stays)
    RECORDS.check(source.records)
    _check_large(EVENTS, source.events)
    if source.truth is not None:
        TRUTH.check(source.truth)
    if source.targets is not None:
        TARGETS.check(source.targets)
    _check_members(source, catalogue)
    _check_labels(source)
    return source


def _check_large(contract: Columns, frame: pl.DataFrame) -> None:
    """`contract.check`, several times faster on millions of rows in order: distinct hashes prove distinct keys."""
    distinct = frame.select(pl.struct(contract.key).hash()).to_series().n_unique() if frame.height else 0
    in_order = distinct == frame.height and not any(frame.null_count().row(0))
    contract.check(frame.clear() if in_order else frame)


def _check_members(source: Source, catalogue: Catalogue) -> None:
    known = set(catalogue.names)
    unknown = [name for name in source.events["feature"].unique().sort() if name not in known]
    if unknown:
        raise DataError(f"{source.name}: unknown feature {unknown[0]!r} ({len(unknown)} in all)",
                        f"features of catalogue {catalogue.name}: {', '.join(catalogue.names)}",
                        "add it to the catalogue, or drop it in the reader")
    frames = (("records", source.records), ("events", source.events),
              *((name, frame) for name, frame in (("days", source.days), ("targets", source.targets))
                if frame is not None))
    for name, frame in frames:
        strangers = frame.select("stay_id").unique().join(source.stays, on="stay_id", how="anti").height
        if strangers:
            raise ContractError(f"{source.name}: {name} of {strangers} stays that `stays` does not hold",
                                "each record, event and target belongs to a stay", "correct the reader of this source")


def _check_labels(source: Source) -> None:
    if not source.stays.height:
        raise DataError(f"{source.name}: no stay left", "a cohort holds at least one stay of each label",
                        "look at the attrition of this source, or give a file with more patients")
    labels = source.stays["label"].unique().sort().to_list()
    if labels != [0, 1]:
        raise DataError(f"{source.name}: the labels of all {source.stays.height} stays are {labels}",
                        "both 0 and 1 occur, and nothing else", "give data with survivors and deaths")
    sexes = set(source.stays["sex"].unique()) - set(SEXES)
    if sexes:
        raise DataError(f"{source.name}: sex {sorted(sexes)[0]!r}", f"one of {', '.join(SEXES)}",
                        "translate it in the reader of this source")
