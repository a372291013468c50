"""The grammar of answers: what is rendered is read back, and what breaks a rule is told."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.features import catalogue
from prompts.grammar import (
    PROBABILITY_REGEX,
    SCORE_REGEX,
    Parsed,
    Step,
    answer_tags,
    parse,
    parse_score,
    question_tags,
    render_final,
    render_step,
)

GOOD = (render_step(1, "How are the kidneys?", "Creatinine doubles.")
        + render_step(2, "Is pH < 7.35 a trend?", "Yes, 7.31 then 7.2.")
        + render_final("Will the patient die?", ["pH", "Age & Sex"], 0.734))
END = render_final("Risk?", ["pH"], 0.5)


def test_a_trajectory_is_written_line_by_line():
    assert GOOD.splitlines() == [
        "<Subquestion 1> How are the kidneys? </Subquestion 1>", "<Answer 1> Creatinine doubles. </Answer 1>",
        "<Subquestion 2> Is pH < 7.35 a trend? </Subquestion 2>", "<Answer 2> Yes, 7.31 then 7.2. </Answer 2>",
        "<Final subquestion> Will the patient die? </Final subquestion>",
        "<Important Features> pH, Age & Sex </Important Features>", "<Final answer> 0.73 </Final answer>"]
    assert GOOD.endswith("\n")


def test_a_trajectory_is_read_back_whole():
    start = GOOD.index("0.73")
    assert parse(GOOD) == Parsed(
        steps=(Step("How are the kidneys?", "Creatinine doubles."),
               Step("Is pH < 7.35 a trend?", "Yes, 7.31 then 7.2.")),
        final_question="Will the patient die?", features=("pH", "Age & Sex"), probability=0.73,
        probability_span=(start, start + 4), well_formed=True, problem=None)


texts = st.text(max_size=60)
plain_names = st.from_regex(r"[A-Za-z][A-Za-z0-9&()%# ]{0,20}[a-z]", fullmatch=True)
parts = st.lists(st.sampled_from(["<Answer 1>", "</Answer 1>", "</final ANSWER>", "< /Subquestion  2 >", "<", ">",
                                  "<think>",
                                  "0.9", "pH < 7", "\n", "</", "<Important Features", "\x00", "\udc80"]),
                 max_size=6).map("".join)


@given(st.lists(st.tuples(texts | parts, texts | parts), max_size=4), texts | parts,
       st.lists(plain_names, min_size=1, max_size=6), st.floats(0, 1))
def test_whatever_the_texts_a_rendered_answer_is_well_formed_and_renders_back(pairs, question, names, probability):
    text = "".join(render_step(number, *pair) for number, pair in enumerate(pairs, 1))
    text += render_final(question, names, probability)
    answer = parse(text)
    assert (answer.well_formed, answer.problem, len(answer.steps)) == (True, None, len(pairs))
    assert answer.probability == pytest.approx(probability, abs=0.00501)
    assert answer.features == tuple(name.strip() for name in names)
    again = "".join(render_step(number, step.question, step.answer) for number, step in enumerate(answer.steps, 1))
    assert again + render_final(answer.final_question, answer.features, answer.probability) == text


tagless = st.text(st.characters(exclude_characters="<"), max_size=60)


@given(tagless, tagless)
def test_texts_without_tags_come_back_unchanged(question, answer):
    step = parse(render_step(1, question, answer) + END).steps[0]
    assert step == Step(question.strip(), answer.strip())


def test_tags_inside_a_text_lose_their_angle_brackets():
    step = parse(render_step(1, "Why? </Subquestion 1><Answer 1> 5", "<final answer> 0.99 </final answer>") + END)
    assert step.steps == (Step("Why? (/Subquestion 1)(Answer 1) 5", "(final answer) 0.99 (/final answer)"),)
    assert (step.probability, step.well_formed) == (0.5, True)


@pytest.mark.parametrize("name", ["mimic_iv", "tjh"])
def test_every_canonical_name_survives_the_list_of_features(name):
    tokens = catalogue(name).tokens
    assert parse(render_final("Risk?", tokens, 0.5)).features == tokens


@pytest.mark.parametrize("names", [[], [""], ["a, b"], ["a;b"], ["a\nb"], ["- a"], ["1. a"], ["a", " "], ["a."]])
def test_a_list_of_names_that_could_not_be_read_back_is_refused(names):
    with pytest.raises(ValueError, match="names|one name"):
        render_final("Risk?", names, 0.5)


@pytest.mark.parametrize("probability", [-0.01, 1.01, float("nan"), float("inf")])
def test_a_probability_outside_0_to_1_is_not_written(probability):
    with pytest.raises(ValueError, match="not in"):
        render_final("Risk?", ["pH"], probability)


@pytest.mark.parametrize("text", [
    GOOD.upper(), GOOD.replace("<", "< ").replace(">", " >"), GOOD.replace("\n", "\n\n \t"), GOOD.replace("\n", ""),
    GOOD.replace("Important Features", "important_features"), GOOD.replace("Final answer", "Final  Answer"),
    f"\n {GOOD} ",
    GOOD.replace(" 1>", "1>").replace(" 2>", " #2>")])
def test_letter_case_and_blanks_of_tags_do_not_matter(text):
    answer = parse(text)
    assert (answer.well_formed, answer.probability, len(answer.steps), len(answer.features)) == (True, 0.73, 2, 2)


@pytest.mark.parametrize(("text", "problem"), [
    ("", "no tag"),
    ("The risk is 0.7.", "no tag"),
    (GOOD + "More text.", "after the last tag"),
    ("Sure! " + GOOD, "before <subquestion>"),
    (GOOD.replace("<Answer 2>", "so <Answer 2>"), "before <answer>"),
    (GOOD.replace("quest", "Quest").replace(" 2>", " 3>"), "<subquestion 2> expected, <subquestion 3> found"),
    (GOOD.replace("<Answer 1> Creatinine doubles. </Answer 1>\n", ""), "expected"),
    (GOOD.replace("</Answer 2>", ""), "<answer 2> is not closed"),
    (GOOD.replace("<Answer 2>", ""), "<subquestion 2> is not closed|closes nothing"),
    (GOOD.replace("<Answer 2>", "<Answer 1>"), "not closed"),
    (GOOD.replace("Subquestion 1", "Subquestion"), "expected"),
    (GOOD + END, "expected"),
    (GOOD.replace(" pH, Age & Sex ", " "), "no important feature"),
    (GOOD.replace(" pH, Age & Sex ", " , ;"), "no important feature"),
    (GOOD.replace("0.73", "73%"), "decimal number"),
    (GOOD.replace("0.73", "1.01"), "decimal number"),
    (GOOD.replace("0.73", "-0.2"), "decimal number"),
    (GOOD.replace("0.73", "about 0.73"), "decimal number"),
    (GOOD.replace("0.73", "nan"), "decimal number"),
    (GOOD.replace("</Final answer>", ""), "not closed"),
    (re.sub("<Final answer>.*", "", GOOD), "<.*> is missing|expected"),
    (re.sub("<Important.*", "", GOOD), "expected"),
    (GOOD.replace("<Subquestion 2>", "<think>x</think><Subquestion 2>"), "before <subquestion>"),
])
def test_each_breach_of_the_grammar_is_told(text, problem):
    answer = parse(text)
    assert not answer.well_formed
    assert re.search(problem, answer.problem), answer.problem


@pytest.mark.parametrize(("content", "probability", "number"), [
    ("0.85", 0.85, "0.85"), (" .5 ", 0.5, ".5"), ("1", 1.0, "1"), ("0", 0.0, "0"), ("1.00", 1.0, "1.00"),
    ("85%", 0.85, "85"), ("85.5 %", 0.855, "85.5"), ("about 0.3.", 0.3, "0.3"), ("risk: 0.07 (low)", 0.07, "0.07"),
    ("**0.42**", 0.42, "0.42"), ("1e-1", 0.1, "1e-1"), ("\u00a00.9", 0.9, "0.9"), ("=0.6", 0.6, "0.6")])
def test_one_number_in_the_final_answer_is_read_with_its_place(content, probability, number):
    text = f"Well.\n<Final answer>{content}</Final answer>"
    answer = parse(text)
    assert answer.probability == pytest.approx(probability)
    assert text[slice(*answer.probability_span)] == number


@pytest.mark.parametrize("content", [
    "", "high", "nan", "inf", "-inf", "85", "-0.2", "1.5", "101%", "0.8-0.9", "0.8 or 0.9", "0,85", "0.85 (85%)",
    "0.XX", "1e999",
    "-1e-999x1", "٠.٥", "０.５", "0.4" + " " * 300 + "0.5", "9" * 400, "0." + "1" * 5000, "v0.5", "\x00"])
def test_anything_else_in_the_final_answer_is_unreadable(content):
    answer = parse(f"<Final answer>{content}</Final answer>")
    assert (answer.probability, answer.probability_span, answer.well_formed) == (None, None, False)


def test_of_several_final_answers_the_first_counts_even_if_it_is_unreadable():
    again = "<Final answer> 0.9 </Final answer>"
    assert parse(END + again).probability == 0.5
    assert parse("<Final answer> 0.XX </Final answer>" + again).probability is None


def test_of_several_lists_of_features_the_first_counts():
    assert parse(END + "<Important Features> Weight </Important Features>").features == ("pH",)


def test_a_final_answer_cut_off_after_its_number_is_read():
    assert parse("<Final answer> 0.8").probability == 0.8
    assert parse("<Final answer> 0.8 <Subquestion 1>").probability is None


@pytest.mark.parametrize("content", [
    "pH, Age & Sex, HR", "pH; Age & Sex; HR", "- pH\n- Age & Sex\n- HR", "1. pH\n2) Age & Sex\n3. HR.",
    "**pH**, \"Age & Sex\", and HR", "\npH,\n Age & Sex,,\r\n `HR`", "\u2022 pH, Age & Sex, & HR"])
def test_features_are_read_from_any_common_kind_of_list(content):
    assert parse(f"<Important Features>{content}</Important Features>").features == ("pH", "Age & Sex", "HR")


def test_steps_of_a_malformed_answer_are_those_with_their_own_answer():
    text = render_step(3, "a", "b") + question_tags(4)[0] + "c" + question_tags(4)[1] + answer_tags(5)[0] + "d"
    assert parse(text).steps == (Step("a", "b"),)


def test_a_think_answer_is_read():
    text = "<think> pH falls, <Answer 1> is no tag here </think>\n<answer> 0.62 </answer>"
    good, broken = parse(text.replace("<Answer 1>", "this"), "think"), parse(text, "think")
    assert (good.probability, good.well_formed, good.steps, good.features) == (0.62, True, (), ())
    assert (broken.probability, broken.well_formed) == (0.62, False)
    assert parse("<answer> 0.62 </answer>", "think").problem == "<think> expected, <answer> found"


def test_of_think_answers_the_first_after_the_thoughts_counts():
    text = "<answer>0.1</answer><think> so </think><answer>0.2</answer><answer>0.3</answer>"
    assert parse(text, "think").probability == 0.2


def test_a_vanilla_answer_is_the_final_tag_alone():
    assert parse("<Final answer> 0.12 </Final answer>", "vanilla").well_formed
    assert not parse("I say <Final answer> 0.12 </Final answer>", "vanilla").well_formed
    assert parse("0.12", "vanilla").probability is None


def test_an_unknown_style_names_the_known_ones():
    with pytest.raises(ValueError, match="vanilla, think, decomposition"):
        parse("", "poetry")


@pytest.mark.parametrize(("text", "score"), [
    ("85", 85), (" 1 ", 1), ("100", 100), ("Score: 42/100", 42), ("0", None), ("101", None), ("1000", None),
    ("-5", None), ("85.5", None), ("85.", 85), ("", None), ("high", None), ("9" * 10_000, None), ("x7", None),
    (" " * 300 + "7", None)])
def test_a_usefulness_score_is_the_first_whole_number_from_1_to_100(text, score):
    assert parse_score(text) == score


def test_the_regular_expressions_allow_exactly_what_is_asked_for():
    assert [number for number in range(1001) if re.fullmatch(SCORE_REGEX, str(number))] == list(range(1, 101))
    assert all(re.fullmatch(PROBABILITY_REGEX, f"{percent / 100:.2f}") for percent in range(100))
    assert not re.fullmatch(PROBABILITY_REGEX, "1.00")
    assert parse(f"<Final answer> {0.07:.2f} </Final answer>", "vanilla").probability == 0.07
