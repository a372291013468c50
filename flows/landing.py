"""One look into the landing folder: which extracts lie there, what each is, and what is new to say about it.

In: a configuration and the ledger. Out: rows added to the ledger and handed to `tell`. A folder of this machine and a
place of a store (fsspec) are looked at in the same way; a file that goes away meanwhile is a file that still changes.
"""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from configs.load import dump
from configs.schema import Config
from contracts.errors import ConfigError, DataError, EagRlError
from ehr.sources.mimic_iv.layout import open_extract
from ehr.sources.places import is_local, place_of, state_of
from lineage.artifact import content_digest, remembered_digest
from lineage.store import storage_errors
from operations.arrivals import SUMS, Judgement, Look, Release, date_in, newness_together, sums_of, unfinished
from operations.ledger import JUDGED, OFFERED, Ledger
from tasks.cohort import source_files
from tasks.session import Session, session_of

_PIECE = 1 << 20
_AGAIN = Judgement("arrived", "complete again: the files that arrived before are back")
Tell = Callable[[dict[str, Any]], None]


class Landing:
    """The landing folder of a configuration.

    Args:
        config: of the studies that new extracts get.
        tell: gets each new line of the ledger, before it is written there: what was told twice does no harm, what was
            never told would.

    Raises:
        ConfigError: the configuration reads no files.
        StorageError: the folder cannot be made.
    """

    def __init__(self, config: Config, tell: Tell) -> None:
        if config.cohort.source == "synthetic":
            raise ConfigError("cohort.source=synthetic", "extracts are watched of a source that reads files",
                              "name another configuration, such as mimic_iv_mortality")
        self.config, self.tell = config, tell
        self.workspace = Path(config.paths.workspace).resolve()
        self.folder = folder_of(config)
        self.ledger = Ledger(self.workspace, str(self.folder))
        if is_local(self.folder):
            with storage_errors(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)

    def look(self) -> None:
        """Looks at every extract once, and tells the newest arrival where only another study was told of it."""
        known, looks, complete = self.ledger.looks(), {}, {}
        for place in self._places():
            try:
                found = _files(place)
                seen = looks[str(place)] = _seen(known.get(str(place)), found)
                if self._judged(place, seen["listing"]):
                    continue
                verdict = self._unfinished(place, found, seen)
                release = None if verdict else self._release(place, found)
            except OSError as error:
                verdict, release = Judgement("waiting", f"half-copied: {type(error).__name__} while it was read"), None
            except EagRlError as error:
                verdict, release = Judgement("broken", f"{error.value}; {error.rule}"), None
            except Exception as error:  # noqa: BLE001 - what one place does to its reader may not keep others waiting
                verdict, release = Judgement("broken", f"{type(error).__name__} while it was read"), None
            if verdict is not None:
                self._say(place, verdict, looks.get(str(place), {}).get("listing", ""), None)
            elif release is not None:
                complete[str(place)] = release
        newest = self.ledger.newest() or {}
        for name, verdict in newness_together(complete, self.ledger.releases()).items():
            back = (newest.get("place"), newest.get("digest")) == (name, complete[name].digest)
            self._say(place_of(name), _AGAIN if back else verdict, looks[name]["listing"], complete[name])
        self.ledger.keep_looks(looks)
        self._offer()

    def _places(self) -> list[Path]:
        if not is_local(self.folder):
            self.folder.fs.invalidate_cache()  # type: ignore[attr-defined]  # drivers remember what they listed
        if not self.folder.exists():
            return []
        return sorted((place for place in self.folder.iterdir() if place.is_dir() and not place.name.startswith(".")),
                      key=str)

    def _judged(self, place: Path, listing: str) -> bool:
        """Whether these very files have had their final word, and nothing else was seen since."""
        last = self.ledger.last(str(place), JUDGED)
        return last is not None and last["status"] != "waiting" and last["listing"] == listing

    def _unfinished(self, place: Path, found: Mapping[str, Path], seen: Mapping[str, Any]) -> Judgement | None:
        sums = sums_of(found[SUMS].read_text(encoding="utf-8", errors="replace")) if SUMS in found else None
        look = Look({name: state_of(path) for name, path in found.items()}, sums, seen["looks"],
                    time.monotonic() - seen["since"])
        return unfinished(look, self.config.landing.stable_seconds, lambda name: self._digest(place / name))

    def _digest(self, path: Path) -> str:
        return remembered_digest(path, state_of(path), self.workspace / "cache" / "digests.json")

    def _release(self, place: Path, found: Mapping[str, Path]) -> Release:
        """What a complete extract is.

        Raises:
            EagRlError: the reader of its source refuses it.
        """
        session = _session(self.config, place)
        digest = digest_of(session)
        mimic = self.config.cohort.source == "mimic_iv"
        version = open_extract(session.data, self.config.cohort.mimic_iv.allow_extra_columns).version if mimic else ""
        if SUMS not in found:
            for name, path in found.items():
                _check_packed(name, path)
        return Release(digest, version, date_in(place.name))

    def _say(self, place: Path, verdict: Judgement, listing: str, release: Release | None) -> None:
        """Tells and records a judgement, one that only says "not yet" once for each reason."""
        last = self.ledger.last(str(place), JUDGED)
        if last is not None and (last["status"], last["reason"]) == (verdict.status, verdict.reason):
            return
        study = {"study": self.config.study.name} if verdict.status == "arrived" else {}
        facts = {"listing": listing, **study, **(vars(release) if release else {})}
        self.tell({"extract": place.name, "place": str(place), "status": verdict.status, "reason": verdict.reason,
                   **facts})
        self.ledger.add(str(place), verdict.status, verdict.reason, **facts)

    def _offer(self) -> None:
        """Tells an arrival in this folder that the watch of another study has judged, once."""
        study = self.config.study.name
        found = self.ledger.untold(study)
        if found is None:
            return
        self.tell({**found, "study": study})
        self.ledger.add(found["place"], OFFERED, f"told to the study {study} as well", study=study,
                        digest=found["digest"])


def folder_of(config: Config) -> Path:
    """The landing folder of a configuration."""
    return place_of(config.landing.folder or str(Path(config.paths.workspace).resolve() / "landing"))


def digest_of(session: Session) -> str:
    """Digest of an extract's files that are read; what else decides a cohort (a mapping) is none of them.

    Raises:
        DataError: the reader of its source refuses them.
    """
    return content_digest({name: digest for name, digest in source_files(session).items()
                           if not name.startswith("mapping/")})


def _files(place: Path) -> dict[str, Path]:
    """Relative path to place of each file under a folder."""
    root = str(place).rstrip("/") + "/"
    return {str(path).removeprefix(root): path for path in sorted(place.rglob("*"), key=str) if path.is_file()}


def _seen(before: Mapping[str, Any] | None, found: Mapping[str, Path]) -> dict[str, Any]:
    """This look as it is kept: the same files as before count on from there, unless the machine was started anew.

    `since` is of the clock that never jumps, which all processes of a machine share until it is started again.
    """
    listing, boot = content_digest({name: state_of(path) for name, path in found.items()}), _boot()
    if before is None or before["listing"] != listing or before.get("boot") != boot:
        return {"listing": listing, "boot": boot, "since": time.monotonic(), "looks": 1}
    return {**before, "looks": before["looks"] + 1}


def _boot() -> str:
    """Which start of the machine this is."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()


def _session(config: Config, place: Path) -> Session:
    return session_of({**dump(config), "paths": {**dump(config.paths), "data": str(place)}})


def _check_packed(name: str, path: Path) -> None:
    """Reads a packed file to its end, which no checksum file vouches for.

    Raises:
        EagRlError: it is cut off or damaged.
    """
    if not name.endswith(".gz"):
        return
    try:
        with path.open("rb") as raw, gzip.open(raw) as stream:
            while stream.read(_PIECE):
                pass
    except (gzip.BadGzipFile, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{name} cannot be unpacked: {error}", "packed files are whole", "copy it again") from error


def facts_of(row: Mapping[str, Any]) -> str:
    """A line of the ledger for a log."""
    return f"{row['extract']}: {row['status']}: {row['reason']}" + (
        f" ({json.dumps({name: row[name] for name in ('version', 'date') if row.get(name)})})" if row.get("digest")
        else "")
