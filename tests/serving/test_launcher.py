"""The supervisor with real processes: the whole tree ends with its parent, however the parent ends."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import support.parent_of_server
from serving import launcher


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def start_parent(tmp_path):
    """Starts a parent and returns it with the ids of the supervisor, the child and the grandchild."""
    parents = []

    def start(stubborn=False):
        pids = tmp_path / "pids"
        parent = subprocess.Popen([sys.executable, support.parent_of_server.__file__, launcher.__file__, str(pids),
                                   *(["stubborn"] if stubborn else [])], stdout=subprocess.PIPE, text=True)
        parents.append(parent)
        supervisor = int(parent.stdout.readline())
        wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
        return parent, [supervisor, *map(int, pids.read_text().split())]

    yield start
    for parent in parents:
        parent.kill()
        parent.wait()
        parent.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_parent_takes_the_whole_tree_along(start_parent, number):
    parent, tree = start_parent()
    assert all(alive(pid) for pid in tree)
    parent.send_signal(number)
    wait_until(lambda: not any(alive(pid) for pid in tree))


def test_a_tree_that_ignores_sigterm_is_killed_after_the_grace(start_parent):
    parent, tree = start_parent(stubborn=True)
    parent.kill()
    wait_until(lambda: not any(alive(pid) for pid in tree))


def test_the_tree_outlives_the_thread_that_started_it(start_parent):
    _, tree = start_parent()
    time.sleep(0.6)  # three polls of the supervisor; its thread ended before the parent wrote the first line
    assert all(alive(pid) for pid in tree)


def test_sigterm_to_the_supervisor_ends_the_tree(start_parent):
    _, tree = start_parent()
    os.kill(tree[0], signal.SIGTERM)
    wait_until(lambda: not any(alive(pid) for pid in tree))


def test_a_killed_supervisor_takes_the_child_along(start_parent):
    _, tree = start_parent()
    os.kill(tree[0], signal.SIGKILL)
    wait_until(lambda: not alive(tree[1]))
    os.kill(tree[2], signal.SIGKILL)  # a grandchild is swept by VllmServer.stop, which this parent does not call


@pytest.mark.parametrize(("code", "expected"), [("raise SystemExit(7)", 7),
                                                ("import os; os.kill(os.getpid(), 9)", 137)])
def test_the_childs_exit_code_is_passed_on(code, expected):
    done = subprocess.run([sys.executable, "-I", launcher.__file__, str(os.getpid()), "1", "--", sys.executable, "-c",
                           code], start_new_session=True, timeout=30)
    assert done.returncode == expected


def test_a_child_that_dies_leaves_no_orphans(tmp_path):
    pids = tmp_path / "pid"
    code = (f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
            f"open({str(pids)!r}, 'w').write(str(p.pid))")
    subprocess.run([sys.executable, "-I", launcher.__file__, str(os.getpid()), "1", "--", sys.executable, "-c", code],
                   start_new_session=True, timeout=30, check=True)
    wait_until(lambda: not alive(int(pids.read_text())))


def test_a_process_lives_until_its_last_thread_is_gone():
    code = ("import ctypes, threading, time; threading.Thread(target=time.sleep, args=(60,)).start(); "
            f"ctypes.CDLL(None).syscall({60 if platform.machine() == 'x86_64' else 93}, 0)")  # exit of this thread only
    child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        wait_until(lambda: not alive(child.pid))  # the first thread is a zombie
        assert launcher.group_members(child.pid) == [child.pid]
    finally:
        child.kill()
    wait_until(lambda: launcher.group_members(child.pid) == [])
    child.wait()


def test_a_parent_that_is_gone_already_starts_nothing(tmp_path):
    started = tmp_path / "started"
    subprocess.run([sys.executable, "-I", launcher.__file__, "1", "1", "--", "touch", str(started)],
                   start_new_session=True, timeout=30, check=True)
    assert not started.exists()
