"""From free text to canonical features: which features of the catalogue a text mentions, and where.

In: any text; out: `Mention`s with character spans (`find`), or the canonical names of a list (`canonical_names`).
Everything is prepared when the finder is made; `find` walks the text once.

How words are compared. Text and aliases are cut into runs of Latin letters, runs of digits, single Greek letters and
the marks % # +; everything else only separates. So "IL-6", "il 6" and "IL6" are one; "TNFα" is "TNF-alpha"; "SpO₂" is
"SpO2". Letter case, plural endings and ae/e do not matter. At most three separating characters (blank, hyphen, slash,
bracket, &, quote, asterisk; never a full stop, comma or colon) lie between the words of one mention. The longest alias
that begins at a word wins, and mentions never overlap.

Decisions where words are ambiguous:

- Aliases of one letter ("K") count only as a whole list entry. Aliases of two letters, and those that are also English
  words (MAP, FIB, MONO), count in running text only as the catalogue spells them: "hr" is an hour, "pt" a patient.
  The canonical name itself counts in any case.
- "blood pressure", "pressure", "arterial pressure" and "hypotension" map to nothing: which one is not said. "Pulse
  pressure" is a difference of two and none of ours, an antibody against hepatitis B is not its antigen: these words are
  used up and name nothing.
- A bare cell name ("neutrophils") is the percentage; "bilirubin" is total bilirubin; "GCS" is the total; PCT is
  procalcitonin (see the catalogues).
- A condition that names one measurement is a mention of it ("tachycardia", "hyperkalemia", "fever").
- A whole list entry is matched as it stands, then without words like "low", "serum" or "level", then by the one
  feature that it mentions; last, by likeness: rapidfuzz ratio of at least 88 to an alias of six letters or more, with
  the same digits and words of one letter (hepatitis A, B and C are three) unless it is the same but for blanks, and at
  least 4 points ahead of any other feature. Short aliases are never matched by likeness.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from rapidfuzz import fuzz, process

from contracts.errors import ConfigError
from contracts.features import STATIC, Catalogue

LIKENESS, LEAD = 88.0, 4.0

_LATIN = "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f"
_WORD = re.compile(rf"[{_LATIN}]+|[0-9]+|[\u0391-\u03a9\u03b1-\u03c9]|(?<![0-9])(?<![0-9] )%|#|(?<=[A-Za-z0-9+])\+")
_GAP = re.compile(r"[\s()\[\]/&'\"*_-]{0,3}")
_INSIDE_WORD = re.compile(rf"[{_LATIN}0-9\u0391-\u03a9\u03b1-\u03c9]")
_DECIMALS = re.compile(r"\.[0-9]")
# One character for one, so that spans in the folded text are spans in the text.
_FOLD = str.maketrans("\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089\u2070\u00b9\u00b2\u00b3\u2074"
                      "\u2075\u2076\u2077\u2078\u2079\u207a\u208a\u207b\u208b\u2010\u2011\u2012\u2013\u2014\u2212\uff05"
                      "\uff0b\uff08\uff09\u00a0\u00b5",
                      "01234567890123456789++-------" "-%+() \u03bc")
_GREEK = {"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "κ": "kappa", "μ": "mu"}
_NOTHING = ""  # stands for the feature of words that name none of ours, though some of them alone would
_NAME_NOTHING = ("pulse pressure", "hepatitis B antibody", "hepatitis B surface antibody", "hepatitis B core antibody")
_ALSO_WORDS = frozenset({"map", "fib", "mono", "fer"})
_QUALIFIERS = """
    low lower high higher very elevated raised increased increasing decreased decreasing reduced rising falling abnormal
    normal mildly moderately severely markedly slightly severe mild moderate persistent persistently worsening improving
    stable unstable acute current latest last recent initial baseline serum plasma blood arterial level value reading
    measurement result trend status the patient of in a an is was with
"""
_SHORTEST_ALIKE, _LONGEST_ALIKE = 6, 80


@dataclass(frozen=True)
class Mention:
    """A feature named in a text, at characters [start, end)."""

    feature: str
    start: int
    end: int


class _Word(NamedTuple):
    key: str
    start: int
    end: int


@dataclass
class _Node:
    """One node of the trie of aliases: what ends here, and the words that may follow.

    `spellings` is None where any letter case counts.
    """

    feature: str | None = None
    spellings: set[str] | None = None
    following: dict[str, _Node] = field(default_factory=dict)


class MentionFinder:
    """Finds the features of one catalogue in text.

    Raises:
        ConfigError: an alias belongs to two features, or holds no word.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._exact: dict[tuple[str, ...], str] = {}
        self._root = _Node()
        self._qualifiers = frozenset(_key(word) for word in _QUALIFIERS.split())
        for feature in catalogue:
            for alias in (feature.name, *feature.aliases):
                self._learn(alias, feature.name, any_case=alias == feature.name)
        for alias in (STATIC, *catalogue.static_aliases):
            self._learn(alias, STATIC, any_case=True)
        for words in _NAME_NOTHING:
            self._learn(words, _NOTHING, any_case=True)
        self._alike = {" ".join(key): name for key, name in self._exact.items()
                       if sum(map(len, key)) >= _SHORTEST_ALIKE}

    def find(self, text: str) -> list[Mention]:
        """All mentions in the order of the text; spans never overlap."""
        folded = text.translate(_FOLD)
        words = _words(folded)
        mentions, position = [], 0
        while position < len(words):
            node = self._root.following.get(words[position].key)
            length, name = self._longest(folded, words, position, node) if node else (0, None)
            if name is None:
                position += 1
                continue
            if name != _NOTHING:
                start, end = _with_brackets(folded, words[position].start, words[position + length - 1].end)
                mentions.append(Mention(name, start, end))
            position += length
        return mentions

    def canonical(self, name: str) -> str | None:
        """The one feature that a list entry names, None if it names none or several (rules: module docstring)."""
        found = self._entry(name)
        return found[0] if len(found) == 1 else None

    def canonical_names(self, names: Iterable[str]) -> tuple[str, ...]:
        """Distinct features named by the entries of a list, in order.

        An entry that names several ("heart rate and pH") stands for all of them; one that names none stays, casefolded,
        so that naming junk enlarges the union of the attention reward.
        """
        found: dict[str, None] = {}
        for name in dict.fromkeys(names):
            for entry in self._entry(name) or (" ".join(name.casefold().split()),):
                found.setdefault(entry)
        return tuple(found)

    def _learn(self, alias: str, name: str, any_case: bool) -> None:
        folded = alias.translate(_FOLD)
        words = _words(folded)
        key = tuple(word.key for word in words)
        if not key:
            raise ConfigError(f"alias {alias!r} of {name!r}", "an alias holds a letter or digit",
                              "correct it in contracts/catalogues")
        if self._exact.setdefault(key, name) != name:
            raise ConfigError(f"alias {alias!r} of {name!r} and {self._exact[key]!r}", "an alias means one feature",
                              "remove it from one of them in contracts/catalogues")
        if len(folded) == 1:
            return
        node = self._root
        for part in key:
            node = node.following.setdefault(part, _Node())
        as_spelt = len(key) == 1 and (len(key[0]) <= 2 or key[0] in _ALSO_WORDS) and not any_case
        if not as_spelt:
            node.spellings = None
        elif node.feature is None:
            node.spellings = {folded[words[0].start:words[0].end]}
        elif node.spellings is not None:
            node.spellings.add(folded[words[0].start:words[0].end])
        node.feature = name

    def _longest(self, folded: str, words: list[_Word], position: int, node: _Node | None) -> tuple[int, str | None]:
        """Number of words and feature of the longest alias that begins at a word; (0, None) if there is none.

        The feature is _NOTHING for words that are known to name none.
        """
        length = 0
        best: tuple[int, str | None] = (0, None)
        if _continues(folded, words[position].start - 1):
            return best
        while node is not None:
            word = words[position + length]
            length += 1
            if node.feature is not None and _ends_here(folded, word) and (
                    node.spellings is None or folded[word.start:word.end] in node.spellings):
                best = (length, node.feature)
            if position + length == len(words):
                break
            following = words[position + length]
            joined = _GAP.fullmatch(folded, word.end, following.start)
            node = node.following.get(following.key) if joined else None
        return best

    def _entry(self, name: str) -> tuple[str, ...]:
        """The distinct features that one list entry names."""
        key = tuple(word.key for word in _words(name.translate(_FOLD)))
        plain = tuple(part for part in key if part not in self._qualifiers)
        whole = self._exact.get(key, self._exact.get(plain))
        if whole is not None:
            return (whole,) if whole != _NOTHING else ()
        mentioned = tuple(dict.fromkeys(mention.feature for mention in self.find(name)))
        if mentioned:
            return mentioned
        alike = self._likest(" ".join(plain))
        return (alike,) if alike else ()

    def _likest(self, name: str) -> str | None:
        if not _SHORTEST_ALIKE <= len(name) <= _LONGEST_ALIKE:
            return None
        best: dict[str, float] = {}
        for alias, score, _ in process.extract(name, self._alike.keys(), scorer=fuzz.ratio,
                                               score_cutoff=LIKENESS - LEAD, limit=None):
            if _telling(alias) == _telling(name) or alias.replace(" ", "") == name.replace(" ", ""):
                best[self._alike[alias]] = max(score, best.get(self._alike[alias], 0.0))
        ranked = sorted(best.items(), key=lambda item: -item[1])
        if not ranked or ranked[0][1] < LIKENESS:
            return None
        return ranked[0][0] if len(ranked) == 1 or ranked[0][1] - ranked[1][1] >= LEAD else None


def _words(folded: str) -> list[_Word]:
    return [_Word(_key(found.group()), *found.span()) for found in _WORD.finditer(folded)]


@lru_cache(maxsize=16_384)
def _key(word: str) -> str:
    """A word without letter case, plural ending and ae; a Greek letter by its name."""
    key = word.casefold()
    if key in _GREEK:
        return _GREEK[key]
    key = key.replace("ae", "e")
    if len(key) > 5 and key.endswith("ies"):
        return key[:-3] + "y"
    return key[:-1] if len(key) > 4 and key.endswith("s") and not key.endswith("ss") else key


def _telling(text: str) -> list[str]:
    """Digits and words of one letter: nothing is alike that differs in them."""
    return re.findall(r"[0-9]+|\b[^\W\d_]\b", text)


def _continues(folded: str, position: int) -> bool:
    """Whether the character at `position` belongs to a word."""
    return 0 <= position < len(folded) and _INSIDE_WORD.match(folded, position) is not None


def _ends_here(folded: str, word: _Word) -> bool:
    """Whether a mention may end with this word: no letter or digit follows, and a number is not cut at its point."""
    if _continues(folded, word.end) and word.key not in "%#+":
        return False
    return not (word.key.isdigit() and _DECIMALS.match(folded, word.end))


def _with_brackets(folded: str, start: int, end: int) -> tuple[int, int]:
    """Takes in a bracket that only one half of lies inside the span: "(%)lymphocyte", "neutrophils(%)"."""
    inside = folded[start:end]
    if inside.count("(") > inside.count(")") and folded[end:end + 1] == ")":
        return start, end + 1
    if inside.count(")") > inside.count("(") and folded[start - 1:start] == "(":
        return start - 1, end
    return start, end


