"""Our problem in the terms of the search: structure, limits, cost, and form whatever the model writes."""

import asyncio
import math
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.schema import Rewards, Search
from contracts.errors import ContractError
from contracts.features import catalogue
from contracts.generation import Generation
from contracts.patients import Patient
from prompts import grammar
from prompts.mentions import MentionFinder
from rewards.mixture import Scorer
from search.asking import expected_score, list_regex, read_names
from search.forest import grow_tree
from search.reasoning import Reasoner
from support.scripted_model import ScriptedModel, drawn_from, render_characters

MIMIC = catalogue("mimic_iv")
SCORER = Scorer(MentionFinder(MIMIC), Rewards())
TJH_NAMES = tuple(catalogue("tjh").tokens)
TAGGY = st.lists(st.sampled_from(["<", ">", "/", "Answer", "Final answer>", " ", "1", "\n", "0.5", "pH", ",", "\ud800",
                                  "</Answer 1>", "</Final answer>", "<Important Features>", "\x00", "?", "low", "42"]),
                 max_size=12).map("".join)


def _patient(shown=MIMIC.tokens, label=1, stay="stay-1"):
    return Patient(stay, "train", label, "Heart Rate: 120, 130, 140", tuple(shown), tuple(shown[:5]))


def _reasoner(model, section=None, **changes):
    section = section or Search(rollouts=4, depth=3, candidates=2)
    return Reasoner(**{"generate": model, "render": render_characters, "scorer": SCORER, "section": section,
                       "model": "base", "seed": 42, **changes})


async def _grow(model, section=None, patient=None, **changes):
    return await grow_tree(_reasoner(model, section, **changes).problem(patient or _patient()))


async def test_every_trajectory_is_well_formed_and_names_k_distinct_features_of_the_prompt():
    grown = await _grow(ScriptedModel(), Search(rollouts=8, depth=4, candidates=3))
    assert len(grown.trajectories) == 8
    for one in grown.trajectories:
        parsed = grammar.parse(one.text)
        assert parsed.well_formed, parsed.problem
        assert len(set(parsed.features)) == 5
        assert set(parsed.features) <= set(MIMIC.tokens)
        assert parsed.probability == one.probability
        assert 1 <= len(parsed.steps) + 1 == one.depth <= 4
        assert one.reward == SCORER.score(one.text, 1, MIMIC.tokens[:5]).total


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.one_of(TAGGY, st.text(max_size=40)), min_size=1, max_size=6), st.integers(1, 3))
def test_trajectories_are_well_formed_even_if_the_model_ignores_every_constraint(texts, depth):
    def anything(_, noise):
        return noise.choice(texts)

    model = ScriptedModel(free=anything, constrained=anything)
    grown = asyncio.run(_grow(model, Search(rollouts=3, depth=depth, candidates=2, question_tokens=4, answer_tokens=4)))
    for one in grown.trajectories:
        parsed = grammar.parse(one.text)
        assert parsed.well_formed, parsed.problem
        assert one.well_formed
        assert len(set(parsed.features)) == 5
        assert set(parsed.features) <= set(MIMIC.tokens)
        assert all(step.question and step.answer for step in parsed.steps)
        one.text.encode("utf-8")


def _without_lists(faults):
    """All faults but repeated names in feature lists, which the scripted model draws as it likes."""
    return {kind: count for kind, count in faults.items() if kind != "repeated"}


async def test_an_empty_answer_is_asked_again_once_and_then_replaced_and_counted():
    model = ScriptedModel(free=lambda _, __: " ")
    grown = await _grow(model, Search(rollouts=1, depth=1, candidates=1))
    assert [call["regex"] is None for call in model.calls].count(True) == 2
    assert _without_lists(grown.faults) == {"empty": 2, "stock": 1}
    assert "how likely is the outcome?" in grown.trajectories[0].text


async def test_the_final_answer_is_forced_at_the_depth_limit_and_never_comes_first():
    model = ScriptedModel(constrained=None)
    grown = await _grow(model, Search(rollouts=6, depth=3, candidates=3))
    asked = [call for call in model.calls if call["choices"]]
    assert asked
    assert all("<Answer 1>" in call["prompt"] and "</Answer 2>" not in call["prompt"].rpartition("(another")[2]
               for call in asked), "a tag is chosen only at depth 2 of 3"
    assert all(2 <= one.depth <= 3 for one in grown.trajectories)
    single = await _grow(ScriptedModel(), Search(rollouts=2, depth=1, candidates=2))
    assert {one.depth for one in single.trajectories} == {1}


async def test_the_model_chooses_itself_when_to_end():
    grown = await _grow(ScriptedModel(constrained=lambda *_: "Final"), Search(rollouts=2, depth=5, candidates=2))
    assert {one.depth for one in grown.trajectories} == {2}
    grown = await _grow(ScriptedModel(constrained=lambda *_: "Subquestion"), Search(rollouts=2, depth=5, candidates=2))
    assert {one.depth for one in grown.trajectories} == {5}


async def test_the_prompt_of_each_call_is_a_beginning_of_the_text_that_is_kept():
    model = ScriptedModel()
    grown = await _grow(model, Search(rollouts=1, depth=2, candidates=1))
    text = grown.trajectories[0].text
    prefilled = [call["prompt"].rpartition("if death is.\n")[2] for call in model.calls if not call["top_logprobs"]]
    assert len(prefilled) == 5 + grown.faults.get("repeated", 0)
    assert all(text.startswith(prefill) for prefill in prefilled)
    assert all(call["prompt"].startswith("You are") and "Heart Rate: 120" in call["prompt"][:120]
               for call in model.calls), "all calls of a patient share the evidence at the head of the prompt"


async def test_no_request_holds_an_identifier_or_the_label():
    models = [ScriptedModel(), ScriptedModel()]
    for model, label in zip(models, (0, 1), strict=True):
        await _grow(model, Search(rollouts=1, depth=3, candidates=2), _patient(label=label, stay="SECRET-77"))
        assert not any("SECRET-77" in call["prompt"] for call in model.calls)
    assert models[0].calls[0] == models[1].calls[0]


async def test_requests_and_trees_do_not_depend_on_the_order_of_completion():
    results = []
    for shuffle in range(3):
        noise = random.Random(shuffle)
        model = ScriptedModel(pause=lambda noise=noise: noise.random() / 300)
        grown = await _grow(model, Search(rollouts=4, depth=3, candidates=3))
        results.append((grown, sorted(str(call) for call in model.calls)))
    assert all(result == results[0] for result in results)
    other = await _grow(ScriptedModel(), Search(rollouts=4, depth=3, candidates=3), seed=43)
    assert other.tree != results[0][0].tree


async def test_sampled_calls_have_seeds_of_their_own():
    model = ScriptedModel()
    await _grow(model, Search(rollouts=4, depth=4, candidates=3))
    seeds = [call["seed"] for call in model.calls]
    assert len(set(seeds)) == len(seeds)


async def test_a_question_that_repeats_a_sibling_is_asked_again_once_and_then_kept():
    model = ScriptedModel(free=lambda *_: "Is the MAP low?")
    grown = await _grow(model, Search(rollouts=1, depth=1, candidates=3))
    assert _without_lists(grown.faults) == {"duplicate": 2}
    assert len([call for call in model.calls if call["regex"] is None]) == 5
    assert [child["question"] for child in grown.tree["children"]] == ["Is the MAP low?"] * 3


async def test_one_expansion_takes_the_calls_that_the_header_promises():
    model = ScriptedModel()
    grown = await _grow(model, Search(rollouts=1, depth=1, candidates=3))
    finals = {"question": 3, "usefulness": 3, "probability": 3}
    assert {kind: grown.calls[kind] for kind in finals} == finals
    assert grown.calls["features"] == 3 + grown.faults.get("repeated", 0)
    assert sum(grown.calls.values()) == len(model.calls)
    assert model.most_busy == 6


async def test_a_feature_named_twice_is_replaced_by_asking_for_the_rest_only():
    lists = iter([" pH, Glucose, pH, pH, Weight", ", Height, Heart Rate"])

    def answer(prompt, _):
        if prompt.endswith("<Final answer>"):
            return " 0.40"
        return "7" if prompt.endswith("number only.\n") else next(lists)

    model = ScriptedModel(constrained=answer)
    grown = await _grow(model, Search(rollouts=1, depth=1, candidates=1))
    assert grammar.parse(grown.trajectories[0].text).features == ("pH", "Glucose", "Weight", "Height", "Heart Rate")
    second = [call for call in model.calls if call["regex"] and "(, (" in call["regex"]][-1]
    assert second["prompt"].endswith("<Important Features> pH, Glucose, Weight")
    assert "Glucose" not in second["regex"]
    assert grown.faults == {"repeated": 1}


async def test_a_prompt_that_shows_fewer_features_than_k_gets_them_all():
    grown = await _grow(ScriptedModel(), Search(rollouts=1, depth=1, candidates=1), _patient(shown=("pH", "Weight")))
    assert sorted(grammar.parse(grown.trajectories[0].text).features) == ["Weight", "pH"]


@pytest.mark.parametrize("shown", [(), ("pH", "Sodium, serum"), ("; ",)])
def test_evidence_without_features_or_with_a_name_that_cannot_be_listed_is_refused(shown):
    with pytest.raises(ContractError, match="shown"):
        _reasoner(ScriptedModel()).problem(_patient(shown=shown))


async def test_a_truncated_answer_ends_at_a_word_and_is_counted():
    model = ScriptedModel(free=lambda *_: " ".join(["lactate"] * 30))
    grown = await _grow(model, Search(rollouts=1, depth=2, candidates=1, answer_tokens=6, question_tokens=40))
    assert grammar.parse(grown.trajectories[0].text).steps[0].answer == " ".join(["lactate"] * 5)
    assert grown.faults["truncated"] == 1


async def test_the_tree_tells_for_each_node_what_was_asked_and_answered():
    grown = await _grow(ScriptedModel(), Search(rollouts=2, depth=2, candidates=2))
    first = grown.tree["children"][0]
    assert first["question"]
    assert first["answer"]
    assert {"features", "probability"} <= first["children"][0].keys()
    assert grown.tree["visits"] == 2


@given(st.integers(1, 5), st.booleans(), st.randoms(use_true_random=False))
def test_lists_drawn_from_the_regular_expression_read_back_as_names(count, continued, noise):
    text = drawn_from(list_regex(TJH_NAMES, count, continued), noise)
    found = read_names(text, TJH_NAMES)
    assert len(found) == count
    assert ", ".join(found) == text.removeprefix(",").strip()


def test_a_list_is_read_up_to_the_first_unknown_name():
    assert read_names(" pH, Weight, Wei", ("pH", "Weight")) == ["pH", "Weight"]
    assert read_names("pH Weight", ("pH", "Weight")) == []


@pytest.mark.parametrize(("tokens", "top", "expected"), [
    (("7", "3"), ({"7": -0.6931, "5": -1.3863, "6": -1.3863}, {"3": 0.0}), 65.5),
    ((" 80",), ({" 80": -0.6931, " 40": -0.6931, "high": -0.1},), 60.0),
    (("9", "0"), ({}, {}), 90.0),
    (("9", "0"), ({"x": 0.0}, {"0": 0.0}), 90.0),
    (("1", "0", "0"), ({"1": 0.0, "9": 0.0, "0": 0.0, "x": 0.0}, {}, {}), 95.0),
])
def test_the_expected_score_weighs_the_alternatives_of_the_first_digit(tokens, top, expected):
    generation = Generation("".join(tokens), (), tokens=(*tokens, "<|im_end|>"), top=(*top, {"<|im_end|>": 0.0}))
    assert expected_score(generation, int("".join(tokens))) == pytest.approx(expected, abs=0.01)


async def test_equal_scores_are_ordered_by_the_expected_score_and_never_against_the_score():
    async def generate(prompt_ids, **_):
        sure = {"7": -0.1} if prompt_ids[0] else {"7": math.log(0.5), "8": math.log(0.5)}
        return [Generation("70", (1, 2), tokens=("7", "0"), top=(sure, {"0": 0.0}))]

    problem = _reasoner(generate).problem(_patient())
    scores = [await problem._ask.usefulness([first], (0,)) for first in (0, 1)]
    assert scores == pytest.approx([70.075, 70.070])
