"""Durations and deadlines do not read the wall clock, which jumps; only stamps that people read do."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("configs", "contracts", "ehr", "prompts", "serving", "rewards", "search", "models", "evaluation", "lineage",
         "operations", "tasks", "flows", "benchmarks", "docker")
WALL = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today"),
        ("date", "today")}
# Who may read the wall clock, and what for.
STAMPS = {
    "lineage/store.py": "when an artifact was finished",
    "lineage/tracking.py": "when MLflow got a metric",
    "lineage/tracking_registry.py": "since when a model is the champion",
    "tasks/stage.py": "when a stage started",
    "tasks/report.py": "the date on the page",
    "tasks/robustness.py": "the date on the page",
    "operations/doctor.py": "whether the clock is right",
    "operations/advisories.py": "how old a file is",
    "operations/keeper.py": "when a service started, for people",
    "tasks/comparison.py": "the date on the page",
    "tasks/transfer.py": "the date on the page",
    "lineage/garbage.py": "how old an artifact is, by its stamp",
    "flows/watch_extracts.py": "when the next full hour is",
}


def readings(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name | ast.Attribute)
            and (getattr(node.func.value, "id", getattr(node.func.value, "attr", "")), node.func.attr) in WALL]


def wall(tree: ast.AST) -> int:
    """How often a file reads the wall clock, in whatever words."""
    bare = [name.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "time"
            for name in node.names if name.name in ("time", "time_ns")]
    return len(readings(tree)) + len(bare)


def test_only_stamps_read_the_wall_clock() -> None:
    found = {path.relative_to(ROOT).as_posix() for room in ROOMS for path in (ROOT / room).rglob("*.py")
             if wall(ast.parse(path.read_text(encoding="utf-8")))}
    assert found == set(STAMPS)


def test_no_difference_is_taken_of_wall_clock_readings() -> None:
    # With the stamp of a file or an artifact; with the next full hour.
    compared = {"operations/doctor.py", "operations/advisories.py", "lineage/garbage.py", "flows/watch_extracts.py"}
    for name in set(STAMPS) - compared:
        for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
            if isinstance(node, ast.BinOp | ast.Compare) and not isinstance(getattr(node, "op", None), ast.Mult):
                assert readings(node) == [] or isinstance(getattr(node, "op", None), ast.Mult), f"{name}:{node.lineno}"


def test_the_audit_sees_every_way_to_ask() -> None:
    for text in ("import time\nx = time.time()", "from time import time\nx = time()", "x = datetime.now(UTC)",
                 "import datetime\nx = datetime.datetime.now()", "x = date.today()"):
        assert wall(ast.parse(text)) == 1, text
    assert wall(ast.parse("import time\nx = time.monotonic(), time.perf_counter(), time.process_time()")) == 0
