"""Items of MIMIC-IV and what they mean: item id and unit to feature, factor and offset (`items.yaml`).

In: the YAML, read once. Out: an `Items`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from contracts.errors import ContractError
from contracts.features import Catalogue, catalogue

_FILE = Path(__file__).with_name("items.yaml")
TABLES = ("chartevents", "labevents")


@dataclass(frozen=True)
class Item:
    """One item: its feature (index in the catalogue) and the unit of rows that name none."""

    number: int
    table: str
    feature: int
    unit: str


@dataclass(frozen=True)
class Items:
    """All items of interest.

    Attributes:
        catalogue: whose features they are.
        items: by item id.
        spelt: unit as written, lower case, to our names of it; one spelling may belong to several.
        factors: (feature, our unit) to (factor, offset).
        coded: feature to {text: value}, for items without a number.
        fractions: feature to the range whose values are fractions of one.
        sums: feature to its parts.
        digest: sha256 of the YAML file and the names of the features: measurements tell a feature by its index.
    """

    catalogue: Catalogue
    items: Mapping[int, Item]
    spelt: Mapping[str, frozenset[str]]
    factors: Mapping[tuple[int, str], tuple[float, float]]
    coded: Mapping[int, Mapping[str, float]]
    fractions: Mapping[int, tuple[float, float]]
    sums: Mapping[int, tuple[int, ...]]
    digest: str

    def of_table(self, table: str) -> list[Item]:
        """Items of `chartevents` or `labevents`, by number."""
        return sorted((item for item in self.items.values() if item.table == table), key=lambda item: item.number)

    def conversion(self, item: Item, unit: str) -> tuple[float, float] | None:
        """Factor and offset of a unit as a row spells it; None if nobody knows it for this feature."""
        written = unit.strip().lower()
        if not written:
            return self.factors[item.feature, item.unit]
        if written in self.spelt and item.unit in self.spelt[written]:
            return self.factors[item.feature, item.unit]
        known = [self.factors[item.feature, ours] for ours in sorted(self.spelt.get(written, ()))
                 if (item.feature, ours) in self.factors]
        # "none" beside an item that has a unit says nothing: the item's own counts.
        if not known and "" in self.spelt.get(written, ()):
            return self.factors[item.feature, item.unit]
        return known[0] if known else None


@cache
def items() -> Items:
    """Reads `items.yaml`.

    Raises:
        ContractError: it speaks of a feature or unit that is not there, or names an item twice.
    """
    text = _FILE.read_bytes()
    raw = yaml.safe_load(text)
    known = catalogue("mimic_iv")
    place = {name: index for index, name in enumerate(known.names)}
    if set(raw["features"]) != set(place):
        odd = sorted(set(raw["features"]) ^ set(place))
        raise ContractError(f"items.yaml and the catalogue mimic_iv differ in {odd}", "they name the same features",
                            "correct items.yaml")
    spelt: dict[str, set[str]] = {}
    for ours, spellings in raw["units"].items():
        for spelling in spellings:
            spelt.setdefault(spelling.lower(), set()).add(ours)
    found: dict[int, Item] = {}
    factors: dict[tuple[int, str], tuple[float, float]] = {}
    for name, entry in raw["features"].items():
        factors |= {(place[name], unit): (float(factor), float(offset))
                    for unit, (factor, offset) in entry.get("units", {}).items()}
        for item in _items_of(entry, place[name]):
            if item.number in found or (item.feature, item.unit) not in factors:
                raise ContractError(f"items.yaml: item {item.number} of {name}, unit {item.unit!r}",
                                    "each item stands once, in a unit of its feature", "correct items.yaml")
            found[item.number] = item
    return Items(known, found, {word: frozenset(ours) for word, ours in spelt.items()}, factors,
                 {place[name]: entry["coded"] for name, entry in raw["features"].items() if "coded" in entry},
                 {place[name]: (float(entry["fraction"][0]), float(entry["fraction"][1]))
                  for name, entry in raw["features"].items() if "fraction" in entry},
                 {place[name]: tuple(place[part] for part in entry["sum_of"])
                  for name, entry in raw["features"].items() if "sum_of" in entry},
                 sha256(text + "\n".join(known.names).encode()).hexdigest())


def _items_of(entry: Mapping[str, Any], feature: int) -> list[Item]:
    return [Item(number, table, feature, unit) for table in TABLES for number, unit in entry.get(table, {}).items()]
