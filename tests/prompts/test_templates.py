"""The prompts: evidence first, one system message, an example that keeps the grammar, few tokens."""

from __future__ import annotations

import pytest

from contracts.errors import ConfigError
from contracts.features import catalogue
from prompts.grammar import parse, render_step
from prompts.mentions import MentionFinder
from prompts.templates import STYLES, SYSTEM, VERSION, messages, usefulness_messages

EVIDENCE = "Age & Sex: 67 years, male\npH: 7.31, 7.2"
OUTCOMES = ("mortality", "readmission")
# Instructions of a prompt without evidence, in SmolLM2 tokens; a small CPU server reads 1,000 a second.
MOST_TOKENS = {"vanilla": 120, "think": 170, "decomposition": 260, "usefulness": 140}


def prompts():
    for outcome in OUTCOMES:
        for style in STYLES:
            yield style, messages(EVIDENCE, style, outcome)
        yield "usefulness", usefulness_messages(EVIDENCE, "", "How are the kidneys?", outcome)


def test_every_prompt_begins_with_the_same_system_message_and_the_evidence():
    for _, chat in prompts():
        assert [message["role"] for message in chat] == ["system", "user"]
        assert chat[0]["content"] == SYSTEM
        assert chat[1]["content"].startswith(EVIDENCE + "\n\n")


def test_all_styles_share_the_prompt_up_to_the_end_of_the_task():
    contents = [messages(EVIDENCE, style)[1]["content"] for style in STYLES]
    task = contents[0][:contents[0].index("Reply only")]
    assert len(task) > len(EVIDENCE) + 100
    assert all(content.startswith(task) for content in contents)


def test_the_outcome_and_the_scale_are_told():
    for style in STYLES:
        assert "dies in hospital" in messages(EVIDENCE, style)[1]["content"]
        text = messages(EVIDENCE, style, "readmission")[1]["content"]
        assert "30 days" in text
        assert "dies" not in text
        assert all(word in text for word in ("0.00", "1.00", "0.50"))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_the_example_of_the_decomposition_keeps_its_grammar_and_names_as_many_features_as_asked(count):
    text = messages(EVIDENCE, "decomposition", count=count)[1]["content"]
    example = parse(filled_form(text, "<Subquestion 1>"))
    assert (example.well_formed, example.problem, len(example.features)) == (True, None, count)
    assert f"the {count} most important feature{'' if count == 1 else 's'}," in text


def test_the_examples_of_the_other_styles_keep_their_grammar():
    vanilla, think = (messages(EVIDENCE, style)[1]["content"] for style in ("vanilla", "think"))
    assert parse(filled_form(vanilla, "<Final answer>"), "vanilla").well_formed
    assert parse(filled_form(think, "<think>"), "think").well_formed


def filled_form(text: str, opening: str) -> str:
    """The last form that a prompt shows, from `opening` on, with a number for 0.XX."""
    end = text.index("\nWrite a number for 0.XX")
    return text[text.rindex(opening, 0, end):end].replace("0.XX", "0.42")


def test_no_form_holds_a_probability_that_could_be_copied():
    for style in STYLES:
        text = messages(EVIDENCE, style)[1]["content"]
        assert parse(text, style).probability is None
        assert all(number in text for number in ("0.07", "0.35", "0.62", "0.93"))


def test_echoing_a_form_is_no_answer():
    for style in STYLES[:2]:
        form = "<Final answer> 0.XX </Final answer><answer> 0.XX </answer>"
        assert parse(form, style).probability is None


@pytest.mark.parametrize("name", ["mimic_iv", "tjh"])
def test_copying_the_features_of_the_example_names_no_feature_of_a_catalogue(name):
    text = messages(EVIDENCE, "decomposition")[1]["content"]
    finder = MentionFinder(catalogue(name))
    assert [finder.canonical(entry) for entry in parse(text[text.index("<Subquestion 1>"):]).features] == [None] * 5


def test_the_usefulness_prompt_shows_what_was_asked_and_what_to_score():
    so_far = render_step(1, "How are the kidneys?", "They fail.")
    text = usefulness_messages(EVIDENCE, so_far, " Is pH falling? ")[1]["content"]
    assert text.index(so_far.strip()) < text.index("Next question: Is pH falling?")
    assert "from 1 to 100" in text
    assert "Asked so far:\nnothing\n" in usefulness_messages(EVIDENCE, "", "Is pH falling?")[1]["content"]


def test_prompts_of_one_patient_differ_only_after_their_common_beginning():
    first, second = (usefulness_messages(EVIDENCE, "", question)[1]["content"] for question in ("One?", "Two?"))
    assert first.partition("One?")[0] == second.partition("Two?")[0]


@pytest.mark.parametrize(("call", "told"), [
    (lambda: messages(EVIDENCE, "poem"), "vanilla, think, decomposition"),
    (lambda: messages(EVIDENCE, "think", "length_of_stay"), "mortality, readmission"),
    (lambda: usefulness_messages(EVIDENCE, "", "x", "phenotype"), "mortality, readmission"),
    (lambda: messages(EVIDENCE, "decomposition", count=0), "at least one")])
def test_an_unknown_style_outcome_or_count_is_refused_with_what_there_is(call, told):
    with pytest.raises(ConfigError, match=told):
        call()


def test_the_wording_has_a_version():
    assert VERSION.strip()


def test_instructions_are_short():
    for kind, chat in prompts():
        assert len(chat[1]["content"]) - len(EVIDENCE) < 6 * MOST_TOKENS[kind], kind


@pytest.mark.smoke
def test_instructions_are_short_for_a_tokenizer_that_splits_numbers_into_digits():
    from transformers import AutoTokenizer

    from support.tiny_policy import GGUF, gguf_folder

    tokenizer = AutoTokenizer.from_pretrained(gguf_folder(), gguf_file=GGUF)
    evidence = len(tokenizer(EVIDENCE)["input_ids"])
    for kind, chat in prompts():
        tokens = len(tokenizer(chat[1]["content"])["input_ids"]) - evidence
        assert 40 < tokens <= MOST_TOKENS[kind], (kind, tokens)
