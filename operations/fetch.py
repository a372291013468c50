"""Open data from its public source into a data folder: pinned, verified, resumable.

In: the name of a source (`operations.sources`), a folder, a way to report progress. Out: the paths of its files, each
with the sha256 that is pinned. A file appears under its name only when it is whole and verified; until then it is
`NAME.part`, and a later call goes on where it ended. What is there already is verified and left alone.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from filelock import FileLock
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from contracts.errors import ConfigError, DataError, NetworkError, StorageError
from operations.sources import SOURCES, PublicFile, PublicSource

Progress = Callable[[int, int, str], None]
"""Called with (bytes done, bytes in all, name of the file)."""

_LARGEST = 2 << 30  # bytes; no file whose size is unknown may be larger
_ATTEMPTS = 5
_TIMEOUT = httpx.Timeout(30.0, connect=15.0)


class _Interrupted(Exception):
    """The transfer broke off or the server had an error of its own; worth another try."""


@dataclass
class _Meter:
    """Bytes of all files of a source, for the progress report."""

    total: int
    report: Progress
    done: int = 0
    sizes: dict[str, int] = field(default_factory=dict)

    def expect(self, file: PublicFile, size: int) -> None:
        """Learns the size of a file whose size is not pinned."""
        if file.size is None and file.path not in self.sizes:
            self.sizes[file.path] = size
            self.total += size

    def at(self, before: int, file: PublicFile, position: int) -> None:
        self.done = before + position
        self.report(self.done, max(self.total, self.done), file.path)


def fetch(name: str, target: Path, progress: Progress | None = None) -> list[Path]:
    """Downloads source `name` into `target`/<its folder>.

    Args:
        name: "tjh" or "mimic-demo".
        target: the data folder, the one that EAG_RL_DATA names afterwards.
        progress: is told (bytes done, bytes in all, file).

    Returns:
        The paths of the verified files, in the order of the source.

    Raises:
        ConfigError: there is no such source.
        NetworkError: the source cannot be reached; says which file to put where.
        DataError: a file has another content than the pinned one.
        StorageError: the folder cannot be written.
    """
    if name not in SOURCES:
        raise ConfigError(f"no public source {name!r}", f"one of: {', '.join(SOURCES)}", "eag-rl data fetch tjh")
    return fetch_source(SOURCES[name], Path(target), progress)


def fetch_source(source: PublicSource, target: Path, progress: Progress | None = None,
                 pause: float = 1.0) -> list[Path]:
    """Downloads a source; see `fetch`.

    Args:
        pause: seconds before the second try of a broken transfer; doubles from try to try.
    """
    folder = target / source.folder
    with _storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".fetch.lock"), httpx.Client(follow_redirects=True, timeout=_TIMEOUT) as client:
            missing = [file for file in source.files if not _stands(folder / file.path, file)]
            meter = _Meter(sum(file.size or 0 for file in missing), progress or _silent)
            for file in missing:
                try:
                    _get(client, source, file, folder / file.path, meter, pause)
                except (httpx.HTTPError, _Interrupted) as error:
                    raise _unreachable(source, folder, missing, error) from error
    return [folder / file.path for file in source.files]


def sha256_of(path: Path) -> str:
    """The sha256 of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _silent(done: int, total: int, note: str) -> None:
    """Progress that nobody asked for."""


def _stands(path: Path, file: PublicFile) -> bool:
    if not path.exists():
        return False
    found = sha256_of(path)
    if found != file.sha256:
        raise DataError(f"{path} is there with sha256 {found}", f"the public file has {file.sha256}",
                        "move it away and fetch again, or name another folder with --target; it was not touched")
    return True


def _get(client: httpx.Client, source: PublicSource, file: PublicFile, path: Path, meter: _Meter, pause: float) -> None:
    """Downloads one file. A wrong content is tried once more from the start: the part before may have been damaged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    before = meter.done
    for fresh in (False, True) if part.exists() else (True,):
        if fresh:
            part.unlink(missing_ok=True)
        for attempt in Retrying(retry=retry_if_exception_type((httpx.TransportError, _Interrupted)), reraise=True,
                                stop=stop_after_attempt(_ATTEMPTS), wait=wait_exponential(multiplier=pause, max=30)):
            with attempt:
                _transfer(client, f"{source.address}/{file.address}", file, part, meter, before)
        found = sha256_of(part)
        if found == file.sha256:
            part.replace(path)
            return
    part.unlink(missing_ok=True)
    raise _other_file(f"{source.address}/{file.address} has sha256 {found}", file, path)


def _other_file(found: str, file: PublicFile, path: Path) -> DataError:
    return DataError(found, f"the pinned file has sha256 {file.sha256}"
                     + (f" and {file.size} bytes" if file.size is not None else ""),
                     "something on the way changed it (a proxy? a log-in page?); get it in another way and put it at "
                     f"{path}")


def _transfer(client: httpx.Client, address: str, file: PublicFile, part: Path, meter: _Meter, before: int) -> None:
    """One request that appends to `part`, or writes it anew where the server does not resume.

    Raises:
        _Interrupted: it broke off, or the server had an error of its own.
        DataError: the server announces a file of another size.
        httpx.HTTPStatusError: the server refuses the file.
    """
    have = part.stat().st_size if part.exists() else 0
    if file.size is not None and have == file.size:
        return
    # No compression on the way: the bytes asked for are those of the file.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with client.stream("GET", address, headers=headers) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            if file.size is not None:  # longer than the file: rubbish
                part.unlink()
                raise _Interrupted(f"{address} does not go on at byte {have}")
            return  # whole, as far as the server knows; the sha256 decides
        if response.status_code >= 500 or response.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise _Interrupted(f"{address} answered {response.status_code}")
        response.raise_for_status()
        resumed = response.status_code == httpx.codes.PARTIAL_CONTENT and _starts_at(response, have)
        if response.status_code == httpx.codes.PARTIAL_CONTENT and not resumed:
            part.unlink(missing_ok=True)
            raise _Interrupted(f"{address} sent another part than asked for")
        have = have if resumed else 0
        length = response.headers.get("Content-Length", "")
        if length.isdigit():
            meter.expect(file, have + int(length))
            if file.size is not None and have + int(length) != file.size:
                part.unlink(missing_ok=True)
                raise _other_file(f"{address} announces {have + int(length)} bytes", file, part.with_suffix(""))
        _write(response, part, have, file, meter, before)


def _starts_at(response: httpx.Response, position: int) -> bool:
    return response.headers.get("Content-Range", "").startswith(f"bytes {position}-")


def _write(response: httpx.Response, part: Path, have: int, file: PublicFile, meter: _Meter, before: int) -> None:
    limit = file.size if file.size is not None else _LARGEST
    with part.open("ab" if have else "wb") as stream:
        for chunk in response.iter_raw():
            have += len(chunk)
            if have > limit:
                break  # not this file; its sha256 will say so
            stream.write(chunk)
            meter.at(before, file, have)
    if file.size is not None and have < file.size:
        raise _Interrupted(f"{response.url} ended after {have} of {file.size} bytes")


@contextmanager
def _storage(folder: Path) -> Iterator[None]:
    """Turns what the disk refuses into a StorageError; errors of the network pass."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise StorageError(f"{error.filename or folder}: {error.strerror or error}",
                           "the data folder has room and may be written",
                           "free some space and run the command again: it goes on where it stopped" if full
                           else "name another folder with --target, or mend its permissions") from error


def _unreachable(source: PublicSource, folder: Path, missing: list[PublicFile], error: Exception) -> NetworkError:
    rows = [f"{source.address}/{file.address}\n      to {folder / file.path}\n      sha256 {file.sha256}"
            for file in missing if not (folder / file.path).exists()]
    return NetworkError(f"{source.name} could not be fetched: {error or type(error).__name__}",
                        "the public source answers, directly or through HTTPS_PROXY",
                        "run the command again later (it goes on where it stopped), or get the files on a connected "
                        "machine and put them here:\n    " + "\n    ".join(rows))
