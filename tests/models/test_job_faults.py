"""Real training jobs on a full disk, with too little memory, killed, and under a clock that jumps."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs.schema import Expert
from contracts.errors import JobError
from models.progress import Progress
from support.expert_cohort import write_cohort
from tasks.launch import run_job

pytestmark = pytest.mark.slow

TRAINING = "models.expert.training"
LIMITED = Path(__file__).parents[1] / "support" / "limited_job.py"
NAMESPACE = ["unshare", "--map-root-user", "--mount"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("cohort") / "cohort", stays=80)


def job_of(cohort: Path, out: Path, **section: Any) -> dict[str, Any]:
    small = {"hidden": 8, "heads": 2, "time_rank": 3, "feed_forward": 12, "epochs": 4, "patience": 4, "seeds": 2,
             "permutations": 1}
    return {"cohort": str(cohort), "out": str(out), "seed": 5, "section": Expert(**{**small, **section}).model_dump()}


def write(job: dict[str, Any], folder: Path) -> Path:
    path = folder / "job.json"
    path.write_text(json.dumps(job))
    return path


def told(answer: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """The error line of a job that ended with exit code 2."""
    assert answer.returncode == 2, answer.stderr
    line = next(line for line in answer.stderr.splitlines() if line.startswith("EAGRL_ERROR "))
    values: dict[str, str] = json.loads(line.removeprefix("EAGRL_ERROR "))
    return values


def can_mount() -> bool:
    return shutil.which("unshare") is not None and subprocess.run(
        [*NAMESPACE, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="no mount namespace may be made here; the test below limits file sizes")
def test_on_a_full_disk_training_says_so_and_once_there_is_room_it_ends(cohort: Path, tmp_path: Path) -> None:
    """A tmpfs of 4 MiB, full but for a page: then the filler goes, and the same command succeeds."""
    disk = tmp_path / "disk"
    disk.mkdir()
    path = write(job_of(cohort, disk / "out"), tmp_path)
    script = (f"mount -t tmpfs -o size=4m none {disk} && head -c 4190000 /dev/zero > {disk}/filler\n"
              f"{sys.executable} -m {TRAINING} --job {path} 2> {tmp_path}/first; echo $?\n"
              f"rm {disk}/filler; {sys.executable} -m {TRAINING} --job {path} 2> {tmp_path}/second; echo $?\n"
              f"cp -r {disk}/out {tmp_path}/kept")
    answer = subprocess.run([*NAMESPACE, "bash", "-c", script], capture_output=True, text=True, check=False)
    assert answer.stdout.split() == ["2", "0"], (answer, (tmp_path / "first").read_text())
    assert '"error": "storage"' in (tmp_path / "first").read_text()
    assert "No space left" in (tmp_path / "first").read_text() and (tmp_path / "kept" / "done.json").is_file()


@pytest.mark.skipif(can_mount(), reason="the test above fills a real disk")
def test_where_files_may_not_grow_training_says_so(cohort: Path, tmp_path: Path) -> None:
    path = write(job_of(cohort, tmp_path / "out"), tmp_path)
    answer = subprocess.run([sys.executable, LIMITED, TRAINING, path, "--file-bytes", "2000"], capture_output=True,
                            text=True, check=False)
    error = told(answer)
    assert error["error"] == "storage" and "File too large" in error["value"]
    assert "run again" in error["next"] and not (tmp_path / "out" / "done.json").exists()


def test_without_memory_training_says_what_to_lower(cohort: Path, tmp_path: Path) -> None:
    path = write(job_of(cohort, tmp_path / "out", hidden=1024, feed_forward=8192, batch_size=80), tmp_path)
    answer = subprocess.run([sys.executable, LIMITED, TRAINING, path, "--memory-mib", "128"], capture_output=True,
                            text=True, check=False, env={**os.environ, "POLARS_MAX_THREADS": "1",
                                                         "OMP_NUM_THREADS": "1"})
    error = told(answer)
    assert error["error"] == "training job" and error["value"].startswith("memory ran out: ")
    assert error["next"] == "lower expert.batch_size or expert.hidden"


def test_a_job_killed_from_outside_is_told_with_what_to_lower(cohort: Path, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill(_step: Progress) -> None:
        for entry in Path("/proc").iterdir():
            line = (entry / "cmdline").read_bytes() if entry.name.isdigit() and (entry / "cmdline").exists() else b""
            if str(tmp_path / "job.json").encode() in line and b"launcher.py" not in line and not killed:
                os.kill(int(entry.name), signal.SIGKILL)
                killed.append(int(entry.name))

    with pytest.raises(JobError, match="was killed") as caught:
        run_job(TRAINING, job_of(cohort, tmp_path / "out", epochs=10_000, patience=10_000), tmp_path, kill)
    assert killed and caught.value.next_step.startswith("if memory ran out, lower expert.batch_size or expert.hidden; ")
    assert not Path(f"/proc/{killed[0]}").exists()


JUMPS = """
import itertools, time
real, days = time.time, itertools.cycle((0, 400, -400, 9000, -1))
time.time = lambda: real() + 86400 * next(days)
"""


def test_a_clock_that_jumps_by_years_changes_no_training(cohort: Path, tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    """`time.time` jumps at every call, in the launcher, its supervisor and the job."""
    (tmp_path / "sitecustomize.py").write_text(JUMPS)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{Path(__file__).parents[2]}")
    code = ("import json, sys, time, pathlib\nfrom tasks.launch import run_job\n"
            "assert abs(time.time() - time.time()) > 86000\n"
            "steps = []\njob = json.loads(pathlib.Path(sys.argv[1]).read_text())\n"
            "run_job(sys.argv[2], job, pathlib.Path(sys.argv[3]), steps.append)\nprint(len(steps))")
    path = write(job_of(cohort, tmp_path / "out"), tmp_path)
    answer = subprocess.run([sys.executable, "-c", code, path, TRAINING, tmp_path], capture_output=True, text=True,
                            check=False, timeout=300)
    assert answer.returncode == 0, answer.stderr
    assert int(answer.stdout.split()[-1]) >= 2 and (tmp_path / "out" / "done.json").is_file()


def test_a_draft_on_a_full_disk_is_kept_and_committed_when_there_is_room(tmp_path: Path) -> None:
    """The store in a child whose files may not grow: a StorageError; then, without the limit, the artifact."""
    code = ("import resource, sys\nfrom pathlib import Path\nfrom lineage.fingerprint import Recipe\n"
            "from lineage.store import Store\nfrom contracts.errors import StorageError\n"
            "store, recipe = Store(Path(sys.argv[1])), Recipe('cohort', {}, {'x': 1}, {}, {})\n"
            "if sys.argv[2] == 'full': resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
            "try:\n"
            "    with store.drafting('cohort', recipe.key) as draft:\n"
            "        (draft.scratch / 'part').write_text('kept')\n"
            "        (draft.out / 'table').write_bytes(b'x' * 4000)\n"
            "        store.commit(draft, 'cohort', recipe, {}, {})\n"
            "except StorageError as error:\n    print(error.next_step)\n"
            "print(store.find('cohort', recipe.key) is not None, [p.name for p in store.workspace.rglob('part')])")
    said = [subprocess.run([sys.executable, "-c", code, tmp_path, how], capture_output=True, text=True,
                           check=True).stdout for how in ("full", "free")]
    assert "finished stages are kept" in said[0] and "False ['part']" in said[0] and said[1].strip() == "True []"


def hold(seconds: float, until: Callable[[], bool]) -> bool:
    limit = time.monotonic() + seconds
    while not until() and time.monotonic() < limit:
        time.sleep(0.05)
    return until()


def test_a_launcher_that_is_killed_takes_its_job_with_it(cohort: Path, tmp_path: Path) -> None:
    job = job_of(cohort, tmp_path / "out", epochs=10_000, patience=10_000)
    code = ("import json, sys, pathlib\nfrom tasks.launch import run_job\n"
            "run_job(sys.argv[2], json.loads(pathlib.Path(sys.argv[1]).read_text()), pathlib.Path(sys.argv[3]), print)")
    path = tmp_path / "values.json"
    path.write_text(json.dumps(job))
    child = subprocess.Popen([sys.executable, "-c", code, path, TRAINING, tmp_path], stdout=subprocess.DEVNULL)

    def alive() -> bool:
        lines = [(entry / "cmdline").read_bytes() for entry in Path("/proc").iterdir()
                 if entry.name.isdigit() and (entry / "cmdline").exists()]
        return any(str(tmp_path / "job.json").encode() in line for line in lines)

    assert hold(120.0, (tmp_path / "out" / "progress.jsonl").exists)
    child.kill()
    child.wait()
    assert hold(30.0, lambda: not alive())
