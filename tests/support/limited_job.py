"""A real training job with less memory than it needs, or files that may not grow: python limited_job.py MODULE JOB ...

The module is imported first, so that the limit bites in training and not in loading libraries.
"""

from __future__ import annotations

import argparse
import importlib
import resource
import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("module")
    parser.add_argument("job")
    parser.add_argument("--memory-mib", type=int, help="address space beyond what the imports took")
    parser.add_argument("--file-bytes", type=int, help="largest size of a file")
    chosen = parser.parse_args()
    importlib.import_module(chosen.module)
    if chosen.memory_mib is not None:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + chosen.memory_mib * 2**20,) * 2)
    if chosen.file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (chosen.file_bytes,) * 2)
    sys.argv = [chosen.module, "--job", chosen.job]
    runpy.run_module(chosen.module, run_name="__main__", alter_sys=True)
