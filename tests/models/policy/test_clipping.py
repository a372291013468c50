import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.policy.chat import ChatTokenizer
from models.policy.clipping import clipped, mean_mention_entropy, mention_token_mask, upper_bounds
from models.policy.spelling import Speller

NAN = float("nan")
entropies = st.one_of(st.just(NAN), st.floats(0, 11, width=32))


def naive_bounds(values: list[float], group: int, low: float, high: float) -> list[float]:
    """The formula of the paper, one trajectory after the other."""
    result = []
    for index, value in enumerate(values):
        first = index // group * group
        seen = [other for other in values[first:first + group] if not math.isnan(other)]
        if math.isnan(value) or max(seen) - min(seen) <= 1e-6:
            result.append(low)
        else:
            result.append(low + (high - low) * (value - min(seen)) / (max(seen) - min(seen)))
    return result


def test_bounds_of_two_groups_by_hand() -> None:
    mean = torch.tensor([1.0, 2.0, 1.5, NAN, 0.7, 0.7, 0.7, 0.7])
    assert upper_bounds(mean, 4).tolist() == pytest.approx([0.2, 0.4, 0.3, 0.2, 0.2, 0.2, 0.2, 0.2])


def test_one_trajectory_with_mentions_gets_the_smallest_bound() -> None:
    assert upper_bounds(torch.tensor([NAN, 3.0, NAN]), 3, 0.1, 0.9).tolist() == pytest.approx([0.1] * 3)


@given(st.integers(1, 5).flatmap(lambda group: st.tuples(
    st.just(group), st.lists(st.lists(entropies, min_size=group, max_size=group), min_size=1, max_size=4))))
def test_bounds_equal_the_naive_loop_and_stay_in_range(case: tuple[int, list[list[float]]]) -> None:
    group, rows = case
    values = [value for row in rows for value in row]
    bounds = upper_bounds(torch.tensor(values), group)
    assert bounds.tolist() == pytest.approx(naive_bounds(values, group, 0.2, 0.4), abs=1e-4)
    assert ((bounds >= 0.2) & (bounds <= 0.4)).all()


@given(st.lists(st.floats(0, 11, width=32), min_size=4, max_size=4), st.permutations(range(4)))
def test_the_order_within_a_group_does_not_matter(values: list[float], order: list[int]) -> None:
    mean = torch.tensor(values)
    assert torch.equal(upper_bounds(mean, 4)[order], upper_bounds(mean[order], 4))


def test_equal_ranges_give_that_range_to_all() -> None:
    assert upper_bounds(torch.tensor([0.1, 5.0, NAN]), 3, 0.28, 0.28).tolist() == pytest.approx([0.28] * 3)


def test_bounds_carry_no_gradient() -> None:
    entropy = torch.rand(4, 6, requires_grad=True)
    assert not upper_bounds(mean_mention_entropy(entropy, torch.ones(4, 6, dtype=torch.bool)), 4).requires_grad


def test_incomplete_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="groups of 4"):
        upper_bounds(torch.zeros(6), 4)


def test_mean_entropy_counts_mentions_alone() -> None:
    entropy = torch.tensor([[1.0, 2.0, 9.0], [4.0, 4.0, 4.0]])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    mean = mean_mention_entropy(entropy, mask)
    assert mean[0] == 1.5 and mean[1].isnan()


def test_a_ratio_clips_by_the_bound_of_its_own_trajectory() -> None:
    ratio = torch.tensor([[1.25, 1.35, 0.5], [1.25, 1.35, 0.5], [1.5, 0.75, 0.85]])
    below, above = clipped(ratio, torch.tensor([1.0, 1.0, -1.0]), torch.ones(3, 3), 0.2, torch.tensor([0.2, 0.3, 0.2]))
    assert above.tolist() == [[True, True, False], [False, True, False], [False] * 3]
    assert below.tolist() == [[False] * 3, [False] * 3, [False, True, False]]


def test_padding_never_counts_as_clipped() -> None:
    below, above = clipped(torch.tensor([[9.0, 9.0]]), torch.tensor([1.0]), torch.tensor([[1, 0]]), 0.2,
                           torch.tensor([0.2]))
    assert above.tolist() == [[True, False]] and not below.any()


def test_the_tokens_of_a_mention_are_masked(tokenizer: ChatTokenizer, words: type) -> None:
    text = "The Glucose level rises, while procalcitonin (µg/L) stays."
    ids = tokenizer.encode(text)
    mask = mention_token_mask([ids], Speller(tokenizer), words("Glucose", "procalcitonin"))[0]
    chosen = tokenizer.decode([token for token, flag in zip(ids, mask.tolist(), strict=True) if flag])
    assert chosen.split() == ["Glucose", "procalcitonin"]


def test_special_tokens_and_padding_are_never_masked(tokenizer: ChatTokenizer, words: type) -> None:
    ids = [*tokenizer.encode("pH"), tokenizer.eos_id, tokenizer.eos_id, *tokenizer.encode(" pH")]
    mask = mention_token_mask([ids, []], Speller(tokenizer), words("pH"), width=9)
    inside = len(tokenizer.encode("pH"))
    assert mask.shape == (2, 9)
    assert mask[0].tolist()[:inside + 3] == [True] * inside + [False, False, True]
    assert not mask[1].any()


def test_a_character_split_over_tokens_belongs_to_all_of_them(tokenizer: ChatTokenizer) -> None:
    ids = tokenizer.encode("a 🩸 b")
    mask = mention_token_mask([ids], Speller(tokenizer), Blood())[0]
    text, spans = Speller(tokenizer).spell(ids)
    assert text == "a 🩸 b"
    assert mask.sum() >= 2, "the emoji takes several tokens of this vocabulary"
    assert [bool(flag) for flag in mask] == [start <= 2 < end for start, end in spans]


class Blood:
    def find(self, text: str) -> list:
        from types import SimpleNamespace

        at = text.index("🩸")
        return [SimpleNamespace(start=at, end=at + 1)]


@given(st.text(max_size=60))
def test_spelling_gives_back_the_text_and_spans_that_cover_it(tokenizer: ChatTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    spelled, spans = Speller(tokenizer).spell(ids)
    assert spelled == tokenizer.decode(ids)
    covered = {index for start, end in spans for index in range(start, end)}
    assert covered == set(range(len(spelled)))


@given(st.lists(st.integers(0, 49_200), max_size=40))
def test_any_sampled_ids_can_be_spelled(tokenizer: ChatTokenizer, ids: list[int]) -> None:
    text, spans = Speller(tokenizer).spell(ids)
    assert len(spans) == len(ids)
    assert all(0 <= start <= end <= len(text) for start, end in spans)
    assert [start for start, _ in spans] == sorted(start for start, _ in spans)


def test_two_halves_of_a_broken_character_stay_apart_from_the_next_word(tokenizer: ChatTokenizer) -> None:
    half = next(index for index in range(len(tokenizer)) if Speller(tokenizer).bytes_of(index) == b"\xe2")
    text, spans = Speller(tokenizer).spell([half, *tokenizer.encode("pH")])
    assert text.replace("\ufffd", "") == "pH"
    assert spans[0] == (0, 1) and spans[1][0] == 1
