"""What each code of a dataset means, worked out once for each distinct code.

In: a `Mapping` and the codes that occur, with the number of their rows. Out: `Codes`: frames that rows are joined with.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from collections.abc import Mapping as Lookup
from dataclasses import dataclass, field
from hashlib import sha256

import polars as pl

from contracts.errors import ConfigError, DataError
from contracts.features import Catalogue, catalogue
from ehr.sources.meds.mapping import FeatureRules, Mapping, Rule
from ehr.sources.mimic_iv.items import items

UNKNOWN_UNIT, UNKNOWN_TEXT = "a unit nobody knows for this feature", "a text nobody knows for this feature"
_FEATURES = {"code": pl.String, "feature": pl.Int8, "factor": pl.Float64, "offset": pl.Float64, "fixed": pl.Float64,
             "coded": pl.Boolean}
_TEXTS = {"code": pl.String, "text": pl.String, "decoded": pl.Float64}
_ROLES = {"code": pl.String, "role": pl.String, "wanted": pl.String}


Parents = Lookup[str, Collection[str]]


@dataclass(frozen=True)
class Known:
    """The features of a mapping, as `ehr.sources.aggregation.Rules`."""

    catalogue: Catalogue
    fractions: Lookup[int, tuple[float, float]]
    sums: Lookup[int, tuple[int, ...]]
    digest: str


@dataclass(frozen=True)
class Codes:
    """Codes that occur and mean something.

    Attributes:
        features: code, feature (index in the catalogue), factor and offset (null: nobody knows its unit), fixed (value
            of each event, or null), coded (its values are texts).
        texts: code, text (lower case), decoded.
        roles: code, role ("birth", "death", "female", "male", "stays.begin", ...), wanted (text asked for, or null).
        silent: rules that match no code that occurs.
    """

    features: pl.DataFrame = field(repr=False)
    texts: pl.DataFrame = field(repr=False)
    roles: pl.DataFrame = field(repr=False)
    silent: tuple[str, ...]


def known_features(mapping: Mapping, digest: str) -> Known:
    """The mapping's features and how they hang together.

    Args:
        digest: of the mapping's file.
    """
    features = catalogue(mapping.catalogue)
    place = {name: index for index, name in enumerate(features.names)}
    sums = {place[name]: tuple(place[part] for part in parts) for name, parts in mapping.sums.items()}
    fractions = {place[name]: limits for name, limits in mapping.fractions.items()}
    # Measurements tell a feature by its index, in the catalogue's unit.
    told = f"{digest}{[(item.name, item.unit) for item in features]}"
    if mapping.items is None:
        return Known(features, fractions, sums, sha256(told.encode()).hexdigest())
    borrowed = items()
    return Known(features, {**borrowed.fractions, **fractions}, {**borrowed.sums, **sums},
                 sha256(f"{told}{borrowed.digest}".encode()).hexdigest())


def resolved(mapping: Mapping, counts: pl.DataFrame, parents: Parents) -> Codes:
    """Finds the meaning of each code.

    Args:
        counts: code, rows.
        parents: of each code that has any, all of them.

    Raises:
        ConfigError: two rules of different features, or two ways to a value, match one code.
        DataError: no code means a feature, or none begins or ends a stay.
    """
    codes = counts["code"].drop_nulls().to_list()
    found, silent, texts = _features(mapping, codes, parents)
    roles, without = _roles(mapping, codes, parents)
    often = ", ".join(counts.sort("rows", "code", descending=[True, False])["code"].drop_nulls().head(5))
    if not found:
        raise DataError(f"no code of the data means a feature; the most frequent codes are: {often}",
                        "a mapping names codes that occur", "correct the mapping (cohort.meds.mapping)")
    for role in ("stays.begin", "stays.end", "birth"):
        if not any(entry[1] == role for entry in roles):
            raise DataError(f"no stays: no code of the data is {role} of the mapping; the most frequent codes are: "
                            f"{often}", "stays have a begin and an end, patients a birth",
                            "correct the mapping (cohort.meds.mapping)")
    return Codes(pl.DataFrame(found, schema=_FEATURES, orient="row"),
                 pl.DataFrame(texts, schema=_TEXTS, orient="row"), pl.DataFrame(roles, schema=_ROLES, orient="row"),
                 (*silent, *without))


_Row = tuple[str, int, float | None, float | None, float | None, bool]


def _features(mapping: Mapping, codes: Iterable[str],
              parents: Parents) -> tuple[list[_Row], list[str], list[tuple[str, str, float]]]:
    features = catalogue(mapping.catalogue)
    rows: dict[str, _Row] = {}
    texts: list[tuple[str, str, float]] = []
    silent = []
    meant = [(rows_of, name) for name in mapping.features
             for rows_of in _of_rules(name, mapping.features[name], features, codes, parents)]
    if mapping.items is not None:
        meant.append(((f"items of {mapping.items.of}", list(_of_items(mapping.items.regex, codes))), "items"))
    for (rule, pairs), name in meant:
        if not pairs:
            silent.append(f"{name}, {rule}")
        for row, words in pairs:
            if row[0] in rows:
                raise ConfigError(f"code {row[0]!r} is matched twice, at last by {name}, {rule}",
                                  "each code is matched by one rule of one feature", "narrow the rules of the mapping")
            rows[row[0]] = row
            texts += [(row[0], text.strip().lower(), float(value)) for text, value in words.items()]
    return list(rows.values()), silent, texts


_Pair = tuple[_Row, Lookup[str, float]]


def _of_rules(name: str, rules: FeatureRules, features: Catalogue, codes: Iterable[str],
              parents: Parents) -> Iterator[tuple[str, list[_Pair]]]:
    place, unit = features.names.index(name), features[name].unit
    for rule in rules.codes:
        pairs: list[_Pair] = []
        for code in (code for code in codes if rule.matches(code, parents.get(code, ()))):
            factor, offset = rules.conversion(rule, code, unit) or (None, None)
            pairs.append(((code, place, factor, offset, rule.value, bool(rule.texts)), rule.texts))
        yield str(rule), pairs


def _of_items(regex: str, codes: Iterable[str]) -> Iterator[_Pair]:
    """Codes that hold an item of `items.yaml`."""
    known, pattern = items(), re.compile(regex)
    for code in codes:
        found = pattern.search(code)
        item = known.items.get(int(found["item"])) if found and found["item"].isdecimal() else None
        if found is None or item is None:
            continue
        factor, offset = known.conversion(item, found["unit"] or "") or (None, None)
        coded = known.coded.get(item.feature, {})
        yield (code, item.feature, factor, offset, None, bool(coded)), coded


def _roles(mapping: Mapping, codes: Iterable[str],
           parents: Parents) -> tuple[list[tuple[str, str, str | None]], list[str]]:
    asked: dict[str, tuple[Rule, ...]] = {
        "birth": mapping.birth, "death": mapping.death, "female": mapping.sex.female, "male": mapping.sex.male,
        "stays.begin": mapping.stays.begin, "stays.end": mapping.stays.end}
    if mapping.admissions is not None:
        asked |= {"admissions.begin": mapping.admissions.begin, "admissions.end": mapping.admissions.end,
                  "admissions.died": mapping.admissions.died}
    rows, silent = [], []
    for role, rules in asked.items():
        for rule in rules:
            matched = [code for code in codes if rule.matches(code, parents.get(code, ()))]
            silent += [] if matched else [f"{role}, {rule}"]
            rows += [(code, role, None if rule.text is None else rule.text.strip().lower()) for code in matched]
    return rows, silent
