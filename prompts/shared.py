"""Features that two catalogues share, found by their names and aliases, and what one is called in the other's words.

In: two catalogues. Out: `Shared` pairs; a catalogue and visits of one dataset in the words and units of the other, so
that models trained there read the numbers they know and a policy reads the words it was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from contracts.errors import ConfigError
from contracts.features import Catalogue, Feature
from prompts.mentions import MentionFinder

# (feature, unit, other unit) to what a value in the unit is multiplied by; the feature as its source catalogue spells
# it, casefolded. Glucose: 180.156 g/mol.
_FACTORS: Mapping[tuple[str, str, str], float] = {("glucose", "mg/dL", "mmol/L"): 1 / 18.0156,
                                                  ("glucose", "mmol/L", "mg/dL"): 18.0156}


@dataclass(frozen=True)
class Shared:
    """One clinical feature in two datasets.

    Attributes:
        source, target: its name in each catalogue.
        source_unit, target_unit: its unit in each.
        factor: a value in the target's unit times this is the value in the source's.
    """

    source: str
    target: str
    source_unit: str
    target_unit: str
    factor: float = 1.0


def shared_features(source: Catalogue, target: Catalogue) -> tuple[Shared, ...]:
    """The features that both catalogues know, in the source's order.

    Two features are one where each catalogue's words (names and aliases, see `mentions`) read the other's name as it.

    Raises:
        ConfigError: a shared feature has two units and no conversion is known.
    """
    if source == target:
        return tuple(Shared(one.name, one.name, one.unit, one.unit) for one in source)
    here, there = MentionFinder(source), MentionFinder(target)
    pairs = ((one, there.canonical(one.name)) for one in source)
    return tuple(_pair(one, target[name]) for one, name in pairs
                 if name in target.names and name is not None and here.canonical(name) == one.name)


def in_words_of(target: Catalogue, shared: Sequence[Shared], source: Catalogue) -> Catalogue:
    """The target's catalogue with each shared feature as the source has it: name, unit, range and aliases."""
    known = {one.target: source[one.source] for one in shared}
    return replace(target, features=tuple(known.get(feature.name, feature) for feature in target))


def converted(visits: pl.DataFrame, shared: Sequence[Shared]) -> pl.DataFrame:
    """Visits of the target with each shared feature under the source's name and in its unit; the others as they are."""
    factors = {one.target: one.factor for one in shared if one.factor != 1.0}
    scaled = visits.with_columns(pl.col(name) * factor for name, factor in factors.items())
    return scaled.rename({one.target: one.source for one in shared})


def _pair(here: Feature, there: Feature) -> Shared:
    factor = 1.0 if here.unit == there.unit else _FACTORS.get((here.name.casefold(), there.unit, here.unit))
    if factor is None:
        raise ConfigError(f"{here.name!r} is in {here.unit or 'no unit'}, {there.name!r} in {there.unit or 'no unit'}",
                          "a shared feature has one unit, or a conversion is known",
                          "add the conversion to prompts/shared.py, or take out the alias that joins them")
    return Shared(here.name, there.name, here.unit, there.unit, factor)
