import re
from typing import Any

import polars as pl
import pytest

from contracts.frames import TRAJECTORIES
from evaluation.search_tree import SearchTree, choose, draw, numbers, tree_of
from prompts.grammar import render_final, render_step


def _node(path: list[int], visits: int, value: float, children: list[Any] | None = None, **said: Any) -> dict[str, Any]:
    return {"path": path, "visits": visits, "value": value, "prior": 50.0, "terminal": "probability" in said,
            "reward": None, "children": children or [], **said}


def _end(path: list[int], visits: int, reward: float | None, probability: float = 0.9) -> dict[str, Any]:
    node = _node(path, visits, reward or 0.0, question="Dies <b>?", features=["Lactate"], probability=probability)
    return {**node, "reward": reward}


ROOT = _node([], 3, 0.2, [
    _node([0], 2, 0.4, [_end([0, 0], 1, 0.7), _end([0, 1], 1, 0.1, 0.4)], question="Lactate?", answer="It rises."),
    _node([1], 1, -0.2, [_end([1, 0], 1, -0.2), _end([1, 1], 0, None)], question="Platelets?", answer="They fall.")],
    question="", answer="")
KEPT = render_step(1, "Lactate?", "It rises.") + render_final("Dies <b>?", ["Lactate"], 0.9)


def test_the_way_to_a_kept_trajectory_is_marked_and_no_other() -> None:
    nodes = tree_of(ROOT, [KEPT])
    assert [node.path for node in nodes] == [(), (0,), (0, 0), (0, 1), (1,), (1, 0), (1, 1)]
    assert [node.path for node in nodes if node.kept] == [(), (0,), (0, 0)]


def test_a_kept_text_that_no_end_says_marks_nothing() -> None:
    assert [node.kept for node in tree_of(ROOT, ["something else"])] == [None] * 7


def test_a_node_on_two_kept_ways_has_the_better_rank() -> None:
    second = KEPT.replace("0.90", "0.40")
    assert {node.path: node.kept for node in tree_of(ROOT, [KEPT, second]) if node.kept} == {
        (): 1, (0,): 1, (0, 0): 1, (0, 1): 2}


def test_figures_are_said_in_words() -> None:
    nodes = {node.path: numbers(node) for node in tree_of(ROOT, [KEPT])}
    assert nodes[(0, 0)] == "N = 1, Q = 0.70, r = 50, R = 0.70, kept, rank 1"
    assert nodes[(1, 1)] == "N = 0, never entered, r = 50" and nodes[(1,)].startswith("N = 1, Q = −0.20")
    assert nodes[()] == "N = 3, Q = 0.20, kept, rank 1"


def test_the_drawing_has_a_titled_mark_for_each_node_and_nothing_lies_outside() -> None:
    svg = draw(SearchTree(tree_of(ROOT, [KEPT]), 1))
    assert svg.count("<g><title>") == 7 and svg.count("<circle") == 3 and svg.count("<rect") == 4
    assert svg.count('<path class="kept"') == 2 and svg.count('<path class="passed"') == 1
    assert "Dies &lt;b&gt;?" in svg and "<b>" not in svg
    width, height = map(float, re.search(r'viewBox="0 0 (\S+) (\S+)"', svg).groups())  # type: ignore[union-attr]
    places = [(float(x), float(y)) for x, y in re.findall(r'cx="(\S+)" cy="(\S+)"', svg)]
    assert all(0 < x < width and 0 < y < height for x, y in places)


def test_nodes_of_one_depth_do_not_cover_each_other() -> None:
    svg = draw(SearchTree(tree_of(ROOT, [KEPT]), 1))
    heights = [float(y) for y in re.findall(r'<rect class="\w+" x="\S+" y="(\S+)"', svg)]
    assert heights == sorted(heights) and min(b - a for a, b in zip(heights, heights[1:], strict=False)) > 12


def _harvest(rewards: dict[str, float]) -> pl.DataFrame:
    rows = [{"stay_id": stay, "rank": rank, "text": "t", "reward": reward - rank, "outcome_reward": 0.0,
             "attention_reward": 0.0, "probability": 0.5, "features": [], "depth": 1, "rollout": 0}
            for stay, reward in rewards.items() for rank in (1, 2)]
    return pl.DataFrame(rows, schema=dict(TRAJECTORIES.dtypes))


@pytest.mark.parametrize(("rewards", "stay"), [({"a": 3.0, "b": 1.0, "c": 2.0}, "c"), ({"b": 1.0, "a": 1.0}, "a"),
                                               ({}, None)])
def test_the_patient_has_the_median_of_the_best_rewards(rewards: dict[str, float], stay: str | None) -> None:
    assert choose(_harvest(rewards)) == stay
