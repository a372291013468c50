"""What of an artifact may leave the store: a list of files by kind, and a guard that looks into each of them.

Reports, numbers, model weights (safetensors) and their settings may; tables of patients, trajectories and whatever a
model wrote about a patient may not: of a report the page to share leaves, not the one that shows patients in full.
The guard does not trust the list: it refuses other kinds of file, names of stays, and pieces of patients' texts.
"""

from __future__ import annotations

import fnmatch
import html
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath

from contracts.errors import DataError

MODELS = ("*.safetensors", "expert.json", "adapter/*.safetensors", "adapter/*.json", "seed-*/*.safetensors",
          "seed-*/history.json", "progress.jsonl")
FILES: dict[str, tuple[str, ...]] = {
    "cohort": ("attrition.json", "meta.json", "scaling.json", "validity.json", "table_one.csv", "table_one.md"),
    "expert": MODELS, "sft": MODELS, "rl": MODELS, "labels": MODELS,
    "readings": ("health.json",), "check": ("check.json",), "baselines": ("notes.json",),
    "trajectories": ("statistics.json",), "boosting": ("notes.json",), "shared": ("shared.json",),
    "report": ("report_to_share.html", "report.md", "tripod.md", "cards/*/README.md", "*.csv", "table.json",
               "table.md"),
    "transfer": ("transfer.html", "transfer.md", "table.csv", "table.json", "table.md"),
    "comparison": ("comparison.html", "comparison.md", "comparison.json", "figures.csv"),
    "robustness": ("robustness.html", "*.csv", "table.json", "table.md"),
}
KINDS_OF_FILE = frozenset({".json", ".jsonl", ".html", ".md", ".csv", ".safetensors"})
_TAG = re.compile(r"<[^>]*>")
_WORD = re.compile(r"[\w-]+")
_SHORTEST_NAME, _PIECE = 5, 8


def may_leave(kind: str, name: str) -> bool:
    """Whether the file `name` (relative, with slashes) of an artifact of this kind may leave the store."""
    return PurePosixPath(name).suffix in KINDS_OF_FILE and _fits(name, FILES.get(kind, ()))


def is_model(name: str) -> bool:
    """Whether a file is a part of a model, which MLflow keeps as LoggedModel: weights and their settings."""
    return _fits(name, MODELS)


def copy(folder: Path, names: Iterable[str], target: Path) -> list[Path]:
    """Copies files of an artifact as they may leave; what is no such kind of file is passed over."""
    copies = []
    for name in names:
        if PurePosixPath(name).suffix in KINDS_OF_FILE:
            place = target / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes((folder / name).read_bytes())
            copies.append(place)
    return copies


def model_files(folder: Path) -> list[str]:
    """The files of a trained model's folder that belong to the model."""
    names = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())
    return [name for name in names if is_model(name)]


def guard(identifiers: Collection[str], texts: Iterable[str]) -> Callable[[str, bytes], None]:
    """A check of one file's name and content that refuses what could be a patient's.

    Args:
        identifiers: of stays and patients; those shorter than five signs are numbers like any other and are not sought.
        texts: what patients' prompts and models' answers say; each piece of eight words of them is sought.

    Raises:
        DataError: (when called) the file holds an identifier or such a piece, or is of another kind than it says.
    """
    names = {name for name in identifiers if len(name) >= _SHORTEST_NAME}
    pieces = {piece for text in texts for piece in _pieces(text, _PIECE)}

    def check(name: str, data: bytes) -> None:
        suffix = PurePosixPath(name).suffix
        if suffix not in KINDS_OF_FILE or (data[:4] == b"PAR1"):
            raise _refused(name, "a kind of file that may hold patients")
        if suffix == ".safetensors":
            return
        text = html.unescape(_TAG.sub(" ", data.decode("utf-8")))
        if names & set(_WORD.findall(text)):
            raise _refused(name, "the identifier of a stay or patient")
        if not pieces.isdisjoint(_pieces(text, 1)):
            raise _refused(name, "a piece of a patient's text")

    return check


def _fits(name: str, patterns: Iterable[str]) -> bool:
    """Whether a relative path fits a pattern part by part: a star spans no slash."""
    parts = name.split("/")
    return any(len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))
               for wanted in (pattern.split("/") for pattern in patterns))


def _pieces(text: str, stride: int) -> Iterator[int]:
    """Hashes of eight words in a row, beginning at every `stride`-th word."""
    words = re.findall(r"\w+", text.replace("\\n", " "))
    for start in range(0, len(words) - _PIECE + 1, stride):
        yield hash(tuple(words[start:start + _PIECE]))


def _refused(name: str, what: str) -> DataError:
    return DataError(f"{name} holds {what}", "no patient leaves the store",
                     "report this: the list of files in lineage/portable.py lets too much out")
