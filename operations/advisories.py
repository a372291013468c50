"""Known weaknesses of the pinned packages, from an advisory file that lies on this machine: no network is asked.

In: requirements with pins and a JSON file of advisories. Out: the pins that an advisory names. The file is a list of
entries in the Open Source Vulnerability format (ossf.github.io/osv-schema), as public databases give it out for PyPI:
`id`, `summary`, and under `affected` the package's name and its versions or ranges (`introduced`, `fixed`,
`last_affected`). `python -m operations.advisories ADVISORIES [REQUIREMENTS...]` prints them; exit code 1 if there are
any, 2 if a file cannot be read. A finding can be accepted, for a reason, in `requirements/accepted_advisories.json`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from contracts.errors import DataError, EagRlError, MissingFileError
from operations.pins import pins

ROOT = Path(__file__).resolve().parents[1]
ACCEPTED = ROOT / "requirements" / "accepted_advisories.json"
_OLD_DAYS = 30.0
_FORM = "a JSON list of OSV entries: [{id, summary, affected: [{package: {name}, versions | ranges}]}]"


@dataclass(frozen=True)
class Finding:
    """A pinned package that an advisory names."""

    package: str
    version: str
    advisory: str
    summary: str
    fixed: str


def audit(pinned: Mapping[str, str], advisories: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """The pins that advisories name, in order of package and advisory.

    Args:
        pinned: package to version.
        advisories: OSV entries; withdrawn ones are passed over.

    Raises:
        DataError: an entry has not the form.
    """
    versions = {str(canonicalize_name(name)): version for name, version in pinned.items()}
    found = set()
    for entry in advisories:
        if entry.get("withdrawn"):
            continue
        for name, affected in _affected(entry):
            version = versions.get(name)
            if version is not None and _hit(Version(version), affected):
                found.add(Finding(name, version, str(entry["id"]), str(entry.get("summary", "")), _fixed(affected)))
    return sorted(found, key=lambda one: (one.package, one.advisory))


def read_advisories(path: Path) -> list[dict[str, Any]]:
    """The entries of an advisory file.

    Raises:
        MissingFileError: there is none.
        DataError: it is not of the form.
    """
    if not path.is_file():
        raise MissingFileError(f"no advisory file {path}", _FORM, "export the advisories of PyPI from a public OSV "
                               "database on a machine with a network, and bring the file here")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is no JSON", _FORM, "export it again") from error
    if not isinstance(values, list) or not all(isinstance(entry, dict) for entry in values):
        raise DataError(f"{path} holds no list of entries", _FORM, "export it again")
    return values


def accepted(path: Path = ACCEPTED) -> dict[str, str]:
    """Advisories that somebody looked at and accepted: id to the reason.

    Raises:
        DataError: an entry has no reason.
    """
    values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    bare = [name for name, reason in values.items() if not str(reason).strip()]
    if bare:
        raise DataError(f"{path}: {bare} without a reason", "who accepts an advisory says why", "write the reason")
    return {str(name): str(reason) for name, reason in values.items()}


def _affected(entry: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        for affected in entry["affected"]:
            if affected["package"].get("ecosystem", "PyPI") == "PyPI":
                yield str(canonicalize_name(affected["package"]["name"])), affected
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"advisory {entry.get('id', '?')!r} lacks {error}", _FORM, "export the file again") from error


def _hit(version: Version, affected: Mapping[str, Any]) -> bool:
    if any(_same(version, text) for text in affected.get("versions", ())):
        return True
    return any(_within(version, one.get("events", ())) for one in affected.get("ranges", ())
               if one.get("type") != "GIT")


def _within(version: Version, events: Sequence[Mapping[str, str]]) -> bool:
    """Whether a version lies in a range: the latest event at or below it decides (OSV, "Evaluation")."""
    inside = False
    for kind, bound in sorted(((kind, _version(text)) for event in events for kind, text in event.items()
                               if kind in ("introduced", "fixed", "last_affected")),
                              key=lambda event: (event[1], event[0] == "introduced")):
        if kind == "introduced" and version >= bound:
            inside = True
        elif (kind == "fixed" and version >= bound) or (kind == "last_affected" and version > bound):
            inside = False
    return inside


def _version(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion as error:
        raise DataError(f"version {text!r} in an advisory", "versions as PyPI writes them", "export the file again"
                        ) from error


def _same(version: Version, text: str) -> bool:
    try:
        return Version(text) == version
    except InvalidVersion:  # some old entries list what was never a version
        return False


def _fixed(affected: Mapping[str, Any]) -> str:
    versions = [event["fixed"] for one in affected.get("ranges", ()) if one.get("type") != "GIT"
                for event in one.get("events", ()) if "fixed" in event]
    return ", ".join(dict.fromkeys(versions))


def main(arguments: Sequence[str]) -> int:
    """The command line; see the module's own words."""
    path = Path(arguments[0])
    files = [Path(name) for name in arguments[1:]] or sorted((ROOT / "requirements").glob("*.txt"))
    try:
        advisories, spared = read_advisories(path), accepted()
        age = (time.time() - path.stat().st_mtime) / 86400.0
        pinned = {file.name: {pin.name: pin.version for pin in pins(file)} for file in files}
        found = {name: audit(versions, advisories) for name, versions in pinned.items()}
    except EagRlError as error:
        print(f"error: {error.value}\n next: {error.next_step}", file=sys.stderr)
        return error.exit_code
    open_ones = 0
    for name, findings in found.items():
        for one in findings:
            reason = spared.get(one.advisory)
            open_ones += reason is None
            word = f"fixed in {one.fixed or 'none yet'}" if reason is None else f"accepted: {reason}"
            print(f"{name}: {one.package} {one.version}: {one.advisory} {one.summary} ({word})")
    total = sum(map(len, pinned.values()))
    print(f"{len(advisories)} advisories, {age:.0f} days old{' (get newer ones)' if age > _OLD_DAYS else ''}; "
          f"{total} pins in {len(files)} files; {open_ones} to mend")
    return 1 if open_ones else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
