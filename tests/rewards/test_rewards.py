"""The rewards of section 5 of the method, against values worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import Rewards
from contracts.errors import ContractError
from contracts.features import catalogue
from prompts.grammar import render_final
from prompts.mentions import MentionFinder
from rewards.attention import attention_reward
from rewards.length import overlong_penalty
from rewards.mixture import Scorer, total_reward
from rewards.outcome import outcome_reward

probabilities = st.floats(-5, 5)
names = st.lists(st.sampled_from(["pH", "Heart Rate", "Weight", "Glucose", "junk"]), max_size=8)


@pytest.mark.parametrize(("probability", "label", "expected"), [
    (0.8, 1, 0.0768564486857903),  # log 0.8 + 0.3
    (0.8, 0, -1.6094379124341003),  # log 0.2
    (0.2, 0, 0.0768564486857903),  # log 0.8 + 0.3
    (0.5, 1, -0.6931471805599453),  # log 0.5, no bonus at the threshold
    (0.5, 0, -0.6931471805599453),
    (1.0, 1, 0.4799496641464986),  # log 0.99 + 0.49
    (0.0, 1, -4.605170185988091),  # log 0.01
    (1.0, 0, -4.605170185988091),
    (None, 0, -4.605170185988091),
    (None, 1, -4.605170185988091),
])
def test_the_outcome_reward_has_the_values_worked_out_by_hand(probability, label, expected):
    assert outcome_reward(probability, label) == pytest.approx(expected, abs=1e-12)


def test_beta_scales_the_bonus_alone():
    assert outcome_reward(0.8, 1, beta=2.0) == pytest.approx(math.log(0.8) + 0.6)
    assert outcome_reward(0.8, 1, beta=0.0) == pytest.approx(math.log(0.8))
    assert outcome_reward(0.2, 1, beta=50.0) == pytest.approx(math.log(0.2))


@pytest.mark.parametrize("label", [2, -1, 0.5, None, "1", float("nan")])
def test_a_label_that_is_neither_0_nor_1_stops_the_run(label):
    with pytest.raises(ContractError, match="0 or 1"):
        outcome_reward(0.5, label)


def test_a_label_that_is_wrong_stops_the_run_even_where_the_answer_is_unreadable():
    with pytest.raises(ContractError):
        outcome_reward(None, 7)


def test_a_probability_that_is_not_a_number_stops_the_run():
    with pytest.raises(ContractError, match="nan"):
        outcome_reward(float("nan"), 1)


@given(probabilities, st.sampled_from([0, 1]), st.floats(0, 100))
def test_the_outcome_reward_is_bounded(probability, label, beta):
    reward = outcome_reward(probability, label, beta)
    assert math.log(0.01) - 1e-12 <= reward <= math.log(0.99) + 0.49 * beta + 1e-9


@given(st.floats(0, 1), st.floats(0, 100))
def test_the_outcome_reward_mirrors_at_one_half(probability, beta):
    assert outcome_reward(probability, 1, beta) == pytest.approx(outcome_reward(1 - probability, 0, beta), abs=1e-9)


@given(st.floats(-1, 2), st.floats(-1, 2), st.floats(0, 100))
def test_the_outcome_reward_rises_with_the_probability_of_what_happened(one, other, beta):
    low, high = sorted((one, other))
    assert outcome_reward(low, 1, beta) <= outcome_reward(high, 1, beta) + 1e-12
    assert outcome_reward(low, 0, beta) >= outcome_reward(high, 0, beta) - 1e-12


@pytest.mark.parametrize(("named", "expert", "expected"), [
    (["a", "b", "c", "d", "e"], ["a", "b", "c", "d", "e"], 1.0),
    (["a", "b", "c", "x", "y"], ["a", "b", "c", "d", "e"], 3 / 7),
    (["a"], ["a", "b", "c", "d", "e"], 0.2),
    (["x"], ["a"], 0.0), ([], ["a"], 0.0), (["a"], [], 0.0), ([], [], 0.0),
])
def test_the_attention_reward_has_the_values_worked_out_by_hand(named, expert, expected):
    assert attention_reward(named, expert) == pytest.approx(expected, abs=1e-12)


@given(names, names)
def test_the_attention_reward_is_a_share_that_ignores_order_repetition_and_direction(named, expert):
    reward = attention_reward(named, expert)
    assert 0.0 <= reward <= 1.0
    assert reward == attention_reward(expert, named) == attention_reward(reversed(named + named), iter(expert))
    assert (reward == 1.0) == (bool(named) and set(named) == set(expert))


@given(names, names)
def test_naming_junk_besides_never_pays(named, expert):
    assert attention_reward([*named, "nothing the expert knows"], expert) <= attention_reward(named, expert)


def test_a_single_string_in_place_of_names_is_refused():
    with pytest.raises(TypeError, match="iterables"):
        attention_reward("Heart Rate", ["Heart Rate"])
    with pytest.raises(TypeError, match="iterables"):
        attention_reward(["Heart Rate"], "Heart Rate")


def test_the_mixture_weighs_the_two_rewards():
    assert total_reward(-1.0, 0.5) == pytest.approx(-0.4)
    assert total_reward(-1.0, 0.5, weight=1.0) == -1.0
    assert total_reward(-1.0, 0.5, weight=0.0) == 0.5


@pytest.fixture(scope="module")
def scorer():
    return Scorer(MentionFinder(catalogue("mimic_iv")), Rewards())


EXPERT = ("Mean blood pressure", "Heart Rate", "pH", "Age & Sex", "Oxygen saturation")


def test_an_answer_is_scored_by_its_probability_and_its_features_under_any_of_their_names(scorer):
    text = render_final("Risk?", ["low MAP", "HR", "age 85", "SpO₂", "moon phase"], 0.8)
    score = scorer.score(text, 1, EXPERT)
    assert score.features == ("Mean blood pressure", "Heart Rate", "Age & Sex", "Oxygen saturation", "moon phase")
    assert score.outcome == pytest.approx(math.log(0.8) + 0.3)
    assert score.attention == pytest.approx(4 / 6)
    assert score.total == pytest.approx(0.6 * (math.log(0.8) + 0.3) + 0.4 * 4 / 6)
    assert (score.parsed, score.probability, score.well_formed) == (True, 0.8, True)


def test_a_risk_read_otherwise_takes_the_place_of_the_stated_one_where_there_is_one(scorer):
    text = render_final("Risk?", ["HR"], 0.8)
    score = scorer.score(text, 1, EXPERT, read=0.6)
    assert score.outcome == pytest.approx(math.log(0.6) + 0.1) and score.probability == 0.8
    assert scorer.score(text, 1, EXPERT, read=0.0).outcome == pytest.approx(math.log(0.01))
    assert scorer.score("nothing", 1, EXPERT, read=0.9).outcome == pytest.approx(math.log(0.01))


def test_two_names_of_one_feature_count_once(scorer):
    score = scorer.score(render_final("Risk?", ["HR", "pulse", "Heart Rate"], 0.5), 0, ["Heart Rate"])
    assert (score.features, score.attention) == (("Heart Rate",), 1.0)


@pytest.mark.parametrize("ending", ["<Final answer> high </Final answer>", "", "<Final answer> 7 </Final answer>"])
def test_an_answer_without_a_readable_probability_gets_the_lowest_reward_whatever_it_names(scorer, ending):
    text = f"<Important Features> {', '.join(EXPERT)} </Important Features>\n{ending}"
    score = scorer.score(text, 0, EXPERT)
    assert (score.parsed, score.probability, score.attention) == (False, None, 0.0)
    assert score.outcome == pytest.approx(math.log(0.01))
    assert score.total == pytest.approx(0.6 * math.log(0.01))


def test_a_probability_in_a_malformed_answer_still_counts(scorer):
    score = scorer.score("It looks bad. <Final answer> 0.9 </Final answer>", 1, EXPERT)
    assert (score.parsed, score.well_formed, score.attention) == (True, False, 0.0)
    assert score.outcome == pytest.approx(math.log(0.9) + 0.4)


@pytest.mark.parametrize(("style", "text"), [("vanilla", "<Final answer> 0.25 </Final answer>"),
                                             ("think", "<think> fine </think><answer> 0.25 </answer>")])
def test_the_other_styles_are_scored_by_their_own_grammar(scorer, style, text):
    score = scorer.score(text, 0, EXPERT, style)
    assert (score.probability, score.well_formed, score.features) == (0.25, True, ())


def test_the_section_sets_weight_and_beta():
    scorer = Scorer(MentionFinder(catalogue("mimic_iv")), Rewards(weight=1.0, beta=0.0))
    assert scorer.score("<Final answer> 0.9 </Final answer>", 1, EXPERT).total == pytest.approx(math.log(0.9))


@given(st.text(max_size=300), st.sampled_from([0, 1]))
def test_no_text_breaks_the_scorer(text, label):
    scorer = Scorer(FINDER, Rewards())
    named = f"<Important Features>{text}</Important Features><Final answer>0.4</Final answer>"
    score = scorer.score(named, label, EXPERT)
    assert math.isfinite(score.total)
    assert math.isfinite(scorer.score(text, label, EXPERT).total)


FINDER = MentionFinder(catalogue("mimic_iv"))


@pytest.mark.parametrize(("tokens", "expected"), [(1, 0.0), (80, 0.0), (81, -0.05), (90, -0.5), (100, -1.0), (120, -1)])
def test_a_long_answer_costs_up_to_one(tokens, expected):
    assert overlong_penalty(tokens, longest=100, buffer=20) == pytest.approx(expected, abs=1e-12)
    assert overlong_penalty(tokens, longest=100, buffer=0) == 0
