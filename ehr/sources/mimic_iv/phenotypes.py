"""Phenotypes: groups of ICD-9-CM and ICD-10-CM codes as prefixes (`phenotypes.yaml`), and which codes belong to which.

In: codes as hospitals write them. Out: the phenotypes of each. Prefixes are matched by one join for each length of
prefix, over distinct codes, so a table of any size costs what its distinct codes cost.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from contracts.errors import ContractError

_FILE = Path(__file__).with_name("phenotypes.yaml")
VERSIONS = (9, 10)
TYPES = ("acute", "chronic", "mixed")
# The form of a whole code, without its dot.
FORMS: Mapping[int, str] = {9: r"^(?:\d{3,5}|V\d{2,4}|E\d{3,4})$", 10: r"^[A-Z]\d[0-9A-Z]{1,5}$"}
_PREFIX = re.compile(r"[A-Z]?\d[0-9A-Z]*")


@dataclass(frozen=True)
class Phenotypes:
    """All phenotypes.

    Attributes:
        types: name to acute, chronic or mixed, by name.
        rules: version (Int64), prefix, name, belongs (false: codes of this prefix are taken out again).
    """

    types: Mapping[str, str]
    rules: pl.DataFrame = field(repr=False)

    def of_codes(self, codes: pl.DataFrame) -> pl.DataFrame:
        """Which codes belong to which phenotypes.

        Args:
            codes: version (Int64) and code (see `plain`), in any number and order.

        Returns:
            version, code, name: one row for each distinct code and phenotype that it belongs to, in that order.
        """
        distinct = codes.select("version", "code").unique()
        rules = self.rules.with_columns(pl.col("prefix").str.len_bytes().alias("length"))
        matched = [distinct.with_columns(pl.col("code").str.slice(0, length).alias("prefix")).join(
            some.drop("length"), on=["version", "prefix"]) for (length,), some in rules.group_by("length")]
        every = pl.concat(matched).group_by("version", "code", "name").agg(pl.col("belongs").all())
        return every.filter("belongs").drop("belongs").sort("version", "code", "name")


def plain(column: str) -> pl.Expr:
    """A code in capitals without dots and blanks: " 428.0 " and "428.0" are 4280, "i50.9" is I509; null is ""."""
    return pl.col(column).fill_null("").str.replace_all(r"[\s.]", "").str.to_uppercase()


@cache
def phenotypes() -> Phenotypes:
    """Reads `phenotypes.yaml`.

    Raises:
        ContractError: a type or prefix is not one, or a prefix stands twice in a phenotype.
    """
    entries: dict[str, dict[str, Any]] = yaml.safe_load(_FILE.read_bytes())["phenotypes"]
    rows = [(version, prefix, name, belongs) for name, entry in sorted(entries.items())
            for version, prefix, belongs in _prefixes(name, entry)]
    rules = pl.DataFrame(rows, orient="row", schema={"version": pl.Int64, "prefix": pl.String, "name": pl.String,
                                                     "belongs": pl.Boolean})
    twice = rules.filter(rules.select("version", "prefix", "name").is_duplicated())
    if twice.height:
        raise ContractError(f"phenotypes.yaml: {twice['prefix'][0]} stands twice in {twice['name'][0]!r}",
                            "each prefix stands once in a phenotype", "correct phenotypes.yaml")
    return Phenotypes({name: str(entry["type"]) for name, entry in sorted(entries.items())}, rules)


def _prefixes(name: str, entry: Mapping[str, Any]) -> Iterator[tuple[int, str, bool]]:
    if entry["type"] not in TYPES:
        raise ContractError(f"phenotypes.yaml: {name!r} is of type {entry['type']!r}", f"one of {', '.join(TYPES)}",
                            "correct phenotypes.yaml")
    for version in VERSIONS:
        for key, belongs in ((f"icd{version}", True), (f"icd{version}_without", False)):
            # Quoted in the file: as a number, 0031 would lose its zeros.
            text = entry.get(key, "")
            if not isinstance(text, str) or not all(_PREFIX.fullmatch(prefix) for prefix in text.split()):
                raise ContractError(f"phenotypes.yaml: {key} of {name!r} is {text!r}",
                                    "prefixes in quotes, in capitals, without dots, separated by blanks",
                                    "correct phenotypes.yaml")
            yield from ((version, prefix, belongs) for prefix in text.split())
