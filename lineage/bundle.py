"""A study in one file: a gzipped tar of a table of contents, manifests, what may leave the store, and MLflow's runs.

The first member, `bundle.json`, names every other with its sha256. Reading trusts nothing: other names than those it
lists, names that lead out of the folder, links, other digests, kinds of file that never leave a store, and more bytes
than are said are refused, and the folder appears only when everything has been checked.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import shutil
import tarfile
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from contracts.errors import ArtifactError, MissingFileError
from lineage import portable
from lineage.artifact import Artifact, file_digest
from lineage.store import MANIFEST, Store, coherent, storage_errors

CONTENTS, RUNS = "bundle.json", "runs.json"
FORMAT = 1
_MOST_MEMBERS, _MOST_BYTES, _MOST_CONTENTS, _MOST_PADDING = 20_000, 64 << 30, 64 << 20, tarfile.RECORDSIZE
ARTIFACT_ID = re.compile(r"[a-z][a-z0-9_-]*-[0-9a-f]{12}")
_STUDY = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def collect(store: Store, ids: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, bytes]]:
    """(name, content) of each member for artifacts, by id their manifest: the manifests, and what may leave."""
    for name, entry in sorted(ids.items()):
        folder = store.workspace / entry["artifact"]["uri"]
        yield f"artifacts/{name}/{MANIFEST}", json.dumps(entry, indent=1, sort_keys=True).encode()
        for file in sorted(entry["files"]):
            if portable.may_leave(entry["artifact"]["kind"], file):
                yield f"artifacts/{name}/{file}", (folder / file).read_bytes()


def write(path: Path, facts: Mapping[str, Any], members: Mapping[str, bytes], check: Callable[[str, bytes], None]
          ) -> dict[str, Any]:
    """Writes the file, whole or not at all; returns its contents.

    Args:
        facts: further entries of the contents (study, labels).
        check: raises if a member must not leave, as `lineage.portable.guard` gives.
    """
    for name, data in members.items():
        check(name, data)
    listed = {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in members.items()}
    contents = {"format": FORMAT, **facts, "members": listed}
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    with storage_errors(path):
        try:
            with (partial.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as stream,
                  tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive):
                head = json.dumps(contents, indent=1, sort_keys=True).encode()
                for name, data in {CONTENTS: head, **members}.items():
                    entry = tarfile.TarInfo(name)
                    entry.size, entry.mode = len(data), 0o600
                    archive.addfile(entry, io.BytesIO(data))
            partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)
    return contents


def unpack(path: Path, place: Path) -> tuple[dict[str, Any], Path]:
    """Checks a bundle and unpacks it below `place`; returns (contents, the folder), the same one for the same bundle.

    Raises:
        MissingFileError: there is no such file.
        ArtifactError: it is no bundle, or a member is not what it should be; nothing is left of it then.
        StorageError: the disk is full or not writable.
    """
    if not path.is_file():
        raise MissingFileError(f"no file {path}", "what `eag-rl export` wrote", "correct the path")
    with storage_errors(place):
        place.mkdir(parents=True, exist_ok=True)
        draft = place / f".{uuid.uuid4().hex}"
        draft.mkdir()
        try:
            with tarfile.open(path, mode="r:gz") as archive:
                contents, digest = _unpack(archive, draft)
            target = place / f"{contents['study']}-{digest[:12]}"
            if target.exists():
                shutil.rmtree(target)  # the same bytes, or such as somebody altered meanwhile
            draft.rename(target)
        except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError,
                json.JSONDecodeError) as error:
            raise _refused(path.name, f"is no bundle ({type(error).__name__})") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return contents, target


def _unpack(archive: tarfile.TarFile, draft: Path) -> tuple[dict[str, Any], str]:
    entries = iter(archive)
    first = next(entries, None)
    if first is None or first.name != CONTENTS or not first.isreg() or first.size > _MOST_CONTENTS:
        raise _refused("the first member", f"is not {CONTENTS}")
    raw = _stream(archive, first).read()
    contents = _contents(json.loads(raw))
    (draft / CONTENTS).write_bytes(raw)
    waiting = dict(contents["members"])
    for entry in entries:
        said = waiting.pop(entry.name, None)
        if said is None or not entry.isreg() or entry.size != said["bytes"]:
            raise _refused(repr(entry.name), "is not listed, listed twice, no plain file, or of another size")
        target = draft / entry.name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as stream:
            shutil.copyfileobj(_stream(archive, entry), stream)
        if file_digest(target) != said["sha256"]:
            raise _refused(entry.name, "has another digest than is listed")
    if waiting:
        raise _refused(next(iter(waiting)), "is listed, but not there")
    _read_out(archive)
    _check_manifests(contents, draft)
    return contents, hashlib.sha256(raw).hexdigest()


def _read_out(archive: tarfile.TarFile) -> None:
    """Reads what follows the last member, so that gzip compares its checksum of all that was read.

    No digest of a member covers the table of contents itself.
    """
    rest = archive.fileobj.read(_MOST_PADDING + 1) if archive.fileobj else b""
    if len(rest) > _MOST_PADDING or any(rest):
        raise _refused("what follows the last member", "is no padding")


def _contents(values: Any) -> dict[str, Any]:
    """The table of contents, if it is one and every name in it is safe and of a kind that may leave a store."""
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise _refused(CONTENTS, f"is not of format {FORMAT}")
    members, study = values.get("members"), values.get("study")
    if not isinstance(members, dict) or not isinstance(study, str) or not _STUDY.fullmatch(study):
        raise _refused(CONTENTS, "names no study or no members")
    sizes = [one.get("bytes") if isinstance(one, dict) else None for one in members.values()]
    if len(members) > _MOST_MEMBERS or not all(isinstance(one, int) and one >= 0 for one in sizes):
        raise _refused(CONTENTS, "lists too many members, or such without a size")
    if sum(one for one in sizes if one) > _MOST_BYTES:
        raise _refused(CONTENTS, f"lists more than {_MOST_BYTES >> 30} GiB")
    for name in members:
        if not _safe(name):
            raise _refused(repr(name), "is a name that no export writes")
    labels = values.get("labels")
    if RUNS not in members or not isinstance(labels, dict):
        raise _refused(CONTENTS, "names no runs or no labels")
    for label, name in labels.items():
        if not isinstance(name, str) or f"artifacts/{name}/{MANIFEST}" not in members:
            raise _refused(f"label {label!r}", "names an artifact that is not there")
    return values


def _safe(name: str) -> bool:
    """Whether a member's name is one that an export could have written, and leads nowhere else."""
    folder, _, rest = name.partition("/")
    artifact, _, file = rest.partition("/")
    if name == RUNS:
        return True
    if folder != "artifacts" or not ARTIFACT_ID.fullmatch(artifact) or "\\" in file or "\0" in file:
        return False
    if any(part in ("", ".", "..") for part in file.split("/")):
        return False
    return file == MANIFEST or portable.may_leave(artifact.rpartition("-")[0], file)


def _check_manifests(contents: Mapping[str, Any], draft: Path) -> None:
    """Whether each manifest fits itself, and each file its manifest (a page, from which a section is cut, excepted)."""
    for name in contents["members"]:
        parts = name.split("/", 2)
        if parts[0] != "artifacts":
            continue
        try:
            entry = json.loads((draft / "artifacts" / parts[1] / MANIFEST).read_text(encoding="utf-8"))
            artifact = Artifact.from_json(entry["artifact"])
            good = artifact.id == parts[1] == f"{artifact.kind}-{artifact.recipe[:12]}" and coherent(entry, artifact)
            digest = entry["files"].get(parts[2])
        except (OSError, KeyError, TypeError, AttributeError) as error:
            raise _refused(name, "has no manifest that can be read") from error
        listed = contents["members"][name]["sha256"]
        if not good or (parts[2] != MANIFEST and not parts[2].endswith(".html") and digest != listed):
            raise _refused(name, "does not fit its manifest")


def _stream(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    stream = archive.extractfile(entry)
    if stream is None:
        raise _refused(repr(entry.name), "is no plain file")
    return stream


def _refused(what: str, why: str) -> ArtifactError:
    return ArtifactError(f"{what} {why}", "a bundle is what `eag-rl export` wrote, unaltered", "export the study again")
