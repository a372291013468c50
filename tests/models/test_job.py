"""The door of training jobs and their progress log."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from contracts.errors import ConfigError, JobError, MissingFileError, ModelError, StorageError
from models import progress
from models.job import ERROR_PREFIX, LOWER_PREFIX, job, read_job, run, write_json
from models.progress import Progress, ProgressLog


def _raise(error: BaseException) -> Any:
    def main(_: dict[str, Any]) -> None:
        raise error
    return main


def test_a_job_gets_its_file_and_ends_with_zero(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text('{"out": "here", "seed": 3}')
    seen: list[dict[str, Any]] = []
    with pytest.raises(SystemExit) as end:
        job(seen.append, ("out", "seed"), "nothing", ["--job", str(tmp_path / "job.json")])
    assert end.value.code == 0 and seen == [{"out": "here", "seed": 3}]


def test_a_users_error_becomes_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "job.json").write_text("{}")
    with pytest.raises(SystemExit) as end:
        job(_raise(ModelError("a", "b", "c")), (), "nothing", ["--job", str(tmp_path / "job.json")])
    lower, line = capsys.readouterr().err.strip().splitlines()
    assert lower == f"{LOWER_PREFIX}nothing"
    assert end.value.code == 2
    assert json.loads(line.removeprefix(ERROR_PREFIX)) == {"error": "model", "value": "a", "rule": "b", "next": "c"}


def test_a_bug_keeps_its_own_face() -> None:
    with pytest.raises(ZeroDivisionError):
        run(_raise(ZeroDivisionError()), {}, "nothing")
    with pytest.raises(RuntimeError, match="shapes"):
        run(_raise(RuntimeError("shapes do not fit")), {}, "nothing")


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")])
def test_running_out_of_memory_says_what_to_lower(error: BaseException) -> None:
    with pytest.raises(JobError, match=r"lower expert\.batch_size"):
        run(_raise(error), {}, "expert.batch_size")


def test_a_request_that_no_memory_can_hold_is_recognised() -> None:
    with pytest.raises(JobError, match="memory ran out"):
        run(lambda _: torch.empty(2**50), {}, "expert.batch_size")


def test_a_full_disk_says_so() -> None:
    with pytest.raises(StorageError, match="No space left"):
        run(_raise(OSError(errno.ENOSPC, "No space left on device", "/x/y")), {}, "nothing")


def test_a_job_file_that_is_missing_broken_or_short_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        read_job(tmp_path / "none.json", ())
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ConfigError, match="no JSON"):
        read_job(tmp_path / "broken.json", ())
    (tmp_path / "short.json").write_text('{"out": 1}')
    with pytest.raises(ConfigError, match="seed"):
        read_job(tmp_path / "short.json", ("out", "seed"))


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_json(tmp_path / "deep" / "a.json", {"x": 1})
    assert json.loads((tmp_path / "deep" / "a.json").read_text()) == {"x": 1}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "deep" / "a.json", {"x": float("nan")})
    assert json.loads((tmp_path / "deep" / "a.json").read_text()) == {"x": 1}
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        write_json(tmp_path / "file" / "a.json", {})


def test_progress_reads_back_as_logged_and_leaves_out_what_is_no_number(tmp_path: Path) -> None:
    log = ProgressLog(tmp_path / "new" / "progress.jsonl", 3)
    log.log(1, loss=0.5, broken=float("nan"))
    log.log(2)
    assert progress.read(log.path) == [Progress(1, 3, {"loss": 0.5}), Progress(2, 3)]


def test_a_line_cut_by_a_kill_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    ProgressLog(path, 3).log(1)
    with path.open("a") as file:
        file.write('{"step": 2, "tot')
    ProgressLog(path, 3).log(2)
    assert [entry.step for entry in progress.read(path)] == [1, 2]


def test_progress_of_a_job_not_yet_started_is_empty(tmp_path: Path) -> None:
    assert progress.read(tmp_path / "none.jsonl") == []
