"""Hostile answers: no text makes the parser raise, and time grows with length, not faster."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts.grammar import parse, parse_score, render_final, render_step
from prompts.templates import STYLES

anything = st.text(st.characters(exclude_categories=()), max_size=200)
shreds = st.lists(st.sampled_from(
    ["<Subquestion 1>", "</Subquestion 1>", "<Answer 1>", "</Answer 1>", "<Final subquestion>", "</Final subquestion>",
     "<Important Features>", "</Important Features>", "<Final answer>", "</Final answer>", "<think>", "</think>",
     "<answer>",
     "</answer>", "<", ">", "/", "0.5", "-1", "%", "nan", "1e999", "\n", ",", "\x00", "\ud800", "٣", "<Answer 99999>"]),
    max_size=30).map("".join)


@given(anything | shreds, st.sampled_from(STYLES))
def test_no_text_makes_the_parser_raise_and_what_it_finds_lies_in_the_text(text, style):
    answer = parse(text, style)
    assert (answer.probability is None) == (answer.probability_span is None)
    assert answer.well_formed == (answer.problem is None)
    if answer.probability is not None:
        assert 0.0 <= answer.probability <= 1.0
        assert text[slice(*answer.probability_span)].strip()
    else:
        assert not answer.well_formed
    assert all(name in text for name in answer.features)
    parse_score(text)


@given(shreds)
def test_a_well_formed_text_renders_to_a_well_formed_text_of_the_same_meaning(text):
    answer = parse(text + render_final("Risk?", ["pH"], 0.5))
    if answer.well_formed:
        steps = "".join(render_step(number, step.question, step.answer) for number, step in enumerate(answer.steps, 1))
        again = parse(steps + render_final(answer.final_question, answer.features, answer.probability))
        assert (again.steps, again.features, again.well_formed) == (answer.steps, answer.features, True)


FRAMES = ("{}", "<Final answer>{}</Final answer>", "<Important Features>{}</Important Features>")


def seconds_to_parse(text):
    began = time.process_time()
    parse(text)
    parse_score(text)
    return time.process_time() - began


@pytest.mark.timeout(120)
@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("unit", ["<", "<Answer 1>", "9", ",", " "])
def test_a_megabyte_of_hostile_text_is_parsed_in_seconds(unit, frame):
    assert seconds_to_parse(frame.format(unit * (1_000_000 // len(unit)))) < 20.0


@pytest.mark.timeout(120)
@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("unit", [
    "< ", "<final ", "</", "<Answer ", "<Answer 1></Answer 1>", "<Final answer>", "<Final answer>0.5</Final answer>",
    "0.",
    "<Important Features>", "-", ", 1. ", "\n", "<think>", "<Subquestion 1>a</Subquestion 1>", "\u2028", "1. 1. ", "* ",
    "<Important Features>a,b</Important Features>", "1e", "0.5.", "%"])
def test_other_hostile_texts_take_time_in_proportion(unit, frame):
    assert seconds_to_parse(frame.format(unit * (100_000 // len(unit)))) < 5.0
