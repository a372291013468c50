"""Sweeps: which studies a grid or a draw of it makes, and what is refused before anything runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from contracts.errors import ConfigError
from flows.grid import checked, points, settings_of
from flows.sweep import Point, _written
from support.tiny_study import eag_rl


def test_a_grid_holds_every_combination_once_with_typed_values() -> None:
    found = points(["rewards.weight=0.4,0.6", "policy.grpo.entropy_clip=[true, false]", "search.depth=3"], None, 0)
    assert found == [{"rewards.weight": weight, "policy.grpo.entropy_clip": clip, "search.depth": 3}
                     for weight in (0.4, 0.6) for clip in (True, False)]


def test_a_draw_repeats_no_point_and_depends_on_its_seed_alone() -> None:
    over = ["rewards.weight=" + ",".join(f"0.{digit}" for digit in range(1, 10)), "search.depth=2,3,4,5"]
    first = points(over, 12, 7)
    assert first == points(over, 12, 7) != points(over, 12, 8)
    assert len({json.dumps(one) for one in first}) == 12
    assert len(points(over, 99, 7)) == 36


@pytest.mark.parametrize("over", [[], ["rewards.weight"], ["rewards.weight="], ["=1"], ["rewards.weight=[0.1"],
                                  ["study.name=2026-13-01"], ["arms=[{2026-01-01: a}]"],
                                  ["search.depth=1", "search.depth=2"],
                                  ["search.depth=" + ",".join(map(str, range(60))), "search.rollouts=" + ",".join(
                                      map(str, range(60)))]])
def test_what_is_no_grid_is_refused(over: list[str]) -> None:
    with pytest.raises(ConfigError):
        points(over, None, 0)


def test_the_tables_hold_every_study_also_those_that_failed(tmp_path: Path) -> None:
    folder = _written(tmp_path / "x", [Point({"a": 1}, {"auroc": 0.7}, "run"), Point({"a": 2}, error="no memory")])
    lines = (folder / "results.csv").read_text().splitlines()
    assert lines == ["a,auroc,study run,error", "1,0.7,run,", "2,,,no memory"]
    assert json.loads((folder / "results.json").read_text())[1]["error"] == "no memory"


def test_a_date_is_a_value_as_it_was_typed(tmp_path: Path) -> None:
    (one, other) = checked("demo", ["study.name=2026-01-02,2026-01-03"], [], None, 0)
    assert settings_of(one) == ['study.name="2026-01-02"']
    folder = _written(tmp_path / "x", [Point(other)])
    assert json.loads((folder / "results.json").read_text())[0]["study.name"] == "2026-01-03"


@pytest.mark.parametrize(("over", "said"), [("rewards.weight=[0.1", "--over"), ("rewards.weight=0.4,9", "= 9")])
def test_a_wrong_point_is_refused_before_a_server_starts(over: str, said: str, tmp_path: Path) -> None:
    done = eag_rl("sweep", "--over", over, "--set", f"paths.workspace={tmp_path / 'w'}", check=False)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "w").exists()
