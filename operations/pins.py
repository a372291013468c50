"""Are the packages of this environment those that are pinned, and whole?

In: a requirements file with pins (`requirements/cpu.txt`). Out: the pins of this machine and what is wrong with them.
Nothing but the standard library and `packaging` (or pip's copy of it) is imported, since `scripts/setup` asks these
questions of an environment that may be half installed:

- `python -I operations/pins.py requirements/cpu.txt` prints the names of packages to install again, exits 1 if there
  are any;
- `python -I operations/pins.py --forget` removes the records of installed packages that an installer would stumble
  over, so that it sees them as absent.
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

try:
    from packaging.markers import Marker
except ImportError:  # half installed: pip brings a copy
    from pip._vendor.packaging.markers import Marker  # type: ignore[assignment]

_PIN = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^\s;\\]+)\s*(?:;\s*(?P<marker>[^\\]+))?")


@dataclass(frozen=True)
class Pin:
    """One pinned package that this machine needs."""

    name: str
    version: str


@dataclass(frozen=True)
class Drift:
    """A pin that this environment does not keep; `found` says what is there instead."""

    pin: Pin
    found: str


def pins(requirements: Path) -> list[Pin]:
    """The pins of a requirements file whose markers hold here, by name.

    Raises:
        OSError: the file cannot be read.
    """
    matches = (_PIN.match(line) for line in requirements.read_text(encoding="utf-8").splitlines())
    return [Pin(match["name"], match["version"]) for match in matches
            if match and (match["marker"] is None or Marker(match["marker"].strip()).evaluate())]


def drifts(wanted: list[Pin], files: bool = False) -> Iterator[Drift]:
    """Compares pins with what is installed.

    Args:
        wanted: the pins.
        files: look also for every file that a package recorded at its installation (its presence, not its content).
    """
    for pin in wanted:
        found = _found(pin, files)
        if found != pin.version:
            yield Drift(pin, found)


def _found(pin: Pin, files: bool) -> str:
    try:
        distribution = importlib.metadata.distribution(pin.name)
        version = distribution.version
    except (importlib.metadata.PackageNotFoundError, KeyError, OSError):
        return "not installed"
    if not version:
        return "no version (its metadata is damaged)"
    if files:
        recorded = distribution.files
        if recorded is None:
            return "no list of its files"
        for path in recorded:
            if path.suffix != ".pyc" and not Path(str(distribution.locate_file(path))).exists():
                return f"its file {path} is missing"
    return version


def unreadable(site_packages: Path) -> list[Path]:
    """The `*.dist-info` folders without a readable name, version or list of files: cut off while being written."""
    return [folder for folder in sorted(site_packages.glob("*.dist-info"))
            if not {"Name", "Version"} <= _headers(folder / "METADATA") or not _filled(folder / "RECORD")]


def _filled(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _headers(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n\n", 1)[0].splitlines()
    return {line.partition(":")[0] for line in lines if ": " in line}


def main(arguments: list[str]) -> int:
    """What the module header says of the command line."""
    if arguments == ["--forget"]:
        for folder in unreadable(Path(sysconfig.get_path("purelib"))):
            shutil.rmtree(folder)
        return 0
    found = list(drifts(pins(Path(arguments[0])), files=True))
    for drift in found:
        print(drift.pin.name)
        print(f"{drift.pin.name}=={drift.pin.version}: {drift.found}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
