"""The search tree of one training patient, drawn: visits N, values Q, and which trajectories were kept.

In go a tree as plain values (`search.tree.as_json` with the words of its states) and the harvested trajectories of its
patient; out come a `SearchTree` and its drawing as `<svg>`: depth from left to right, a circle grows with its visits,
paths of kept trajectories are thick. Which patient is shown follows `RULE`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import polars as pl

from contracts.frames import TRAJECTORIES
from evaluation.case_study import Segment
from prompts import grammar

RULE = ("Of the training stays that were searched, the one whose best trajectory has the median reward R (the lower of "
        "two, ties by stay identifier).")
Path = tuple[int, ...]
# Pixels: from one depth to the next, between two visited leaves, between two that no rollout entered, at the edges.
_STEP, _ROW, _SMALL_ROW, _EDGE = 150, 34, 13, 22


@dataclass(frozen=True)
class TreeNode:
    """One state of the search.

    Attributes:
        path: index among the siblings at each level below the root.
        words: the subquestion that led here, and its answer or prediction.
        prior: usefulness r of the subquestion; reward: R, of a terminal node that a rollout reached.
        kept: rank of the best kept trajectory that leads through here, None: none does.
    """

    path: Path
    words: tuple[str, str]
    visits: int
    value: float
    prior: float
    terminal: bool
    reward: float | None
    kept: int | None


@dataclass(frozen=True)
class SearchTree:
    """A patient's tree, nodes in depth-first order.

    Attributes:
        label: the patient's outcome.
        best: the kept trajectory of rank 1, cut at its mentions.
        expert_features: what the search was rewarded for naming.
    """

    nodes: tuple[TreeNode, ...]
    label: int
    best: tuple[Segment, ...] = ()
    expert_features: tuple[str, ...] = ()


def choose(trajectories: pl.DataFrame) -> str | None:
    """The stay that `RULE` picks; None without any trajectory."""
    best = TRAJECTORIES.check(trajectories).filter(pl.col("rank") == 1).sort("reward", "stay_id")
    return str(best["stay_id"][(best.height - 1) // 2]) if best.height else None


def tree_of(root: Mapping[str, Any], kept: Sequence[str]) -> tuple[TreeNode, ...]:
    """The nodes of a tree, marked where a kept trajectory leads.

    Args:
        root: with path, visits, value, prior, terminal, reward, children, and question with answer, or with features
            and probability.
        kept: texts of the harvested trajectories, rank 1 first.
    """
    ends = dict(_texts(root, ""))
    ranks: dict[Path, int] = {}
    for rank, text in reversed(list(enumerate(kept, start=1))):
        for end in [path for path, found in ends.items() if found == text][:1]:
            ranks |= dict.fromkeys((end[:length] for length in range(len(end) + 1)), rank)
    return tuple(_node(values, ranks) for values in _walk(root))


def _walk(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for child in node["children"]:
        yield from _walk(child)


def _texts(node: Mapping[str, Any], before: str) -> Iterator[tuple[Path, str]]:
    """Path and whole text of each end that a rollout reached."""
    text, depth = before, len(node["path"])
    if "probability" in node:
        if node["reward"] is not None:
            yield tuple(node["path"]), before + grammar.render_final(node["question"], node["features"],
                                                                     node["probability"])
        return
    if depth:
        text += grammar.render_step(depth, node["question"], node["answer"])
    for child in node["children"]:
        yield from _texts(child, text)


def _node(values: Mapping[str, Any], ranks: Mapping[Path, int]) -> TreeNode:
    path = tuple(values["path"])
    if "probability" in values:
        said = f"Risk {values['probability']:.2f}; features: {', '.join(values['features'])}"
    else:
        said = values.get("answer", "")
    return TreeNode(path, (values.get("question", ""), said), values["visits"], values["value"], values["prior"],
                    values["terminal"], values["reward"], ranks.get(path))


def numbers(node: TreeNode) -> str:
    """A node's figures in words."""
    figures = [f"N = {node.visits}", f"Q = {_signed(node.value)}" if node.visits else "never entered"]
    figures += [f"r = {node.prior:.0f}"] if node.path else []
    figures += [f"R = {_signed(node.reward)}"] if node.reward is not None else []
    figures += [f"kept, rank {node.kept}"] if node.kept else []
    return ", ".join(figures)


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def draw(tree: SearchTree, name: str = "tree") -> str:
    """The tree as an `<svg>` element; hovering a node shows its text."""
    places = _places(tree.nodes)
    width = _EDGE * 2 + _STEP * max(len(node.path) for node in tree.nodes) + 110
    height = max(y for _, y in places.values()) + _EDGE
    visits = max(tree.nodes[0].visits, 1)
    told = (f"{len(tree.nodes)} nodes, {sum(node.terminal for node in tree.nodes)} of them ends, {visits} rollouts. "
            "Every node stands in the list below the picture.")
    lines = [f'<svg viewBox="0 0 {width} {height:.0f}" role="img" aria-labelledby="{name}-title {name}-description" '
             f'class="plot tree" style="max-width: {width}px; min-width: min(38rem, {width}px)">',
             f'<title id="{name}-title">Search tree of one training patient</title>',
             f'<desc id="{name}-description">{told}</desc>']
    lines += [_edge(node, places) for node in tree.nodes if node.path]
    lines += [_circle(node, places[node.path], visits) for node in tree.nodes]
    return "\n".join([*lines, "</svg>"])


def _places(nodes: Sequence[TreeNode]) -> dict[Path, tuple[float, float]]:
    """x by depth; y of leaves one below the other, of others in the middle of their children."""
    parents = {node.path[:-1] for node in nodes if node.path}
    heights: dict[Path, float] = {}
    edge = float(_EDGE)
    for node in nodes:
        if node.path not in parents:
            row = _ROW if node.visits else _SMALL_ROW
            heights[node.path] = edge + row / 2
            edge += row
    for node in sorted(nodes, key=lambda one: -len(one.path)):
        if node.path in parents:
            below = [y for path, y in heights.items() if path[:-1] == node.path and path]
            heights[node.path] = (min(below) + max(below)) / 2
    return {path: (float(_EDGE + _STEP * len(path)), y) for path, y in heights.items()}


def _edge(node: TreeNode, places: Mapping[Path, tuple[float, float]]) -> str:
    (left, top), (right, bottom) = places[node.path[:-1]], places[node.path]
    middle = (left + right) / 2
    look = 'class="kept"' if node.kept else 'class="entered"' if node.visits else 'class="passed"'
    return (f'<path {look} d="M{left:.1f},{top:.1f} C{middle:.1f},{top:.1f} {middle:.1f},{bottom:.1f} '
            f'{right:.1f},{bottom:.1f}"/>')


def _circle(node: TreeNode, place: tuple[float, float], visits: int) -> str:
    """The circle with its figures beside it and its words as hover text."""
    x, y = place
    words = "\n".join(part for part in (numbers(node), *node.words) if part) if node.path else numbers(node)
    radius = 4 + 8 * node.visits / visits if node.visits else 3
    look = "kept" if node.kept else "entered" if node.visits else "passed"
    shape = (f'<rect class="{look}" x="{x - radius:.1f}" y="{y - radius:.1f}" width="{2 * radius:.1f}" '
             f'height="{2 * radius:.1f}"/>' if node.terminal else
             f'<circle class="{look}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>')
    label = ""
    if node.visits:
        figure = f"R {_signed(node.reward)}" if node.reward is not None else f"Q {_signed(node.value)}"
        kept = f" · kept {node.kept}" if node.kept and node.terminal else ""
        label = (f'<text x="{x + radius + 4:.1f}" y="{y - 3:.1f}">N {node.visits} · {figure}{kept}</text>')
    return f"<g><title>{escape(words)}</title>{shape}{label}</g>"
