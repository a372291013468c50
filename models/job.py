"""The door of a training job: `python -m models.<...> --job JOB.json`, the same for the expert and the policy.

In: a JSON file with folders, the dumped config section(s) and a seed. Out: exit code 0 and `<out>/done.json`, or, for a
failure that a user can cause, one line `EAGRL_ERROR {...}` on stderr and exit code 2. Bugs keep their traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from contracts.errors import ConfigError, EagRlError, JobError, MissingFileError, StorageError
from contracts.redaction import redact_logs, traceback_without_rows

ERROR_PREFIX = "EAGRL_ERROR "
DONE = "done.json"
LOWER_PREFIX = "EAGRL_LOWER "
FULL_OR_CLOSED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)
# Allocators and threads raise a plain RuntimeError; its text is the only sign.
_SIGNS_OF_NO_MEMORY = ("DefaultCPUAllocator", "out of memory", "bad_alloc", "can't start new thread",
                       "Cannot allocate memory")

Job = dict[str, Any]


def job(main: Callable[[Job], Any], needs: Sequence[str], lower: str, argv: Sequence[str] | None = None) -> None:
    """Reads `--job JOB.json`, runs `main` on it and exits: 0, or 2 with one EAGRL_ERROR line.

    Args:
        main: the work; it gets the parsed job and writes `<out>/done.json` last.
        needs: keys the job must have.
        lower: what the user can lower when memory runs out, for example "expert.batch_size or expert.hidden".
        argv: arguments, without the program's name; None: those of the process.
    """
    parser = argparse.ArgumentParser(description="Runs one training job of EAG-RL.")
    parser.add_argument("--job", type=Path, required=True, help="JSON file that describes the job")
    print(LOWER_PREFIX + lower, file=sys.stderr, flush=True)  # for who finds this process killed
    if argv is None:  # the process is this job's alone
        redact_logs()
        sys.excepthook = _without_rows
    try:
        run(main, read_job(parser.parse_args(argv).job, needs), lower)
    except EagRlError as error:
        print(ERROR_PREFIX + json.dumps(error.as_dict()), file=sys.stderr, flush=True)
        raise SystemExit(error.exit_code) from error
    raise SystemExit(0)


def _without_rows(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
    """A bug's traceback for the job's log, from where it travels to Prefect's pages."""
    print(traceback_without_rows(error), file=sys.stderr, flush=True)


def run(main: Callable[[Job], Any], values: Job, lower: str) -> None:
    """Runs `main(values)`; running out of memory or disk becomes an error that says what to do.

    Raises:
        JobError: memory ran out.
        StorageError: the disk is full.
    """
    try:
        main(values)
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _out_of_memory(error, lower) from error
    except RuntimeError as error:
        if not any(sign in str(error) for sign in _SIGNS_OF_NO_MEMORY):
            raise
        raise _out_of_memory(error, lower) from error
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise _out_of_memory(error, lower) from error
        if error.errno not in FULL_OR_CLOSED:
            raise
        raise StorageError(f"{error.filename or values.get('out', 'the job folder')}: {error.strerror or error}",
                           "the job's folder is writable and has space left",
                           "free disk space or choose another paths.workspace, then run again") from error


def read_job(path: Path, needs: Sequence[str]) -> Job:
    """The job in a JSON file.

    Raises:
        MissingFileError: there is no such file.
        ConfigError: it is no JSON object or lacks a key.
    """
    if not path.is_file():
        raise MissingFileError(f"no job file {path}", "--job names a JSON file", "run the stage with `eag-rl`")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} is no JSON: {error}", "a job is a JSON object", "run the stage with `eag-rl`"
                          ) from error
    missing = [key for key in needs if not isinstance(values, dict) or key not in values]
    if missing:
        raise ConfigError(f"{path} lacks {missing}", f"a job has {list(needs)}", "run the stage with `eag-rl`")
    return values


def write_json(path: Path, values: Any) -> None:
    """Writes JSON so that a reader finds all of it or nothing (temporary file, then rename).

    Raises:
        StorageError: the disk is full or not writable.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # the first failure is the one to tell
            temporary.unlink(missing_ok=True)
        raise StorageError(f"{path}: {error.strerror or error}", "the job's folder is writable and has space left",
                           "free disk space or choose another paths.workspace, then run again") from error


def _out_of_memory(error: BaseException, lower: str) -> JobError:
    first = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return JobError(f"memory ran out: {first}", "the job fits the memory of the machine", f"lower {lower}")
