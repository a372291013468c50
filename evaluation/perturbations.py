"""Perturbed test stays: how the robustness experiment spoils what a patient's record says, one fixed way for all arms.

In go the measured visits of test stays (contract VISITS before LOCF), out comes a `Perturbed`: the same rows with other
values, and what was changed, feature by feature. Labels, static data and the training split are never seen here.

    shuffle   the values of the chosen features change places: in a ring through them, each shows the values of the
              next, so none keeps its own. A feature takes over the other's whole course over the visits with its gaps
              (its mask), as numbers: they are neither converted to the unit under which they now stand nor cut to its
              plausible range ("Heart Rate (bpm): 7.31"). A model that standardises clips them (`cohort.clip_sd`). The
              ring has two members at least: where the share asks for one feature, two are chosen; the only measured
              feature of a group stays as it is.
    drop      the chosen features become unmeasured at every visit.
    noise     every measured value x becomes x + p * sd * z, with sd the feature's in the training split and z a
              standard normal number of its own for each stay, visit and feature; then ordinal features are rounded to
              whole numbers and all are cut to the catalogue's plausible range. Here p is a size [sd], not a share.
    rename    the chosen features stand in the prompt under the first alias of the catalogue; no number changes.

Shuffle, drop and noise are made on the frame that the expert, the simple models and the prompts all start from, so all
meet the same perturbation. Which features are chosen, in which order, depends on seed, stay and feature name alone: the
features of a smaller share are among those of a larger one, and shuffle and drop choose the same ones. Chosen are
`round(p * n)` (halves up) of the n features of a group that were ever measured in the stay; for rename, of all with an
alias. Groups are kept apart: those that prompts show and the others, so that the share is p for a prompt as well as for
a model that reads all features, and no value enters or leaves a prompt by a shuffle. p = 0 changes nothing.

After EAG-RL (arXiv 2508.13579), robustness to shuffled features; drop, noise and rename are ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import get_args

import numpy as np
import polars as pl

from configs.schema import PerturbationKind, Robustness
from contracts.errors import ConfigError, ContractError
from contracts.features import Catalogue
from contracts.frames import Columns, check_visits
from evaluation.metrics import Floats

KINDS: tuple[PerturbationKind, ...] = get_args(PerturbationKind)
# One feature of one stay that is not as it was; `now`: the feature whose values it shows (shuffle), the words it stands
# under (rename), else "".
CHANGES = Columns("changes", {"stay_id": pl.String, "feature": pl.String, "now": pl.String}, ("stay_id", "feature"))


@dataclass(frozen=True)
class Perturbation:
    """A kind and its share p.

    Raises:
        ConfigError: the kind is unknown, or p is not in [0, 1].
    """

    kind: PerturbationKind
    share: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"unknown perturbation {self.kind!r}", f"one of: {', '.join(KINDS)}",
                              "correct robustness.kinds")
        if not 0.0 <= self.share <= 1.0:
            raise ConfigError(f"perturbation {self.kind} with p = {self.share}", "p lies in [0, 1]",
                              "correct robustness.shares")

    @property
    def name(self) -> str:
        """Kind and share as one word, such as "shuffle-0.4"."""
        return f"{self.kind}-{float(self.share)}"

    @classmethod
    def of(cls, name: str) -> Perturbation:
        """The perturbation of a name.

        Raises:
            ConfigError: it is no such name.
        """
        kind, _, share = name.partition("-")
        try:
            return cls(kind, float(share))  # type: ignore[arg-type]  # checked when it is made
        except ValueError as error:
            raise ConfigError(f"perturbation {name!r}", 'a kind and a share, such as "shuffle-0.4"',
                              "correct the name") from error


@dataclass(frozen=True)
class Perturbed:
    """Visits after a perturbation, before LOCF, and all that was changed (`CHANGES`)."""

    # No frame is printed: no patient's row reaches a log by way of a traceback.
    visits: pl.DataFrame = field(repr=False)
    changes: pl.DataFrame = field(repr=False)

    def words(self) -> dict[str, dict[str, str]]:
        """stay_id to feature to the words it stands under; meaningful after a rename."""
        return words_of(self.changes)


def perturbations(section: Robustness) -> list[Perturbation]:
    """Every kind with every share above 0, in the section's order; at 0 the study itself is the result."""
    return [Perturbation(kind, share) for kind in section.kinds for share in section.shares if share > 0.0]


def perturb(visits: pl.DataFrame, how: Perturbation, catalogue: Catalogue, groups: Sequence[Sequence[str]],
            sd: Mapping[str, float], seed: int) -> Perturbed:
    """Perturbs stays (rules: module docstring).

    Args:
        visits: contract VISITS with the catalogue's features, as measured (null = not measured); test stays alone.
        groups: the features, parted; a share is taken of each group, and a shuffle stays inside it.
        sd: standard deviation of each feature in the training split, in its unit.
        seed: of the choice of features and of the noise.

    Returns:
        the same rows in the same order; with p = 0 the very frame that was given.

    Raises:
        ContractError: the frame breaks its contract, a group names a feature twice or one that is not in the
            catalogue, or a feature has no finite sd.
    """
    check_visits(visits, catalogue.names)
    columns = _columns(groups, catalogue)
    lacking = [name for name in catalogue.names if not math.isfinite(sd.get(name, math.nan))]
    if lacking:
        raise ContractError(f"no standard deviation of {lacking[:3]}", "each feature has one, of the training split",
                            "recompute the cohort")
    if how.share == 0.0:
        return Perturbed(visits, CHANGES.empty())
    values = visits.select(pl.col(catalogue.names).fill_null(math.nan)).to_numpy().astype(np.float64)
    spreads = np.array([sd[name] for name in catalogue.names])
    changes: list[tuple[str, str, str]] = []
    for stay, rows in _rows_of(visits).items():
        block = values[rows]
        found = _changed(block, stay, how, catalogue, columns, seed)
        values[rows] = _moved(block, found, how, catalogue, spreads, _generator(seed, stay))
        changes += [(stay, catalogue.names[column], _now(how, catalogue, source)) for column, source in found.items()]
    changed = visits.with_columns(pl.Series(name, values[:, column]).fill_nan(None)
                                  for column, name in enumerate(catalogue.names))
    return Perturbed(changed, CHANGES.check(pl.DataFrame(changes, schema=dict(CHANGES.dtypes), orient="row")))


def chosen(stay: str, names: Sequence[str], count: int, seed: int) -> list[str]:
    """The first `count` of `names` in the stay's own order, which depends on seed, stay and name alone."""
    return sorted(names, key=lambda name: _digest(f"{seed}/{stay}/{name}"))[:count]


def words_of(changes: pl.DataFrame) -> dict[str, dict[str, str]]:
    """stay_id to feature to `now` of a `CHANGES` frame."""
    found: dict[str, dict[str, str]] = {}
    for stay, feature, now in CHANGES.check(changes).select(list(CHANGES.dtypes)).iter_rows():
        found.setdefault(stay, {})[feature] = now
    return found


def _columns(groups: Sequence[Sequence[str]], catalogue: Catalogue) -> list[list[int]]:
    places = {name: column for column, name in enumerate(catalogue.names)}
    named = [name for group in groups for name in group]
    odd = sorted({name for name in named if name not in places or named.count(name) > 1})
    if odd:
        raise ContractError(f"groups name {odd[:5]}", "each group holds features of the catalogue, none of them twice",
                            "correct the groups")
    return [[places[name] for name in group] for group in groups]


def _rows_of(visits: pl.DataFrame) -> dict[str, list[int]]:
    """Row numbers of each stay, oldest visit first."""
    order = visits.select("stay_id", "visit").with_row_index("row").sort("stay_id", "visit")
    rows: dict[str, list[int]] = {}
    for row, stay in order.select("row", "stay_id").iter_rows():
        rows.setdefault(stay, []).append(row)
    return rows


def _changed(block: Floats, stay: str, how: Perturbation, catalogue: Catalogue, groups: Sequence[Sequence[int]],
             seed: int) -> dict[int, int]:
    """Columns that change, each with the column whose values (or name) it takes; (T, F) values of one stay."""
    measured = np.atleast_1d(~np.isnan(block).all(axis=0))
    found: dict[int, int] = {}
    for group in groups:
        able = [column for column in group
                if (catalogue.features[column].aliases if how.kind == "rename" else measured[column])]
        count = len(able) if how.kind == "noise" else math.floor(how.share * len(able) + 0.5)
        if how.kind == "shuffle" and count == 1:
            count = 2 if len(able) > 1 else 0
        places = {catalogue.names[column]: column for column in able}
        ring = [places[name] for name in chosen(stay, list(places), count, seed)]
        following = [*ring[1:], *ring[:1]] if how.kind == "shuffle" else ring
        found |= dict(zip(ring, following, strict=True))
    return found


def _moved(block: Floats, found: Mapping[int, int], how: Perturbation, catalogue: Catalogue, sd: Floats,
           draw: np.random.Generator) -> Floats:
    """The values (T, F) of one stay after the change."""
    columns, result = list(found), block.copy()
    if how.kind == "shuffle":
        result[:, columns] = block[:, list(found.values())]
    elif how.kind == "drop":
        result[:, columns] = np.nan
    elif how.kind == "noise":
        noisy = block + how.share * sd * draw.standard_normal(block.shape)
        for column in columns:
            feature = catalogue.features[column]
            kept = np.round(noisy[:, column]) if feature.kind == "ordinal" else noisy[:, column]
            result[:, column] = np.clip(kept, feature.low, feature.high)
    return result


def _now(how: Perturbation, catalogue: Catalogue, source: int) -> str:
    feature = catalogue.features[source]
    return {"shuffle": feature.name, "rename": next(iter(feature.aliases), "")}.get(how.kind, "")


def _generator(seed: int, stay: str) -> np.random.Generator:
    return np.random.default_rng(list(_digest(f"{seed}/{stay}")))


def _digest(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=16).digest()
