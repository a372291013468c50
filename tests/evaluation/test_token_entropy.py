import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.generation import Generation
from evaluation.token_entropy import at_least, bounds, mention_entropy, placed
from prompts.mentions import Mention


@given(st.lists(st.floats(0.001, 1.0), min_size=2, max_size=30), st.integers(1, 30))
def test_the_bound_never_exceeds_the_entropy_and_meets_it_where_all_are_known(weights: list[float], known: int) -> None:
    shares = np.sort(np.array(weights) / np.sum(weights))[::-1]
    whole = float(-(shares * np.log(shares)).sum())
    found = at_least({str(number): math.log(share) for number, share in enumerate(shares[:known])})
    assert 0.0 <= found <= whole + 1e-9
    if known >= len(shares) - 1:
        assert found == pytest.approx(whole, abs=1e-9)


@pytest.mark.parametrize(("logprobs", "expected"), [({}, 0.0), ({"a": 0.0}, 0.0), ({"a": 1e-7}, 0.0),
                                                    ({"a": -math.inf, "b": 0.0}, 0.0)])
def test_a_model_that_is_sure_or_tells_nothing_has_none(logprobs: dict[str, float], expected: float) -> None:
    assert at_least(logprobs) == expected


def test_tokens_stand_where_their_text_stands_and_special_ones_nowhere() -> None:
    half = {"a": math.log(0.5), "b": math.log(0.5)}
    answer = Generation("high pH", (), ("high", " pH", "<end>"), (), ({"a": 0.0}, half, half))
    rows = placed(answer, bounds(answer))
    assert [(row["start"], row["end"]) for row in rows] == [(0, 4), (4, 7)]
    assert [row["entropy"] for row in rows] == pytest.approx([0.0, math.log(2)])
    assert placed(answer, ()) == [] and placed(Generation("x", (), ("y",), (), (half,)), (0.1,)) == []


def test_only_tokens_of_a_mention_count() -> None:
    tokens = [{"start": 0, "end": 4, "entropy": 1.0}, {"start": 4, "end": 6, "entropy": 0.4},
              {"start": 6, "end": 9, "entropy": 0.2}]
    assert mention_entropy(tokens, [Mention("pH", 5, 7)]) == pytest.approx(0.3)
    assert mention_entropy(tokens, []) is None and mention_entropy([], [Mention("pH", 0, 2)]) is None
    assert mention_entropy(tokens, [Mention("a", 5, 7), Mention("b", 6, 9)]) == pytest.approx(0.3)
