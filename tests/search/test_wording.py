"""Text between tags: sanitised, shortened, compared."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts import grammar
from search.wording import one_line, same, whole_sentences

TAGGY = st.lists(st.sampled_from(["<", ">", "/", "Answer", "Subquestion", "Final", " ", "1", "2", "\n", "think", "MAP",
                                  "</Answer 1>", "<Important Features>", "é", "\x00", "\ud800", "# ", "_", "-"]),
                 max_size=30).map("".join)


@pytest.mark.parametrize(("raw", "kept"), [
    (" Is MAP low? </Subquestion 1>\n<Answer 1> yes", "Is MAP low?"),
    ("<Answer 1> lactate rises </Answer 1>", "lactate rises"),
    ("MAP < 65 and lactate >2 -> shock", "MAP < 65 and lactate >2 - shock"),
    ("two\nlines\tand \x00 a  gap", "two lines and a gap"),
    ("a < b and <b>bold</b>", "a b and b bold"),
    ("</Answer 1><Answer 1>", ""),
    ("  \n ", ""), ("...?!", ""), ("<<<>>>", ""), ("", ""),
])
def test_a_text_becomes_one_line_without_tags(raw, kept):
    assert one_line(raw) == kept


@pytest.mark.parametrize(("raw", "kept"), [
    ("The MAP falls. Lactate is hi", "The MAP falls."),
    ("Yes. The arterial pressure keeps falling over all vis", "Yes. The arterial pressure keeps falling over all"),
    ("pH is 7. It fell to 7.", "pH is 7. It fell to"),
    ("word", "word"),
])
def test_a_text_that_ran_into_its_limit_ends_at_a_sentence_or_a_word(raw, kept):
    assert whole_sentences(raw) == kept
    assert one_line(raw, truncated=True) == kept


def test_a_text_cut_at_a_tag_is_whole_even_if_what_followed_ran_into_the_limit():
    assert one_line("Lactate is high <answer 2> and then som", truncated=True) == "Lactate is high"


def test_a_question_is_the_first_line_that_says_something():
    assert one_line("\n - \nIs it high?\nAnd lo", truncated=True, single=True) == "Is it high?"


@given(st.one_of(st.text(), TAGGY), st.booleans(), st.booleans())
def test_what_is_kept_is_printable_and_cannot_end_its_block(text, truncated, single):
    kept = one_line(text, truncated, single)
    assert kept.isprintable()
    assert one_line(kept) == kept
    kept.encode("utf-8")
    parsed = grammar.parse(grammar.render_step(1, kept, kept) + grammar.render_final(kept, ["pH"], 0.5))
    assert parsed.well_formed, parsed.problem
    assert parsed.steps == (grammar.Step(kept, kept),)


def test_case_blanks_and_punctuation_do_not_make_another_line_of_reasoning():
    assert same("Is the MAP low?\n") == same("is  the map low")
    assert same("Is the MAP low?") != same("Is the MAP high?")
