"""From the codes of a MEDS dataset to stays and features: a YAML file, read and checked as a whole.

In: the name of a shipped mapping or a path. Out: a frozen `Mapping`. A rule names its codes by exactly one of

    code: HR                exactly this code
    prefix: LAB//GLU//      codes that begin so
    regex: '^HR(//.*)?$'    codes in which this is found
    parent: LOINC/8867-4    codes of which metadata/codes.parquet says that this is their parent, or a parent's

and may ask for a `text` (of text_value). The file holds, of such rules, `birth`, `death`, `sex: {female, male}`,
`stays: {begin, end}`, `admissions: {begin, end, died}` (none: a stay is its own admission) and
`features: {<feature>: {codes, units}}`. A rule of a feature besides says the unit of its values: `unit: mmol/L` for all
of them, or in the code, after the prefix (`unit_follows: true`) or as the group `unit` of the regex. A unit that is not
the catalogue's (in any spelling of items.yaml) needs a line in `units: {mmol/L: [18.0156, 0]}` (value * factor +
offset). Or the rule gives `factor` and `offset` itself. `texts: {slow: 1}` are values of coded texts, `value: 1` is
that of an event that says it all by its code. `sums` and `fractions` are those of `ehr.sources.mimic_iv.items`; `items`
takes all of it from there, by the groups `item` and `unit` of its regex.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from configs.schema import Section
from contracts.errors import ConfigError
from contracts.features import catalogue
from ehr.sources.mimic_iv.items import items

_FOLDER = Path(__file__).parent
_PAGE = "see the head of ehr/sources/meds/mapping.py and ehr/sources/meds/mimic_iv.yaml"
_WAYS = ("code", "prefix", "regex", "parent")
Conversion = tuple[float, float]


class Rule(Section):
    """Codes, by exactly one of `code`, `prefix`, `regex` and `parent`; where `text` is given, only events with it."""

    code: str | None = Field(None, min_length=1)
    prefix: str | None = Field(None, min_length=1)
    regex: str | None = Field(None, min_length=1)
    parent: str | None = Field(None, min_length=1)
    text: str | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Rule:
        if sum(getattr(self, way) is not None for way in _WAYS) != 1:
            raise ValueError(f"a rule has exactly one of {', '.join(_WAYS)}")
        if self.regex is not None:
            _compiled(self.regex)
        return self

    def __str__(self) -> str:
        kind = next(name for name in _WAYS if getattr(self, name) is not None)
        return f"{kind} {getattr(self, kind)!r}"

    def matches(self, code: str, parents: Collection[str] = ()) -> bool:
        """Whether this rule speaks of the code, which has these parents."""
        if self.code is not None:
            return code == self.code
        if self.prefix is not None:
            return code.startswith(self.prefix)
        if self.parent is not None:
            return self.parent in parents
        return self.regex is not None and re.search(self.regex, code) is not None


class FeatureRule(Rule):
    """Codes whose values are a feature, and their unit."""

    unit: str | None = None
    unit_follows: bool = False
    factor: float | None = None
    offset: float = 0.0
    value: float | None = None
    texts: dict[str, float] = {}

    @model_validator(mode="after")
    def _one_unit(self) -> FeatureRule:
        if self.unit_follows and self.prefix is None:
            raise ValueError("unit_follows needs a prefix")
        if self.unit is not None and self.unit_in_code:
            raise ValueError("the unit is fixed or in the code, not both")
        if self.factor is None and self.offset:
            raise ValueError("offset needs a factor")
        if self.factor is not None and (self.unit is not None or self.unit_in_code):
            raise ValueError("a rule has a factor or a unit, not both")
        if self.text is not None:
            raise ValueError("a rule of a feature has `texts`, no `text`")
        if len({text.strip().lower() for text in self.texts}) < len(self.texts):
            raise ValueError("a text stands twice (case and blanks around it do not count)")
        return self

    @property
    def unit_in_code(self) -> bool:
        """Whether the code names the unit."""
        return self.unit_follows or (self.regex is not None and "unit" in re.compile(self.regex).groupindex)

    def unit_of(self, code: str) -> str | None:
        """The unit as written; None where nothing is said and the catalogue's counts."""
        if self.unit_follows and self.prefix is not None:
            return code[len(self.prefix):]
        if self.unit_in_code:
            found = re.search(self.regex or "", code)
            return found["unit"] or "" if found else None
        return self.unit


class FeatureRules(Section):
    """All codes of one feature, and conversions to the unit of the catalogue."""

    codes: tuple[FeatureRule, ...] = Field(min_length=1)
    units: dict[str, Conversion] = {}

    def conversion(self, rule: FeatureRule, code: str, ours: str) -> Conversion | None:
        """Factor and offset of the values of a code; None where nobody knows its unit."""
        if rule.factor is not None:
            return rule.factor, rule.offset
        said = rule.unit_of(code)
        if said is None:
            return 1.0, 0.0
        written, known = said.strip().lower(), {name.strip().lower(): pair for name, pair in self.units.items()}
        if written in known:
            return known[written]
        return (1.0, 0.0) if written == ours.lower() or ours in items().spelt.get(written, ()) else None


class Between(Section):
    """Codes that begin and end something."""

    begin: tuple[Rule, ...] = Field(min_length=1)
    end: tuple[Rule, ...] = Field(min_length=1)


class Admissions(Between):
    """Codes of admissions; `died` are those ends that say that the patient died."""

    died: tuple[Rule, ...] = ()


class Sexes(Section):
    """Codes of both sexes."""

    female: tuple[Rule, ...] = Field(min_length=1)
    male: tuple[Rule, ...] = Field(min_length=1)


class Borrowed(Section):
    """Codes that hold an item id of MIMIC-IV: the groups `item` and `unit` of the regex."""

    of: Literal["mimic_iv"]
    regex: str

    @model_validator(mode="after")
    def _has_groups(self) -> Borrowed:
        if not {"item", "unit"} <= set(_compiled(self.regex).groupindex):
            raise ValueError("the regex of items has the groups (?P<item>...) and (?P<unit>...)")
        return self


class Mapping(Section):
    """What the codes of a dataset mean."""

    catalogue: Literal["mimic_iv", "tjh"] = "mimic_iv"
    birth: tuple[Rule, ...] = Field(min_length=1)
    death: tuple[Rule, ...] = ()
    sex: Sexes
    stays: Between
    admissions: Admissions | None = None
    death_tolerance_hours: Annotated[float, Field(ge=0.0, le=48.0)] = 0.0
    oldest_age: float | None = Field(None, ge=18.0)
    items: Borrowed | None = None
    features: dict[str, FeatureRules] = {}
    sums: dict[str, tuple[str, ...]] = {}
    fractions: dict[str, tuple[float, float]] = {}

    @model_validator(mode="after")
    def _features_are_known(self) -> Mapping:
        if not self.features and self.items is None:
            raise ValueError("it maps no code to any feature: give `features` or `items`")
        if not self.death and not (self.admissions and self.admissions.died):
            raise ValueError("no outcome: give `death` or `admissions.died`")
        if self.items is not None and self.catalogue != self.items.of:
            raise ValueError(f"items of {self.items.of} are of catalogue {self.items.of}, not {self.catalogue}")
        known = catalogue(self.catalogue)
        named = [*self.features, *self.sums, *(part for parts in self.sums.values() for part in parts), *self.fractions]
        unknown = sorted({name for name in named if name not in known.names})
        if unknown:
            raise ValueError(f"unknown feature {', '.join(map(repr, unknown))}; features of catalogue {known.name}: "
                             f"{', '.join(known.names)}")
        for name, rules in self.features.items():
            for rule in rules.codes:
                if rule.unit is not None and rules.conversion(rule, "", known[name].unit) is None:
                    raise ValueError(f"{name}, {rule}: unit {rule.unit!r} is not that of the catalogue "
                                     f"({known[name].unit!r}) and has no line in `units`")
        return self


def mapping_file(name: str) -> Path:
    """The file of a shipped mapping or a path.

    Raises:
        ConfigError: there is no such file.
    """
    for path in (_FOLDER / f"{name}.yaml", Path(name)):
        if path.is_file():
            return path
    shipped = ", ".join(sorted(path.stem for path in _FOLDER.glob("*.yaml")))
    raise ConfigError(f"no mapping {name!r}", f"a YAML file, or one of: {shipped}", "correct cohort.meds.mapping")


def read_mapping(name: str) -> Mapping:
    """Reads a mapping.

    Raises:
        ConfigError: no file, no YAML, or any entry is wrong (all are named).
    """
    path = mapping_file(name)
    try:
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name} is no YAML: {error}", "a mapping is a YAML file", f"edit {path}") from error
    if not isinstance(values, dict) or not values:
        raise ConfigError(f"{path.name} maps nothing", "a mapping names birth, sex, stays, death and features", _PAGE)
    try:
        return Mapping.model_validate(values)
    except ValidationError as error:
        places = [f"{'.'.join(map(str, entry['loc'])) or 'mapping'}: {entry['msg'].removeprefix('Value error, ')}"
                  for entry in error.errors()]
        raise ConfigError(f"{path.name}: {'; '.join(places)}", "codes, stays and features as the mapping's form asks",
                          f"edit {path.name}; {_PAGE}") from error


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
