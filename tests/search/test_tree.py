"""UCT, selection, backup and the JSON form of the tree."""

import json
import math

import pytest

from search.seeds import derived_seed
from search.tree import Node, as_json, backup, choose_child, descend, most_useful, uct


@pytest.mark.parametrize(("value", "parent", "visits", "exploration", "expected"), [
    (0.5, 10, 2, 1.0, 1.5729830131446736),
    (-0.25, 4, 2, 1.0, 0.5825546111576977),
    (0.5, 10, 2, 0.0, 0.5),
    (0.3, 1, 1, 5.0, 0.3),
    (-1.0, 7, 3, 2.0, 0.6107597168439136),
])
def test_the_upper_confidence_bound_has_its_golden_values(value, parent, visits, exploration, expected):
    assert uct(value, parent, visits, exploration) == pytest.approx(expected, abs=1e-9)


def test_a_child_never_visited_has_an_infinite_bound_even_without_exploration():
    assert uct(-100.0, 50, 0, 0.0) == math.inf
    assert uct(0.0, 0, 0, 1.0) == math.inf


@pytest.mark.parametrize(("parent", "visits"), [(-1, 0), (3, -1), (0, 2)])
def test_impossible_counts_are_refused(parent, visits):
    with pytest.raises(ValueError, match="visits"):
        uct(0.0, parent, visits, 1.0)


def _family(children):
    root = Node("root")
    for prior, visits, value in children:
        child = root.attach("child", prior, terminal=True, seed=1)
        child.visits, child.value = visits, value
    root.visits = sum(visits for _, visits, _ in children)
    return root


def test_selection_takes_the_unvisited_child_first_however_good_the_others_are():
    root = _family([(1.0, 5, 100.0), (0.0, 0, 0.0), (0.5, 3, 50.0)])
    assert choose_child(root, 1.0).path == (1,)


def test_among_unvisited_children_the_more_useful_one_comes_first():
    assert choose_child(_family([(1.0, 0, 0.0), (3.0, 0, 0.0), (2.0, 0, 0.0)]), 1.0).path == (1,)


def test_selection_weighs_value_against_visits():
    root = _family([(0.0, 10, 0.5), (0.0, 1, 0.0)])
    assert choose_child(root, 0.1).path == (0,)
    assert choose_child(root, 1.0).path == (1,)


def test_equal_scores_are_decided_by_the_seed():
    chosen = set()
    for seed in range(20):
        root = Node("root")
        for _ in range(3):
            root.attach("child", 7.0, terminal=True, seed=seed)
        chosen.add(most_useful(root.children).path)
        assert most_useful(root.children) is most_useful(list(reversed(root.children)))
    assert chosen == {(0,), (1,), (2,)}


def test_backup_keeps_the_running_mean_and_counts_each_visit_once():
    path = [Node("root"), Node("child", (0,))]
    for reward in (1.0, 0.0, -2.5):
        backup(path, reward)
    assert [node.visits for node in path] == [3, 3]
    assert [node.value for node in path] == pytest.approx([-0.5, -0.5])


def test_descent_stops_at_the_first_node_never_visited():
    root = _family([(0.0, 1, 0.0), (0.0, 0, 0.0)])
    root.children[1].attach("grandchild", 0.0, terminal=True, seed=1)
    assert [node.path for node in descend(root, 1.0)] == [(), (1,)]
    assert [node.path for node in descend(Node("alone"), 1.0)] == [()]


def test_the_tree_as_json_holds_every_node_with_its_numbers():
    root = _family([(0.25, 2, -0.5), (0.75, 0, 0.0)])
    tree = json.loads(json.dumps(as_json(root, lambda state: {"name": state})))
    assert (tree["name"], tree["visits"], tree["path"]) == ("root", 2, [])
    assert [(child["path"], child["prior"], child["visits"], child["value"]) for child in tree["children"]] == [
        ([0], 0.25, 2, -0.5), ([1], 0.75, 0, 0.0)]


def test_derived_seeds_depend_on_every_part_and_on_nothing_else():
    assert derived_seed(42, "stay", (0, 1), "question", 0) == 2078964206
    parts = [(42, "a", (0,), "q"), (43, "a", (0,), "q"), (42, "b", (0,), "q"), (42, "a", (1,), "q"),
             (42, "a", (0,), "s"), (42, "a", (0, 0), "q")]
    seeds = [derived_seed(*part) for part in parts]
    assert len(set(seeds)) == len(parts)
    assert all(0 <= seed < 2**31 for seed in seeds)
