"""TRIPOD+AI and TRIPOD-LLM, pre-filled: what the study's artifacts say is filled in, the rest is asked of the authors.

In go facts of the study (`study_facts.facts`), out come the items of both checklists, and the same as Markdown. Items
lie in tripod_*.yaml, by the numbers of the published statements and in our own short words.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from contracts.errors import ConfigError
from evaluation import wording

FILES = ("tripod_ai.yaml", "tripod_llm.yaml")
FILLED, PARTLY, OPEN = "filled by software", "partly filled by software", "open"
NOTE = ("Items are told in short words of our own; the published statement and its explanation are decisive, also for "
        "numbers of sub-items. What the software filled in comes from the study's artifacts and must be checked by the "
        "authors. “Open” items only they can write.")


@dataclass(frozen=True)
class Item:
    """One item of a checklist.

    Attributes:
        number, part, says: which item, its heading, and what it asks for.
        status: `FILLED`, `PARTLY` or `OPEN`.
        filled: what the software says; "" where it has nothing to say.
        ask: what the authors have to write; "" where nothing is missing.
    """

    number: str
    part: str
    says: str
    status: str
    filled: str
    ask: str


@dataclass(frozen=True)
class Checklist:
    """A checklist with its source."""

    name: str
    source: str
    items: tuple[Item, ...]

    def counts(self) -> str:
        """How many items have which status, in words."""
        found = [item.status for item in self.items]
        return ", ".join(f"{found.count(status)} {status}" for status in (FILLED, PARTLY, OPEN))


def checklists(facts: Mapping[str, str | None], folder: Path = Path(__file__).parent) -> tuple[Checklist, ...]:
    """Both checklists, filled.

    Args:
        facts: name to words; None: the study does not know.

    Raises:
        ConfigError: an item names a fact that nobody knows of, or asks and fills nothing.
    """
    return tuple(_filled(yaml.safe_load((folder / name).read_text(encoding="utf-8")), facts) for name in FILES)


def _filled(values: Mapping[str, Any], facts: Mapping[str, str | None]) -> Checklist:
    return Checklist(values["name"], values["source"],
                     tuple(_item(one, facts, values["name"]) for one in values["items"]))


def _item(values: Mapping[str, str], facts: Mapping[str, str | None], name: str) -> Item:
    fill, ask = values.get("fill", ""), values.get("ask", "")
    wanted = [field for _, field, _, _ in string.Formatter().parse(fill) if field]
    odd = sorted(set(wanted) - set(facts))
    if odd or not (fill or ask):
        raise ConfigError(f"{name} item {values['item']} names {odd or 'nothing to fill or ask'}",
                          f"an item fills or asks; facts are {', '.join(sorted(facts))}", "edit the YAML file")
    known = all(facts[field] is not None for field in wanted)
    filled = " ".join(fill.format(**facts).split()) if fill and known else ""
    status = OPEN if not filled else PARTLY if ask else FILLED
    missing = ask or ("" if filled else "Write; this study's artifacts do not say.")
    return Item(values["item"], values["part"], values["says"], status, filled, missing)


def markdown(found: Sequence[Checklist], study: str) -> str:
    """Both checklists as a Markdown file."""
    parts = [f"# Reporting checklists of study {study}", NOTE]
    for one in found:
        rows = [[item.number, item.part, item.says, item.status, _line(item.filled), _line(item.ask)]
                for item in one.items]
        parts += [f"## {one.name}", f"{one.source}. {one.counts()}.",
                  wording.markdown((["Item", "Part", "Asks for", "Status", "Filled by software", "To be written"],
                                    rows))]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _line(text: str) -> str:
    return text.replace("<", "&lt;") or wording.NONE
