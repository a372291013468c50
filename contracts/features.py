"""Feature catalogues: the clinical features of a dataset, with unit, plausible range and the words people use for them.

The catalogues are data (`catalogues/*.yaml`), read once. "Age & Sex" is the one static token of every catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import yaml

from contracts.errors import ConfigError

STATIC = "Age & Sex"
_FOLDER = Path(__file__).parent / "catalogues"


@dataclass(frozen=True)
class Feature:
    """One clinical feature.

    Attributes:
        name: canonical name, as prompts and frames spell it.
        unit: unit of measurement, "" where it has none.
        low, high: physiologically plausible range (inclusive), in `unit`; values outside are removed.
        kind: numeric (aggregated by mean) or ordinal (aggregated by last value).
        aliases: other words for it, for mentions in free text; the first is a name of the measurement itself.
        normal: reference interval for adults (low, high), None where none is in common use.
    """

    name: str
    unit: str
    low: float
    high: float
    kind: Literal["numeric", "ordinal"] = "numeric"
    aliases: tuple[str, ...] = ()
    normal: tuple[float, float] | None = None


@dataclass(frozen=True)
class Catalogue:
    """The features of one dataset, in their fixed order, and aliases of the static token."""

    name: str
    features: tuple[Feature, ...]
    static_aliases: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Canonical names of the F features, in order, without the static token."""
        return tuple(feature.name for feature in self.features)

    @property
    def tokens(self) -> tuple[str, ...]:
        """The F feature names and "Age & Sex" last: the F+1 tokens of the expert."""
        return (*self.names, STATIC)

    def __iter__(self) -> Iterator[Feature]:
        return iter(self.features)

    def __getitem__(self, name: str) -> Feature:
        for feature in self.features:
            if feature.name == name:
                return feature
        raise ConfigError(f"unknown feature {name!r}", f"features of catalogue {self.name}: {', '.join(self.names)}",
                          "spell it as the catalogue does")


@cache
def catalogue(name: str) -> Catalogue:
    """Reads catalogue `name` ("tjh" or "mimic_iv").

    Raises:
        ConfigError: there is no such catalogue.
    """
    path = _FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in _FOLDER.glob("*.yaml")))
        raise ConfigError(f"unknown feature catalogue {name!r}", f"one of: {known}", "correct cohort.source")
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    features = tuple(
        Feature(name=row["name"], unit=row.get("unit", ""), low=float(row["low"]), high=float(row["high"]),
                kind=row.get("kind", "numeric"), aliases=tuple(row.get("aliases", ())),
                normal=tuple(row["normal"]) if row.get("normal") else None)
        for row in raw["features"])
    return Catalogue(name=name, features=features, static_aliases=tuple(raw["static_aliases"]))
