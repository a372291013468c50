"""When an extract in the landing folder counts as arrived, and why another never does. Pure: looks and facts go in,
a judgement comes out.

Complete is a folder whose checksum file fits, or, without one, whose files have been unchanged for a set time. Of the
complete ones, what was there before is a duplicate; what has a lower version, or perhaps the same and an earlier date
in its name, than any that arrived is older; so is, of those that are complete at once and cannot be told apart, each
but one; what the reader of its source refuses is broken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

SUMS = "SHA256SUMS.txt"
Status = Literal["waiting", "arrived", "duplicate", "older", "broken"]
# Names under which copying programs write before they rename.
_UNFINISHED = re.compile(r"(^|/)\.[^/]+\.\w{6}$|\.(part|partial|filepart|tmp|crdownload)$|~$", re.IGNORECASE)
_DATE = re.compile(r"(?<!\d)(20\d\d)-?(0[1-9]|1[0-2])-?(0[1-9]|[12]\d|3[01])(?!\d)")
_SUM = re.compile(r"([0-9a-fA-F]{64})\s+\*?(.+)")


@dataclass(frozen=True)
class Look:
    """One look at the folder of an extract.

    Attributes:
        files: relative path to what is another once the file is (size, time of change).
        sums: relative path to sha256, of its checksum file; None: it has none.
        looks: how many looks in a row found these files.
        unchanged: since the first of them [s].
    """

    files: Mapping[str, str]
    sums: Mapping[str, str] | None
    looks: int
    unchanged: float


@dataclass(frozen=True)
class Release:
    """What a complete extract is: digest of the files that are read, version ("" = unknown, "2.1+" = a lower bound),
    date in its name ("" = none)."""

    digest: str
    version: str = ""
    date: str = ""


@dataclass(frozen=True)
class Judgement:
    """What an extract is, and why."""

    status: Status
    reason: str


def sums_of(text: str) -> dict[str, str]:
    """Relative path to sha256, of a file as `sha256sum` writes it; other lines are passed over."""
    found = (_SUM.fullmatch(line.strip()) for line in text.splitlines())
    return {hit.group(2).removeprefix("./"): hit.group(1).lower() for hit in found if hit}


def unfinished(look: Look, stable: float, digest: Callable[[str], str]) -> Judgement | None:
    """Why an extract is not complete: still waited for, or broken since nothing has changed for long; None: complete.

    Args:
        stable: how long files must be unchanged [s].
        digest: sha256 of a file by its relative path; asked only once the files hold still.
    """
    if not look.files:
        return Judgement("waiting", "the folder is empty")
    if look.looks < 2:
        return Judgement("waiting", "half-copied: its files still change")
    lack = _lack(look, digest)
    if lack is not None:
        still = look.unchanged >= stable
        return Judgement("broken" if still else "waiting", f"{lack}; unchanged for {look.unchanged:.0f} s" if still
                         else f"half-copied: {lack}")
    if look.sums is None and look.unchanged < stable:
        return Judgement("waiting", f"no {SUMS}: its files count as complete when unchanged for {stable:.0f} s")
    return None


def newness(release: Release, known: Iterable[tuple[str, Release]]) -> Judgement:
    """Whether a complete extract is new.

    Args:
        known: name and release of each extract that arrived before.
    """
    earlier = list(known)
    same = next((other for other, one in earlier if one.digest == release.digest), None)
    if same is not None:
        return Judgement("duplicate", f"its files are those of {same}, byte for byte")
    for other, one in earlier:
        if _lower(release.version, one.version):
            return Judgement("older", f"version {release.version} is lower than {one.version} of {other}")
        perhaps_same = not _lower(one.version, release.version)
        if perhaps_same and release.date and one.date and release.date < one.date:
            return Judgement("older", f"its date {release.date} is before {one.date} of {other}")
    return Judgement("arrived", "complete and new" + (f", version {release.version}" if release.version else "")
                     + (f", of {release.date}" if release.date else ""))


def newness_together(releases: Mapping[str, Release], known: Iterable[tuple[str, Release]]) -> dict[str, Judgement]:
    """Whether extracts that are complete at once are new, in the order in which to record it.

    Of those that neither version nor date tells apart, only the one whose name comes last is new. What is new stands
    last: whoever is cut off in between has not yet heard of it, and the others are out of the way.

    Args:
        releases: by place.
        known: as of `newness`.
    """
    earlier, found = list(known), dict[str, Judgement]()
    for place in newest_first(releases):
        verdict = newness(releases[place], earlier)
        arrived = [other for other, one in found.items() if one.status == "arrived"]
        rival = next((other for other in arrived if _alike(releases[place], releases[other])), None)
        if verdict.status == "arrived" and rival is not None:
            verdict = Judgement("older", f"arrived together with {_name(rival)}, whose version, date or name comes "
                                         "later")
        if verdict.status == "arrived":
            earlier.append((_name(place), releases[place]))
        found[place] = verdict
    return dict(sorted(found.items(), key=lambda entry: entry[1].status == "arrived"))


def date_in(name: str) -> str:
    """The date in a name (2026-11-21 or 20261121) as 2026-11-21, "" without one."""
    found = _DATE.search(name)
    return "-".join(found.groups()) if found else ""


def newest_first(releases: Mapping[str, Release]) -> list[str]:
    """Names, newest release first, so that of two that arrive together the older one is never studied; numbers in names
    count as numbers: extract-10 comes after extract-9."""
    return sorted(releases, key=lambda name: (_number(releases[name].version), releases[name].date, _parts(name)),
                  reverse=True)


def _lack(look: Look, digest: Callable[[str], str]) -> str | None:
    """What is missing or does not fit; None: nothing."""
    open_files = sorted(name for name in look.files if _UNFINISHED.search(name))
    if open_files:
        return f"{open_files[0]} is the unfinished file of a copying program"
    if look.sums is None:
        return None
    if not look.sums:
        return f"{SUMS} names no file"
    missing = sorted(set(look.sums) - set(look.files))
    if missing:
        return f"{len(missing)} of {len(look.sums)} files of {SUMS} are missing ({missing[0]})"
    wrong = next((name for name, wanted in sorted(look.sums.items()) if digest(name) != wanted), None)
    return f"the sha256 of {wrong} is not that of {SUMS}" if wrong else None


def _exact(version: str) -> bool:
    """Whether the version is known, and not only a lower bound ("2.1+")."""
    return bool(version) and not version.endswith("+")


def _lower(version: str, other: str) -> bool:
    """Whether a version is surely lower than another, of which a lower bound is enough."""
    return _exact(version) and _number(version) < _number(other)


def _alike(release: Release, other: Release) -> bool:
    """Whether version and date leave open which of two is the newer."""
    return all(newness(one, [("", another)]).status == "arrived"
               for one, another in ((release, other), (other, release)))


def _parts(name: str) -> list[tuple[str, int]]:
    """A name as the texts and numbers that it is made of, for comparing."""
    return [(text, int(digits or 0)) for text, digits in re.findall(r"([^0-9]*)([0-9]*)", name)]


def _name(place: str) -> str:
    return place.rstrip("/").rpartition("/")[2]


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
