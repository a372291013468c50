"""Does what a Dockerfile says in a clean folder, without Docker, so that its steps are known to work.

In: a Dockerfile, the target stage, build arguments, an empty folder that stands for /app. Out: COPY copies what git
and .dockerignore let through, ENV and ARG are set, RUN commands of the unprivileged user run for real; those of root
change a system and are only said, with what this machine has of the packages they install, and so is what lies outside
of /app. A Python of the base image's version stands for its `python`. Last, the entry point runs with its default
command, unless it is the base image's. Standard library only. Exit codes: 0; 1 a step failed; 2 it cannot be done like
this.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLACE = re.compile(r"(?<![\w./-])/app(?=[/:\s\"']|$)")
KEPT = ("HOME", "LANG", "TMPDIR", "PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CERT", "SSL_CERT_FILE")


class Refused(Exception):
    """A Dockerfile, or a folder, that this cannot be done with."""


@dataclass(frozen=True)
class Instruction:
    """One instruction: its word, the rest, and the line it begins in."""

    word: str
    rest: str
    line: int


@dataclass
class Stage:
    """A stage: the name of what it builds on, and its instructions."""

    base: str
    instructions: list[Instruction] = field(default_factory=list)


def instructions(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile; comments are passed over, continued lines joined."""
    found, pending, first = [], "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        first = first or number
        pending += line.removesuffix("\\")
        if not line.endswith("\\"):
            word, _, rest = pending.strip().partition(" ")
            found.append(Instruction(word.upper(), rest.strip(), first))
            pending, first = "", 0
    return found


def way(text: str, target: str | None, given: dict[str, str]) -> tuple[str, list[Instruction], dict[str, str]]:
    """The base image, the instructions from it to the target stage (none named: the last), and the global arguments.

    Raises:
        Refused: there is no such stage.
    """
    values, stages, name = {}, {}, ""
    for one in instructions(text):
        if one.word == "ARG" and not stages:
            key, _, default = one.rest.partition("=")
            values[key] = given.get(key, default)
        elif one.word == "FROM":
            base, _, called = expand(one.rest, values).partition(" AS ")
            name = called.strip() or f"stage {len(stages)}"
            stages[name] = Stage(base.strip())
        else:
            stages[name].instructions.append(one)
    wanted = target or name
    if wanted not in stages:
        raise Refused(f"no stage {wanted!r}; there are {', '.join(stages)}")
    steps: list[Instruction] = []
    while wanted in stages:
        steps = stages[wanted].instructions + steps
        wanted = stages[wanted].base
    return wanted, steps, values


def expand(text: str, values: dict[str, str]) -> str:
    """The text with $NAME and ${NAME} replaced where NAME is known."""
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda found: values.get(found[1] or found[2], found[0]), text)


def ignored(path: str, patterns: list[str]) -> bool:
    """Whether .dockerignore keeps a file out: the last pattern that fits it or a folder above counts; `!` lets in."""
    parts, out = path.split("/"), False
    above = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    for pattern in patterns:
        rule = _rule(pattern.removeprefix("!").strip("/"))
        if any(rule.fullmatch(part) for part in above):
            out = not pattern.startswith("!")
    return out


def _rule(pattern: str) -> re.Pattern[str]:
    """Docker's signs: `*` and `?` stay within one name, `**` stands for any number of folders."""
    signs = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(signs.get(part, re.escape(part)) for part in re.split(r"(\*\*/|\*\*|\*|\?)", pattern)))


def context(dockerfile: Path, root: Path) -> list[str]:
    """Files of the build context: what git has or would take, without what .dockerignore names."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=root,
                            capture_output=True, text=True, check=True).stdout.split("\0")
    beside = dockerfile.with_name(f"{dockerfile.name}.dockerignore")
    patterns = [line.strip() for line in beside.read_text().splitlines() if line.strip() and line[0] != "#"] \
        if beside.is_file() else []
    return sorted(name for name in set(listed) if name and (root / name).is_file() and not ignored(name, patterns))


class Room:
    """The clean folder, and what the instructions so far have set."""

    def __init__(self, folder: Path, dockerfile: Path, root: Path, values: dict[str, str]) -> None:
        self.folder, self.root, self.values, self.user = folder, root, dict(values), "root"
        self.files = context(dockerfile, root)
        self.environment = {name: os.environ[name] for name in KEPT if name in os.environ} | {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
        self.known, self.entrypoint, self.command = dict(values), "[]", "[]"

    def stand_on(self, base: str) -> None:
        """Puts a Python of this machine where the base image has its own, if it is an image of Python.

        Raises:
            Refused: this machine has none of that version.
        """
        asked = re.match(r"python:(\d+\.\d+)", base)
        if asked is None:
            return
        found = shutil.which(f"python{asked[1]}", path=f"{self.environment['PATH']}:{os.environ.get('PATH', '')}")
        if found is None:
            raise Refused(f"{base} brings Python {asked[1]}, and this machine has no python{asked[1]}; install it")
        place = self.folder / ".image"
        place.mkdir()
        for name in ("python", "python3"):
            (place / name).symlink_to(found)
        self.environment["PATH"] = f"{place}:{self.environment['PATH']}"

    def do(self, one: Instruction) -> None:
        """Carries out one instruction.

        Raises:
            Refused: an instruction that is not known here.
            subprocess.CalledProcessError: a command that failed.
        """
        act = getattr(self, f"_{one.word.lower()}", None)
        if act is None:
            raise Refused(f"line {one.line}: {one.word} is not known here")
        act(one.rest)

    def here(self, text: str) -> str:
        """The text with the clean folder in place of /app."""
        return PLACE.sub(str(self.folder), text)

    def run(self, command: list[str]) -> None:
        """Runs a command in the folder with the image's environment."""
        subprocess.run(command, cwd=self.folder, env=self.environment | self.values, check=True,
                       stdin=subprocess.DEVNULL)

    def _arg(self, rest: str) -> None:
        name, equals, default = rest.partition("=")
        self.values[name] = self.known.get(name, default if equals else "")

    def _env(self, rest: str) -> None:
        for name, value in re.findall(r'(\w+)=("[^"]*"|\S*)', rest):
            self.environment[name] = self.here(expand(value.strip('"'), self.environment | self.values))

    def _user(self, rest: str) -> None:
        self.user = rest

    def _workdir(self, rest: str) -> None:
        if self.here(rest) != str(self.folder):
            raise Refused(f"WORKDIR {rest}: only /app is known here")

    def _copy(self, rest: str) -> None:
        *sources, target = [word for word in rest.split() if not word.startswith("--")]
        for source in sources:
            inside = source.removeprefix("./").rstrip("/")
            taken = [name for name in self.files if inside in ("", ".") or name == inside
                     or name.startswith(f"{inside}/")]
            if not taken:
                raise Refused(f"COPY {source}: nothing of that name is in the build context")
            if target.startswith("/") and not PLACE.match(target):
                print(f"    not copied (it lies outside of /app): {source} to {target}")
                continue
            for name in taken:
                self._place(name, name if inside in ("", ".") else name[len(inside):].lstrip("/"), target)

    def _place(self, name: str, below: str, target: str) -> None:
        base = Path(self.here(target)) if target.startswith("/") else self.folder / target
        goal = base / (below or Path(name).name) if below or target.endswith("/") else base
        goal.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(self.root / name, goal)

    def _run(self, rest: str) -> None:
        if self.user.partition(":")[0] in ("root", "0"):
            packages = re.findall(r"apt-get install((?: [\w.+-]+)+)", rest)
            names = [word for part in packages for word in part.split() if not word.startswith("-")]
            print(f"    not run (it changes a system): {rest[:100]}")
            for name in names:
                has = subprocess.run(["dpkg-query", "--show", name], capture_output=True, check=False).returncode == 0
                print(f"    {name}: {'is' if has else 'is not'} on this machine")
            return
        self.run(["bash", "-euo", "pipefail", "-c", self.here(rest)])

    def _entrypoint(self, rest: str) -> None:
        self.entrypoint = rest

    def _cmd(self, rest: str) -> None:
        self.command = rest

    def _said(self, rest: str) -> None:
        """Nothing to do outside a container."""

    _healthcheck = _expose = _volume = _label = _said


def dry_run(dockerfile: Path, folder: Path, target: str | None, given: dict[str, str], root: Path = ROOT) -> None:
    """Carries out a Dockerfile up to a target in an empty folder, then its entry point.

    Raises:
        Refused: the folder is not empty, an instruction is not known here, or Python is missing.
        subprocess.CalledProcessError: a command failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise Refused(f"{folder} is not empty")
    base, steps, values = way(dockerfile.read_text(encoding="utf-8"), target, given)
    room = Room(folder.resolve(), dockerfile, root, values)
    room.stand_on(base)
    for one in steps:
        began = time.monotonic()
        print(f"{dockerfile.name}:{one.line}: {one.word} {one.rest[:100]}", flush=True)
        room.do(one)
        print(f"    {time.monotonic() - began:.1f} s", flush=True)
    words = [room.here(word) for word in json.loads(room.entrypoint) + json.loads(room.command)]
    if room.entrypoint == "[]" and not base.startswith("python:"):
        print(f"entry point: not run (it is that of {base}), with {' '.join(words)}", flush=True)
        return
    print(f"entry point: {' '.join(words)}", flush=True)
    room.run(words)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="new or empty; stands for /app (5 GB for the CPU image)")
    parser.add_argument("--file", type=Path, default=ROOT / "docker" / "Dockerfile")
    parser.add_argument("--target", help="stage; none: the last")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    chosen = parser.parse_args()
    try:
        dry_run(chosen.file, chosen.folder, chosen.target, dict(entry.split("=", 1) for entry in chosen.build_arg))
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(f"error: exit code {error.returncode} of the step above", file=sys.stderr)
        return 1
    print("every step works")
    return 0


if __name__ == "__main__":
    sys.exit(main())
