"""A program that starts serving/launcher.py, from a thread that ends, over a child with a child. For tests.

    python parent_of_server.py LAUNCHER PIDS_FILE [stubborn]

Prints the supervisor's id and sleeps. The child writes its own and its child's id; `stubborn` ones ignore SIGTERM.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

SLEEPER = ("import signal, sys, time; len(sys.argv) > 1 and signal.signal(signal.SIGTERM, signal.SIG_IGN); "
           "time.sleep(60)")


def be_child(pids: Path, temper: list[str]) -> None:
    """The supervised program."""
    if temper:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    grandchild = subprocess.Popen([sys.executable, "-c", SLEEPER, *temper])
    pids.write_text(f"{os.getpid()} {grandchild.pid}")
    time.sleep(60)


def be_parent(launcher: str, pids: str, temper: list[str]) -> None:
    """The program whose end must take the others along."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what it puts behind `&` without
    started = []
    command = [sys.executable, "-I", launcher, str(os.getpid()), "1", "--", sys.executable, __file__, "child", pids,
               *temper]
    thread = threading.Thread(target=lambda: started.append(subprocess.Popen(command, start_new_session=True)))
    thread.start()
    thread.join()
    print(started[0].pid, flush=True)
    time.sleep(60)


if __name__ == "__main__":
    if sys.argv[1] == "child":
        be_child(Path(sys.argv[2]), sys.argv[3:])
    else:
        be_parent(sys.argv[1], sys.argv[2], sys.argv[3:])
