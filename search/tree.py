"""The search tree: nodes, the upper confidence bound that chooses among them, and the backup of rewards.

The item is a `Node`: a state, how often it was visited (N), the mean reward of those visits (Q) and the local reward
(r) with which its parent's expansion ranked it. In: states of any kind. Out: a path of nodes; the tree as JSON-ready
values.

Visits are counted once, in `backup`. Algorithm 1 of EAG-RL (arXiv 2508.13579) raises N(s) on the way down, before it
compares the children of s, and again in backpropagation; read literally that counts a visit twice. Here the visit that
is under way enters the comparison as `N(s) + 1` and is written down when the reward is known. The choices are those of
the algorithm with every visit counted once, and a rollout that fails half-way leaves the tree as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from search.seeds import derived_seed

S = TypeVar("S")


@dataclass(eq=False)
class Node(Generic[S]):
    """One state in the tree.

    Attributes:
        state: the trajectory up to here.
        path: index among the siblings for each level below the root; its length is the depth.
        prior: r, the local reward of the action that led here.
        terminal: no action is left.
        reward: R of a terminal node, once computed.
        visits: N.
        value: Q, the running mean of R over the visits; 0 before the first.
        tie: pseudo-random number that decides between equals.
    """

    state: S
    path: tuple[int, ...] = ()
    prior: float = 0.0
    terminal: bool = False
    reward: float | None = None
    visits: int = 0
    value: float = 0.0
    tie: int = 0
    children: list[Node[S]] = field(default_factory=list)

    @property
    def depth(self) -> int:
        """Actions from the root to here."""
        return len(self.path)

    def attach(self, state: S, prior: float, terminal: bool, seed: int) -> Node[S]:
        """Adds and returns the next child; `seed` with its path fixes its tie-breaker."""
        path = (*self.path, len(self.children))
        child = Node(state, path, prior, terminal, tie=derived_seed(seed, path, "tie"))
        self.children.append(child)
        return child


def uct(value: float, parent_visits: int, visits: int, exploration: float) -> float:
    """Upper confidence bound of a child: Q + lambda_1 * sqrt(ln N(parent) / N(child)).

    Args:
        value: Q of the child.
        parent_visits: N of the parent, the visit under way included.
        visits: N of the child.
        exploration: lambda_1.

    Returns:
        The bound; +inf for a child never visited, so that it comes first.

    Raises:
        ValueError: a negative count, or a visited child of a parent never visited.
    """
    if visits < 0 or parent_visits < 0:
        raise ValueError(f"visits={visits}, parent_visits={parent_visits}: counts cannot be negative")
    if visits == 0:
        return math.inf
    if parent_visits == 0:
        raise ValueError(f"visits={visits} with parent_visits=0: who visits a child visits its parent")
    return value + exploration * math.sqrt(math.log(parent_visits) / visits)


def choose_child(node: Node[S], exploration: float) -> Node[S]:
    """The child with the largest bound; among equals the larger r, then the larger tie-breaker."""
    return max(node.children, key=lambda child: (
        uct(child.value, node.visits + 1, child.visits, exploration), child.prior, child.tie))


def most_useful(nodes: Sequence[Node[S]]) -> Node[S]:
    """The argmax of the local reward r; equal scores are decided by the tie-breaker, hence by the seed."""
    return max(nodes, key=lambda node: (node.prior, node.tie))


def descend(root: Node[S], exploration: float) -> list[Node[S]]:
    """Selection: from the root while the node has been visited, always to the child of the largest bound.

    Returns:
        The path, root first. It ends at a node never visited, or at a terminal one that may have been: where everything
        below is explored, a known end is visited again.
    """
    path = [root]
    while path[-1].visits and path[-1].children:
        path.append(choose_child(path[-1], exploration))
    return path


def backup(path: Sequence[Node[S]], reward: float) -> None:
    """Backpropagation: N += 1 and Q = running mean of R, once for every node of the path."""
    for node in path:
        node.visits += 1
        node.value += (reward - node.value) / node.visits


def as_json(node: Node[S], describe: Callable[[S], Mapping[str, Any]]) -> dict[str, Any]:
    """The tree below `node` as JSON-ready values: N, Q, r, R and what `describe` says about each state."""
    return {"path": list(node.path), "visits": node.visits, "value": node.value, "prior": node.prior,
            "terminal": node.terminal, "reward": node.reward, **describe(node.state),
            "children": [as_json(child, describe) for child in node.children]}
