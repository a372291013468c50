"""Why a stage ran: pages that say hit or miss and name each change; and what it cost, measured on real processes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from lineage.fingerprint import Recipe, changes
from tasks import why
from tasks.meter import Meter, Tokens, in_words

ROOT = Path(__file__).resolve().parents[2]


def recipe(**changed: object) -> Recipe:
    values: dict[str, object] = {"inputs": {"cohort": "a"}, "settings": {"rl.lr": 1.0}, "code": {"ehr.x": "c"},
                                 "versions": {"torch": "2"}}
    return Recipe("rl", **{**values, **changed})  # type: ignore[arg-type]


def test_each_change_stands_under_its_kind() -> None:
    new = recipe(inputs={"cohort": "b"}, settings={"rl.lr": 2.0}, code={"ehr.x": "d"}, versions={"torch": "3"})
    reasons = changes(recipe().to_json(), new)
    assert [why.kind_of(reason) for reason in reasons] == ["input", "setting", "code", "version"]
    page = why.page("rl", True, reasons, {}, "rl-1", "- loss: 1")
    assert "# rl: miss, made" in page and "| setting | setting rl.lr: 1.0 -> 2.0 |" in page and "- loss: 1" in page


def test_many_changes_are_counted_in_a_terminal_and_few_are_named() -> None:
    assert why.brief(["a", "b"]) == "a; b" and why.brief(list("abcd")) == "a; b; c; d"
    assert why.brief(list("abcdef")) == "a; b; c; d; and 2 more changes, on its page in Prefect"


def test_a_hit_says_what_was_saved() -> None:
    cost = {"cost.seconds": 12.34, "cost.prompt_tokens": 0.0, "cost.completion_tokens": 0.0, "cost.own_mib": 300.0,
            "cost.child_mib": 900.0}
    page = why.page("rl", False, ["nothing changed"], cost, "rl-1")
    assert "hit, reused" in page and "saved now: 12.3 s, 300 MiB of memory, 900 MiB in its largest child" in page
    assert "Cost when it was made, saved now: unknown" in why.page("rl", False, [], {}, "rl-1")


def test_text_cannot_break_the_table() -> None:
    assert "| - | a\\|b c |" in why.page("rl", True, ["a|b\nc"], {}, "rl-1")
    assert why.table([("a|b", True, "x|y", {}, "id")]).splitlines()[2].count(" | ") == 4


@pytest.mark.slow
def test_a_cost_holds_seconds_tokens_and_the_peak_of_a_child_that_has_freed_it() -> None:
    hungry = "x = bytearray(200 << 20); x[::4096] = b'1' * len(x[::4096]); del x; import time; time.sleep(3)"
    with Meter() as meter:
        child = subprocess.Popen([sys.executable, "-c", hungry])
        Tokens.add(100, 7)
        time.sleep(1.0)
        child.wait()
        cost = meter.cost()
    assert cost.seconds >= 3.0 and (cost.prompt_tokens, cost.completion_tokens) == (100, 7)
    assert cost.child_mib > 150.0 and cost.own_mib > 10.0
    assert "100 tokens read, 7 written" in in_words(cost.metrics())


def test_a_stage_without_children_has_none_to_report() -> None:
    # In a process of its own: one of the tests may have children that live on.
    alone = ("from tasks.meter import Meter, in_words\nwith Meter() as meter:\n    cost = meter.cost()\n"
             "print(cost.child_mib, in_words(cost.metrics()))")
    child_mib, words = subprocess.run([sys.executable, "-c", alone], cwd=ROOT, capture_output=True, text=True,
                                      check=True).stdout.split(maxsplit=1)
    assert float(child_mib) == 0.0 and "MiB of memory" in words and "child" not in words
