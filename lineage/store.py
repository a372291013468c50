"""The artifact store: finished folders under `<workspace>/artifacts`, each with a manifest that is written last.

A stage works in a draft folder that belongs to its recipe and survives a kill, so that a rerun goes on from there.
`commit` moves what is finished into the store in one rename; nothing there is ever changed again. Whoever makes, checks
or removes what belongs to a recipe holds its lock (flock): the kernel frees it with the process, however that ends.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from contracts.errors import ArtifactError, StorageError
from lineage.artifact import Artifact, content_digest, folder_digests
from lineage.fingerprint import Recipe

MANIFEST = "manifest.json"
OWNER = "owner.json"
_PART = re.compile(r"[A-Za-z0-9]([\w.@+=, -]{0,198}[\w.@+=-])?", re.ASCII)
VERSION = 1
FOLDERS = ("artifacts", "drafts", "locks", "ledger", "leases")

_NO_PLACE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)

OnWait = Callable[[str], None]


@dataclass(frozen=True)
class Draft:
    """Where a stage works before its artifact is finished.

    Attributes:
        out: what will become the artifact.
        scratch: partial results and checkpoints; removed when the artifact is committed.
    """

    out: Path
    scratch: Path


class Store:
    """Artifacts and drafts of one workspace.

    Args:
        workspace: the folder; made if missing.

    Raises:
        StorageError: the folder cannot be made or written.
    """

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace.resolve()
        with storage_errors(self.workspace):
            for name in FOLDERS:
                (self.workspace / name).mkdir(parents=True, exist_ok=True)

    def require_writable(self) -> None:
        """Writes and removes a small file in each folder, so that a study stops before its first stage and not after.

        Raises:
            StorageError: one of them takes no file.
        """
        for name in FOLDERS:
            with storage_errors(self.workspace / name), tempfile.TemporaryFile(dir=self.workspace / name) as probe:
                probe.write(b"\0")

    def find(self, kind: str, recipe: str) -> Artifact | None:
        """The finished artifact of a recipe's key, None if there is none."""
        manifest = self.workspace / "artifacts" / _part(kind) / _name(kind, recipe) / MANIFEST
        if not manifest.is_file():
            return None
        found = _artifact(manifest)
        return found if found.recipe == recipe else None

    def folder(self, artifact: Artifact) -> Path:
        """The folder of an artifact.

        Raises:
            ArtifactError: it is not (or no longer) there.
        """
        folder = (self.workspace / artifact.uri).resolve()
        if not folder.is_relative_to(self.workspace) or not (folder / MANIFEST).is_file():
            raise ArtifactError(f"artifact {artifact.id} is not at {artifact.uri}",
                                "finished artifacts stay in the workspace", "run the study again to make it anew")
        return folder

    def manifest(self, artifact: Artifact) -> dict[str, Any]:
        """The manifest: artifact, recipe, inputs, files with digests, sources, versions, commit, metrics, times."""
        return read_json(self.folder(artifact) / MANIFEST)

    def manifests(self) -> Iterator[dict[str, Any]]:
        """All manifests, in order of kind and id; one that cannot be read is passed over: `settle` finds it."""
        for path in sorted((self.workspace / "artifacts").glob(f"*/*/{MANIFEST}")):
            with suppress(ArtifactError):
                _artifact(path)
                yield read_json(path)

    def resolve(self, name: str) -> Artifact:
        """The artifact whose id is, or uniquely starts with, `name` (a kind alone: its newest).

        Raises:
            ArtifactError: none or several fit.
        """
        entries = list(self.manifests())
        exact = [entry for entry in entries if entry["artifact"]["id"] == name]
        fits = exact or [entry for entry in entries if entry["artifact"]["id"].startswith(name)]
        if not fits:
            known = ", ".join(entry["artifact"]["id"] for entry in entries[:12]) or "none yet"
            raise ArtifactError(f"no artifact {name!r}", f"the id, its beginning, or a kind; known: {known}",
                                "`eag-rl lineage` without an id lists them all")
        kinds = {entry["artifact"]["kind"] for entry in fits}
        if len(fits) > 1 and name not in kinds:
            raise ArtifactError(f"{name!r} fits {len(fits)} artifacts", "the beginning of one id alone",
                                "give more digits: " + ", ".join(entry["artifact"]["id"] for entry in fits[:6]))
        if name in kinds and not exact:
            fits = [entry for entry in fits if entry["artifact"]["kind"] == name]
        return Artifact.from_json(max(fits, key=lambda entry: entry["finished"])["artifact"])

    def verify(self, artifact: Artifact) -> list[str]:
        """Names of files whose content no longer fits the manifest (missing and added ones too).

        The manifest itself is among them where it is unreadable, or says of itself what its own content denies.
        """
        folder = self.workspace / artifact.uri
        try:
            entry = self.manifest(artifact)
            recorded, own = entry["files"], coherent(entry, artifact)
        except (ArtifactError, KeyError, TypeError, AttributeError):
            return [MANIFEST]
        found = folder_digests(folder, skip=(MANIFEST,))
        differing = {name for name in {*recorded, *found} if recorded.get(name) != found.get(name)}
        return sorted(differing | (set() if own else {MANIFEST}))

    def verify_all(self) -> dict[str, list[str]]:
        """Id of each artifact that was altered, with the names of its files as `verify` gives them."""
        found = {}
        for folder in sorted((self.workspace / "artifacts").glob("*/*/")):
            try:
                artifact = _artifact(folder / MANIFEST)
                own = self.workspace / artifact.uri == folder
            except (OSError, ArtifactError):
                own = False
            names = self.verify(artifact) if own else [MANIFEST]
            if names:
                found[folder.name] = names
        return found

    def discard(self, artifact: Artifact) -> None:
        """Removes an artifact that was altered or is no longer wanted."""
        shutil.rmtree(self.folder(artifact))

    def settle(self, kind: str, recipe: str, on_wait: OnWait | None = None) -> tuple[Artifact | None, list[str]]:
        """(the finished, unaltered artifact of a recipe's key, names of the files that were altered).

        Waits while another process makes it. An altered artifact is removed, so that it can be made again.
        """
        folder = self.workspace / "artifacts" / kind / _name(kind, recipe)
        with self.holding(kind, recipe, on_wait):
            if not folder.exists():
                return None, []
            try:
                found = self.find(kind, recipe)
            except ArtifactError:
                found = None
            altered = self.verify(found) if found else [MANIFEST]
            if found and not altered:
                return found, []
            shutil.rmtree(folder)
            return None, altered

    @contextmanager
    def holding(self, kind: str, recipe: str, on_wait: OnWait | None = None) -> Iterator[None]:
        """Holds the lock of a recipe; `on_wait` is told once, in words, who has it where this one must wait."""
        with storage_errors(self.workspace / "locks"):
            lock = FileLock(self.workspace / "locks" / f"{_name(kind, recipe)}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                if on_wait is not None:
                    on_wait(self._owner(kind, recipe))
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _owner(self, kind: str, recipe: str) -> str:
        try:
            owner = read_json(self.workspace / "drafts" / _name(kind, recipe) / OWNER)
        except (OSError, ArtifactError):
            return "another process"
        return f"study {owner['study']}, process {owner['pid']}"

    @contextmanager
    def drafting(self, kind: str, recipe: str, study: str = "", on_wait: OnWait | None = None) -> Iterator[Draft]:
        """The draft folder of a recipe, held alone: a second process that wants it waits.

        `out` is empty each time: what survives a life that ended early is in `scratch`.

        Args:
            study: for which it is; stands in the draft, for those who wait and for the removal of what nobody wants.
        """
        draft = self.workspace / "drafts" / _name(kind, recipe)
        with self.holding(kind, recipe, on_wait), _disk_errors(draft):
            with storage_errors(draft):
                if (draft / "out").exists():
                    shutil.rmtree(draft / "out")
                for name in ("out", "scratch"):
                    (draft / name).mkdir(parents=True, exist_ok=True)
                write_json(draft / OWNER, {"study": study, "pid": os.getpid(), "since": time.time(),
                                           "recipe": recipe, "kind": kind})
            yield Draft(draft / "out", draft / "scratch")

    def commit(self, draft: Draft, kind: str, recipe: Recipe, inputs: Mapping[str, Artifact],
               facts: Mapping[str, Any]) -> Artifact:
        """Turns a draft's `out` into an artifact: digests, manifest last, one rename.

        Args:
            inputs: the artifacts it was made from.
            facts: further JSON-ready entries of the manifest (sources, metrics, cost, commit, tracking run).
        """
        name, files = _name(kind, recipe.key), folder_digests(draft.out, skip=(MANIFEST,))
        artifact = Artifact(kind, name, f"artifacts/{kind}/{name}", content_digest(files), recipe.key)
        entry = {"version": VERSION, "artifact": artifact.to_json(), "files": files, "recipe": recipe.to_json(),
                 "inputs": {role: source.to_json() for role, source in inputs.items()}, "finished": time.time(),
                 **facts}
        target = self.workspace / artifact.uri
        with storage_errors(target):
            write_json(draft.out / MANIFEST, entry)
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():  # an altered or unfinished earlier copy
                shutil.rmtree(target)
            draft.out.rename(target)
            shutil.rmtree(draft.scratch.parent, ignore_errors=True)
        return artifact

    def last_recipe(self, study: str, stage: str) -> dict[str, Any] | None:
        """What the last run of this study's stage was made of, for the sentence that says why it runs again."""
        path = self.workspace / "ledger" / _part(study) / f"{_part(stage)}.json"
        return read_json(path) if path.is_file() else None

    def latest(self, study: str, stage: str) -> Artifact:
        """The artifact that the study's last run used for a stage.

        Raises:
            ArtifactError: the study has not got that far.
        """
        last = self.last_recipe(study, stage)
        found = self.find(last["stage"], Recipe(**last).key) if last else None
        if found is None:
            raise ArtifactError(f"study {study!r} has no finished {stage!r}", "the study has run that far",
                                "run `eag-rl run` with the same --config first")
        return found

    def labels(self, study: str) -> dict[str, Artifact]:
        """The artifacts that the study's last run used, by the label of their stage, as far as they are still there."""
        found = {}
        for path in sorted((self.workspace / "ledger" / study).glob("*.json")):
            last = Recipe(**read_json(path))
            with suppress(ArtifactError):
                artifact = self.find(last.stage, last.key)
                if artifact is not None:
                    found[path.stem] = artifact
        return found

    def remember(self, study: str, stage: str, recipe: Recipe) -> None:
        """Records the recipe as the study's latest for this stage."""
        path = self.workspace / "ledger" / _part(study) / f"{_part(stage)}.json"
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, recipe.to_json())


@contextmanager
def storage_errors(place: Path) -> Iterator[None]:
    """Turns "disk full", "not writable" and "no such place" into a StorageError that says what to do.

    Raises:
        StorageError: as said.
    """
    try:
        with _disk_errors(place):
            yield
    except OSError as error:
        if error.errno in _NO_PLACE:
            raise StorageError(f"{place} cannot be written: {error.strerror}", "a file is written to a folder that is "
                               "there, and no folder has the name of a file or too long a one",
                               "name another path: --out, paths.workspace or landing.folder") from error
        raise


@contextmanager
def _disk_errors(place: Path) -> Iterator[None]:
    """The first two of `storage_errors`: around other rooms' code, where a file that is missing is not ours."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageError(f"no space left while writing {place}", "the workspace needs free disk space",
                               "free some space and run again: finished stages are kept") from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise StorageError(f"{place} is not writable", "the workspace must be writable",
                               "correct its permissions, or set paths.workspace") from error
        raise


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes JSON so that the file is either whole or not there at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("w", encoding="utf-8") as stream:
        json.dump(values, stream, indent=1, sort_keys=True)
        stream.flush()
        os.fsync(stream.fileno())
    partial.rename(path)


def _name(kind: str, recipe: str) -> str:
    return _part(f"{kind}-{recipe[:12]}")


def _part(name: str) -> str:
    """The name, if it is one part of a path and stays where it is put.

    Raises:
        ArtifactError: it is not.
    """
    if not _PART.fullmatch(name):
        raise ArtifactError(f"the name {name!r}", "letters, digits, blanks and . _ @ + - = , from a letter or digit on",
                            "name the study, the arm or the stage otherwise")
    return name


def coherent(entry: Mapping[str, Any], artifact: Artifact) -> bool:
    """Whether a manifest's digests are those of its own files, recipe and inputs, and those asked for."""
    recipe = Recipe(**entry["recipe"])
    used = {role: source["sha256"] for role, source in entry["inputs"].items()}
    return (content_digest(entry["files"]) == entry["artifact"]["sha256"] == artifact.sha256
            and recipe.key == entry["artifact"]["recipe"] == artifact.recipe
            and all(recipe.inputs.get(role, digest) == digest for role, digest in used.items()))


def _artifact(manifest: Path) -> Artifact:
    try:
        return Artifact.from_json(read_json(manifest)["artifact"])
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{manifest.parent.name} names no artifact in its manifest", "manifests say what of",
                            f"remove {manifest.parent} and run again") from error


def read_json(path: Path) -> dict[str, Any]:
    """The content of one of the store's JSON files.

    Raises:
        ArtifactError: it is no JSON.
    """
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path.name} in {path.parent.name} is unreadable", "manifests are JSON",
                            f"remove {path.parent} and run again") from error
    return values
