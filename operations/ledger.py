"""The ledger of a workspace's landing folders: what was seen of each extract, what became of it and why, one JSON line
each.

Lines are only ever added, whole and flushed to the disk; a line torn by a power cut is passed over. What was looked at
last lies beside it, so that a watch that starts again knows for how long an extract's files have been unchanged.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from contracts.errors import StorageError
from operations.arrivals import Release

JUDGED = ("waiting", "arrived", "duplicate", "older", "broken")
Row = dict[str, Any]
STUDYING, STUDIED, OFFERED = "studying", "studied", "offered"


class Ledger:
    """The ledger of one workspace.

    Args:
        workspace: holds `landing-ledger/`; made if missing.
        landing: the landing folder whose arrivals count; "": those of all. Lines of all of them stand in one file.

    Raises:
        StorageError: its folder cannot be made.
    """

    def __init__(self, workspace: Path, landing: str = "") -> None:
        self.landing = landing.rstrip("/")
        self.folder = workspace.resolve() / "landing-ledger"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{self.folder} cannot be made: {error.strerror}", "the workspace is a folder that can "
                               "be written", "correct its permissions, or set paths.workspace") from error
        self.file, self.looks_file = self.folder / "ledger.jsonl", self.folder / "looks.json"

    def rows(self) -> list[dict[str, Any]]:
        """All lines, oldest first."""
        if not self.file.is_file():
            return []
        found = []
        for line in self.file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(row, dict):
                found.append(row)
        return found

    def add(self, place: str, status: str, reason: str, **facts: Any) -> dict[str, Any]:
        """Adds a line about the extract at `place`."""
        row = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "extract": Path(place).name, "place": place,
               "status": status, "reason": reason, **facts}
        with FileLock(self.folder / "ledger.lock"), self.file.open("ab+") as stream:
            if stream.tell() and self.file.read_bytes()[-1:] != b"\n":
                stream.write(b"\n")  # ends a torn line
            stream.write(json.dumps(row, sort_keys=True).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        return row

    def last(self, place: str, statuses: tuple[str, ...]) -> dict[str, Any] | None:
        """The last line about a place with one of some statuses."""
        return _last(self.rows(), place, statuses)

    def releases(self) -> list[tuple[str, Release]]:
        """Name and release of each extract that arrived."""
        rows = self._arrivals(self.rows())
        return [(row["extract"], Release(row["digest"], row["version"], row["date"])) for row in rows]

    def newest(self) -> dict[str, Any] | None:
        """The last arrival."""
        return self._newest(self.rows())

    def _newest(self, rows: list[Row]) -> Row | None:
        return next(reversed(self._arrivals(rows)), None)

    def _arrivals(self, rows: list[Row]) -> list[Row]:
        return [row for row in rows if row["status"] == "arrived" and self._here(row["place"])]

    def _here(self, place: str) -> bool:
        """Whether a place lies in the landing folder that counts."""
        return not self.landing or place.rstrip("/").rpartition("/")[0] == self.landing

    def pending(self, place: str | None = None, study: str | None = None) -> dict[str, Any] | None:
        """The arrival of `place` (None: the newest one), if that is still to be studied.

        It is not once its study has ended well, another extract has arrived, or its files are no longer those that
        arrived: then its place has been judged again since.

        Args:
            study: whose study counts; None: any. A line that names no study counts for all.
        """
        return self._pending(self.rows(), place, study)

    def _pending(self, rows: list[Row], place: str | None, study: str | None) -> Row | None:
        newest = self._newest(rows)
        if newest is None or place not in (None, newest["place"]) or _last(rows, newest["place"], JUDGED) != newest:
            return None
        done = any(row["status"] == STUDIED and row["digest"] == newest["digest"] and _concerns(row, study)
                   for row in rows)
        return None if done else newest

    def untold(self, study: str) -> dict[str, Any] | None:
        """The arrival that is still to be studied, if no watch has told it to this study yet."""
        rows = self.rows()
        found = self._pending(rows, None, study)
        if found is None:
            return None
        since = rows[len(rows) - 1 - rows[::-1].index(found):]
        told = any(row["status"] in ("arrived", OFFERED) and row["place"] == found["place"] and _concerns(row, study)
                   for row in since)
        return None if told else found

    def begun(self, digest: str, study: str) -> dict[str, Any] | None:
        """The first line about a study of these files that says with what it is to be compared."""
        return next((row for row in self.rows() if row["status"] == STUDYING and row["digest"] == digest
                     and row.get("study") == study and "last" in row), None)

    def needed_artifacts(self) -> set[str]:
        """Ids of what the next comparisons read: all artifacts of each study's last line of a study that ended well, of
        the last one that became the champion, and what a study that has begun is to be compared with."""
        rows: dict[tuple[str, str], dict[str, Any]] = {}
        for row in self.rows():
            study = row.get("study", "")
            if row["status"] == STUDIED:
                rows[study, STUDIED] = row
                rows.pop((study, STUDYING), None)
                if row.get("champion"):
                    rows[study, "champion"] = row
            elif row["status"] == STUDYING:
                rows[study, STUDYING] = row
        return {one["id"] for row in rows.values() for named in ("artifacts", "last")
                for one in row.get(named, {}).values()}

    def looks(self) -> dict[str, dict[str, Any]]:
        """What the last look found: place to `listing`, `boot`, `since` (the first look at it) and `looks`."""
        try:
            found: dict[str, dict[str, Any]] = json.loads(self.looks_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found

    def keep_looks(self, looks: Mapping[str, Mapping[str, Any]]) -> None:
        """Records what the last look found; that of other landing folders stays."""
        with FileLock(self.folder / "ledger.lock"):
            others = {place: seen for place, seen in self.looks().items() if not self._here(place)}
            partial = self.looks_file.with_name(".looks.json.partial")
            partial.write_text(json.dumps({**others, **looks}), encoding="utf-8")
            partial.replace(self.looks_file)


def _last(rows: list[Row], place: str, statuses: tuple[str, ...]) -> Row | None:
    return next((row for row in reversed(rows) if row["place"] == place and row["status"] in statuses), None)


def _concerns(row: Mapping[str, Any], study: str | None) -> bool:
    """Whether a line is about a study, as lines are that name none."""
    return study is None or row.get("study", study) == study
