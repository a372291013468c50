import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.generation import Generation
from prompts.token_risk import token_probability, token_spans


def _answer(*steps: tuple[str, dict[str, float]], text: str | None = None) -> Generation:
    """A generation from (sampled token, probabilities of its alternatives); the sampled one need not be among them."""
    tokens = tuple(token for token, _ in steps)
    top = tuple({token: math.log(share) for token, share in known.items()} for _, known in steps)
    logprobs = tuple(math.log(known.get(token, 0.5)) for token, known in steps)
    return Generation(text="".join(tokens) if text is None else text, token_ids=tuple(range(len(tokens))),
                      tokens=tokens, logprobs=logprobs, top=top)


def _read(answer: Generation, number: str) -> float | None:
    start = answer.text.index(number)
    return token_probability(answer, (start, start + len(number)))


def test_a_two_digit_token_stands_for_the_middle_of_its_hundredth() -> None:
    answer = _answer((" 0", {}), (".", {}), ("73", {"73": 0.5, "12": 0.3, " no": 0.2}), (" </", {}))
    assert _read(answer, "0.73") == pytest.approx((0.5 * 0.735 + 0.3 * 0.125) / 0.8)


def test_digit_by_digit_the_sampled_branch_is_followed_to_its_second_digit() -> None:
    answer = _answer(("0", {}), (".", {}), ("7", {"7": 0.6, "2": 0.4}), ("3", {"3": 0.5, "9": 0.25, " ": 0.25}))
    branch = (0.5 * 0.735 + 0.25 * 0.795) / 0.75
    assert _read(answer, "0.73") == pytest.approx(0.6 * branch + 0.4 * 0.25)


def test_a_tokeniser_that_joins_zero_and_point_reads_the_same() -> None:
    known = {"7": 0.6, "2": 0.4}
    split = _answer(("<a>", {}), (" 0", {}), (".", {}), ("7", known))
    joined = _answer(("<a>", {}), (" 0.", {}), ("7", known))
    assert _read(split, "0.7") == _read(joined, "0.7") == pytest.approx(0.6 * 0.75 + 0.4 * 0.25)


def test_a_token_that_holds_the_whole_number_is_compared_with_whole_numbers() -> None:
    answer = _answer(("> 0.7", {"> 0.7": 0.5, "> 0.1": 0.25, "> 1.0": 0.15, "0.9": 0.1}), (" <", {}))
    assert _read(answer, "0.7") == pytest.approx((0.5 * 0.75 + 0.25 * 0.15) / 0.75)


def test_the_number_may_begin_with_its_point() -> None:
    assert _read(_answer((" ", {}), (".4", {".4": 0.75, ".8": 0.25})), ".4") == pytest.approx(0.75 * 0.45 + 0.25 * 0.85)


def test_a_token_that_runs_past_the_number_is_cut_at_its_digits() -> None:
    answer = _answer(("0.", {}), ("7</", {"7</": 0.5, "1</": 0.5}), ("b>", {}))
    assert _read(answer, "0.7") == pytest.approx(0.5 * 0.75 + 0.5 * 0.15)


def test_the_sampled_token_counts_though_it_is_not_among_the_likeliest() -> None:
    answer = _answer(("0.", {}), ("7", {"1": 0.5}))
    assert _read(answer, "0.7") == pytest.approx((0.5 * 0.75 + 0.5 * 0.15) / 1.0)


@pytest.mark.parametrize("number", ["1", "1.00", "0"])
def test_a_number_without_decimals_after_a_zero_cannot_be_read(number: str) -> None:
    assert _read(_answer(("=", {}), (number, {number: 0.9, "0.5": 0.1})), number) is None


def test_without_alternatives_nothing_is_read() -> None:
    answer = Generation("0.7", (1, 2), ("0.", "7"))
    assert token_probability(answer, (0, 3)) is None


def test_tokens_that_do_not_spell_the_text_are_not_read() -> None:
    assert _read(_answer(("0.", {}), ("9", {"9": 1.0}), text="0.7"), "0.7") is None


def test_broken_characters_before_the_number_do_not_shift_it() -> None:
    steps = (("heart ", {}), ("\ufffd", {}), ("\ufffd\ufffd", {}), ("", {}), ("é ", {}), ("0", {}), (".", {}),
             ("7", {"7": 0.5, "2": 0.5}), ("<|im_end|>", {}))
    answer = _answer(*steps, text="heart 🫀é 0.7")
    assert _read(answer, "0.7") == pytest.approx(0.5)


def test_white_space_that_a_tokeniser_hides_and_special_tokens_are_passed_over() -> None:
    assert token_spans("a 0.7 b", ["a", "<s>", "0.7", "b", "</s>"]) == [(0, 1), None, (2, 5), (6, 7), None]


def test_a_text_cut_by_a_stop_string_keeps_the_places_before_it() -> None:
    assert token_spans("x 0.", ["x", " 0", ".5", " </"]) == [(0, 1), (1, 3), (3, 4), None]


@given(st.text(max_size=40), st.data())
def test_tokens_cut_anywhere_in_the_bytes_are_found_at_their_characters(text: str, data: st.DataObject) -> None:
    raw = text.encode("utf-8", "ignore")
    text = raw.decode("utf-8")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=12)))
    pieces = [raw[start:end].decode("utf-8", "replace")
              for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    spans = token_spans(text, pieces)
    assert spans is not None
    for piece, span in zip(pieces, spans, strict=True):
        letters = "".join(character for character in piece if character.isascii())
        if span is None:
            assert not letters
        else:
            assert "".join(character for character in text[span[0]:span[1]] if character.isascii()) == letters


@given(st.lists(st.floats(0.001, 1.0), min_size=10, max_size=10), st.integers(0, 9))
def test_the_risk_is_an_average_of_middles_and_follows_the_models_certainty(shares: list[float], sampled: int) -> None:
    total = sum(shares)
    known = {str(digit): share / total for digit, share in enumerate(shares)}
    found = _read(_answer(("0.", {}), (str(sampled), known)), f"0.{sampled}")
    assert found == pytest.approx(sum(share * (digit + 0.5) / 10 for digit, share in enumerate(known.values())))
    assert found is not None and 0.05 - 1e-12 <= found <= 0.95 + 1e-12
