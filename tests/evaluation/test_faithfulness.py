from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

from contracts.errors import ContractError
from contracts.patients import Patient
from evaluation import faithfulness as module
from evaluation.baselines import judge_expert
from evaluation.expert_sets import Guides, sets
from evaluation.faithfulness import (
    EVEN,
    FREQUENT,
    SWAPPED,
    Expected,
    controls,
    derangement,
    expected,
    faithfulness,
    jaccard,
    named_by,
    overlap_and_score,
)
from evaluation.statistics import resample
from rewards.attention import attention_reward
from support.judged import Finder, readings_of, readings_ranking, stays_of, verdicts_of

NAMES = tuple("ABCDEFGHIJKL")


def _patients(count: int = 90, seed: int = 0, train: int = 60) -> list[Patient]:
    """The expert looks at A and B in everybody and at one feature that differs."""
    draw = np.random.default_rng(seed)
    return [Patient(f"s{number:03d}", "train" if number < train else "test", number % 2, "evidence", NAMES,
                    ("A", "B", str(draw.choice(list(NAMES[2:]))))) for number in range(count + train)]


def _guides(patients: Sequence[Patient], count: int) -> Guides:
    """Ranks C_exp first, then what else the prompt shows."""
    return Guides([readings_ranking({one.stay_id: (*one.expert_features, *one.shown) for one in patients})], count)


def _found(patients: list[Patient], named: dict[str, list[tuple[str, ...]]]) -> Expected:
    judged = [one.stay_id for one in patients if one.split == "test"]
    return expected(judged, patients, {stay: stay for stay in judged}, named, _guides(patients, 3))


def _rows(named: dict[str, list[tuple[str, ...]]], patients: list[Patient], seed: int = 1) -> dict[str, dict]:
    labels = [one.label for one in patients if one.split == "test"]
    frame = faithfulness(named, [(list(named), _found(patients, named))], resample(labels, 300, 1), seed)
    assert frame.schema == pl.Schema(module.SCHEMA)
    return {f"{row['arm']} {row['control']}": row for row in frame.iter_rows(named=True)}


@pytest.fixture(scope="module")
def rows() -> dict[str, dict]:
    patients = _patients()
    judged = [one for one in patients if one.split == "test"]
    return _rows({"follows": [one.expert_features for one in judged], "popular": [("A", "B", "C")] * len(judged),
                  "odd": [("L", "K", "unheard of")] * len(judged), "silent": [()] * len(judged)}, patients)


def test_who_follows_the_patient_beats_every_control(rows: dict[str, dict]) -> None:
    for control in (SWAPPED, FREQUENT, EVEN):
        row = rows[f"follows {control}"]
        assert row["overlap"] == 1.0 and row["low"] > 0 and row["p"] == pytest.approx(1 / 301)
        assert row["p_holm"] == pytest.approx(3 / 301)
        assert row["difference"] == pytest.approx(row["overlap"] - row["control_overlap"])


def test_who_names_the_same_in_everybody_is_not_taken_for_faithful(rows: dict[str, dict]) -> None:
    swapped, even = rows[f"popular {SWAPPED}"], rows[f"popular {EVEN}"]
    assert swapped["low"] < 0 < swapped["high"] and swapped["p"] > 0.05
    assert even["low"] > 0 and even["p"] < 0.01


def test_an_arm_that_names_nothing_has_no_overlap(rows: dict[str, dict]) -> None:
    silent = rows["silent None"]
    assert (silent["naming"], silent["named"], silent["overlap"], silent["p_holm"]) == (0.0, None, None, None)
    assert (rows[f"odd {SWAPPED}"]["naming"], rows[f"odd {SWAPPED}"]["named"]) == (1.0, 3.0)
    assert [key.split()[0] for key in rows] == ["follows"] * 3 + ["popular"] * 3 + ["odd"] * 3 + ["silent"]


def test_the_controls_are_what_their_chances_say() -> None:
    patients = _patients(40)
    found = _found(patients, {})
    draws = {name: np.stack([other for _, other in made]) for name, made in controls(found, 400, 3).items()}
    size = found.own.sum(axis=1)
    for name in (FREQUENT, EVEN):
        assert (draws[name].sum(axis=2) == size).all()
    even = draws[EVEN].mean(axis=(0, 1))
    assert even == pytest.approx(np.full(12, 3 / 12), abs=0.02)
    frequent = dict(zip(found.names, draws[FREQUENT].mean(axis=(0, 1)), strict=True))
    assert min(frequent["A"], frequent["B"]) > 0.6 > 0.3 > max(frequent[name] for name in NAMES[2:])
    assert jaccard(found.own, draws[SWAPPED][0]).mean() < 1.0
    others = found.own.sum(axis=0) - found.own  # of all stays but one's own
    assert draws[SWAPPED].mean(axis=0) == pytest.approx(others / 39, abs=0.12)


def test_the_same_seed_draws_the_same_and_no_draw_depends_on_the_arms() -> None:
    patients = _patients(30)
    judged = [one.expert_features for one in patients if one.split == "test"]
    alone, both = _rows({"x": judged}, patients), _rows({"x": judged, "y": [("A",)] * 30}, patients)
    for control in (SWAPPED, FREQUENT, EVEN):
        assert alone[f"x {control}"]["control_overlap"] == both[f"x {control}"]["control_overlap"]
    assert _rows({"x": judged}, patients, 2)[f"x {EVEN}"]["control_overlap"] != alone[f"x {EVEN}"]["control_overlap"]


def test_stays_of_one_patient_are_never_swapped_with_each_other() -> None:
    patients = [Patient(f"s{number}", "test", number % 2, "", ("A", "B", "C"), (name,))
                for number, name in enumerate("AABBC")]
    found = expected([one.stay_id for one in patients], patients, dict(zip(
        (one.stay_id for one in patients), ("p1", "p1", "p2", "p2", "p3"), strict=True)), {}, _guides(patients, 1))
    for own, draw in controls(found, 50, 0)[SWAPPED]:
        assert not (draw & found.own).any() and (draw.sum(axis=1) == 1).all() and (own == found.own).all()
    alone = expected(["s0", "s1"], patients, {"s0": "p", "s1": "p"}, {}, _guides(patients, 1))
    assert set(controls(alone, 5, 0)) == {FREQUENT, EVEN}


def test_what_only_one_of_two_prompts_shows_counts_for_neither_patient_and_both_rankings_fill_up() -> None:
    patients = [Patient("s0", "test", 0, "", ("A", "B", "D"), ("A", "D")),
                Patient("s1", "test", 1, "", ("B", "C", "D"), ("C", "B"))]
    found = expected(["s0", "s1"], patients, {"s0": "p0", "s1": "p1"}, {}, Guides([readings_ranking(
        {"s0": ("A", "D", "C", "B"), "s1": ("C", "A", "B", "D")})], 1))
    pair = next(controls(found, 1, 0)[SWAPPED])
    assert [[found.names[place] for place in np.flatnonzero(row)] for side in pair for row in side] == [
        ["D"], ["B"], ["B"], ["D"]]  # A and C are shown to one of them alone


def _apart(seed: int, follows: bool, all_shown: bool, count: int = 150, share: float = 0.8) -> tuple[dict, Expected]:
    """Of 14 features most were measured, one or the other at random, and only these are shown, or all. The expert likes
    some better in everybody, and some better in one patient; an arm names the former alone, or it follows the patient
    somewhat, always of what was measured."""
    draw = np.random.default_rng(seed)
    names = [f"f{number:02d}" for number in range(14)]
    measured = np.array(draw.random((count, 14)) < share) | (np.arange(14) == 0)
    shown = measured | all_shown
    keys = np.linspace(2, -2, 14) + draw.gumbel(size=(count, 14))
    choice = (keys if follows else np.linspace(2, -2, 14)) + draw.gumbel(size=(count, 14))

    def of(row: int, values: np.ndarray, seen: np.ndarray) -> tuple[str, ...]:
        return tuple(names[place] for place in np.argsort(-values[row]) if seen[row, place])

    patients = [Patient(f"s{row:03d}", "test", row % 2, "", of(row, keys, shown), of(row, keys, measured)[:5])
                for row in range(count)]
    named = {"arm": [of(row, choice, measured)[:5] for row in range(count)]}
    guides = Guides([readings_ranking({f"s{row:03d}": of(row, keys, measured) for row in range(count)})], 5)
    stays = [one.stay_id for one in patients]
    return named, expected(stays, patients, {stay: stay for stay in stays}, named, guides)


def _swapped_row(seed: int, follows: bool, all_shown: bool) -> dict:
    named, found = _apart(seed, follows, all_shown)
    frame = faithfulness(named, [(["arm"], found)], resample(np.arange(150) % 2, 60, 1), seed)
    return frame.filter(control=SWAPPED).row(0, named=True)


@pytest.mark.parametrize("all_shown", [False, True])
def test_an_arm_that_follows_nobody_is_not_called_faithful_where_patients_have_different_features(all_shown: bool
                                                                                                 ) -> None:
    rows = [_swapped_row(seed, follows=False, all_shown=all_shown) for seed in range(8)]
    assert abs(np.mean([row["difference"] for row in rows])) < 0.01
    assert sum(row["low"] > 0 and row["p"] < 0.05 for row in rows) <= 1


@pytest.mark.parametrize("all_shown", [False, True])
def test_an_arm_that_follows_the_patient_is_seen_to_where_patients_have_different_features(all_shown: bool) -> None:
    row = _swapped_row(0, follows=True, all_shown=all_shown)
    assert row["difference"] > 0.1 and row["low"] > 0.05 and row["p"] == pytest.approx(1 / 61)


def test_arms_with_other_prompts_are_held_against_what_these_show_and_corrected_together() -> None:
    patients = _patients(60)
    judged = [one for one in patients if one.split == "test"]
    half = [replace(one, shown=NAMES[:6], expert_features=()) for one in patients]
    draw = np.random.default_rng(3)
    named = {"whole": [one.expert_features for one in judged], "half": [tuple(
        str(name) for name in draw.choice(NAMES[:6], 3, replace=False)) for _ in judged]}
    stays, guides = [one.stay_id for one in judged], _guides(patients, 3)
    same = {stay: stay for stay in stays}
    own, less = (expected(stays, given, same, {}, guides) for given in (patients, half))
    labels, rows = [one.label for one in judged], {}
    for name, other in (("own prompts", less), ("the study's prompts", own)):
        frame = faithfulness(named, [(["whole"], own), (["half"], other)], resample(labels, 200, 1), 1)
        assert frame["arm"].unique(maintain_order=True).to_list() == ["whole", "half"]
        rows[name] = frame.filter(arm="half", control=EVEN).row(0, named=True)
        assert frame.filter(arm="whole", control=EVEN)["p_holm"][0] == pytest.approx(2 / 201)
    assert less.own.sum(axis=1).tolist() == [3] * 60 and less.own.sum() == (less.own & less.shown).sum()
    # named at random among the six that it could see: that is no more than "even", unless twelve are drawn from
    assert abs(rows["own prompts"]["difference"]) < 0.05 < rows["the study's prompts"]["difference"]
    assert rows["own prompts"]["p"] > 0.05


def test_every_derangement_is_equally_likely() -> None:
    dice = np.random.default_rng(0)
    seen = Counter(tuple(derangement(4, dice)) for _ in range(4500))
    assert len(seen) == 9 and all(400 < count < 600 for count in seen.values())


def test_the_jaccard_index_is_that_of_the_reward() -> None:
    draw = np.random.default_rng(4)
    left, right = ([[str(name) for name in draw.choice(NAMES, draw.integers(0, 5), replace=False)] for _ in range(50)]
                   for _ in range(2))
    found = jaccard(sets(left, NAMES), sets(right, NAMES))
    assert found == pytest.approx([attention_reward(one, other) for one, other in zip(left, right, strict=True)])


def test_features_are_read_as_the_catalogue_spells_them_and_models_name_none() -> None:
    stays = stays_of(60)
    verdicts = pl.concat([verdicts_of("think", stays, 1.0), judge_expert(readings_of(stays), stays)])
    named = named_by(verdicts, Finder(spell=str.upper))  # type: ignore[arg-type]
    assert list(named) == ["think"] and set(named["think"]) == {("LACTATE", "NOISE"), ()}


def test_a_judged_stay_without_a_patient_is_refused() -> None:
    with pytest.raises(ContractError, match="1 of 2 judged stays are not among"):
        expected(["s060", "nobody"], _patients(2), {"s060": "p", "nobody": "q"}, {}, _guides(_patients(2), 3))


def _overlapping(better: float, count: int = 400, unread: float = 0.0) -> tuple[pl.DataFrame, dict, Expected]:
    """Verdicts in which the overlap raises the probability of the truth by `better`; some answers are unreadable."""
    draw = np.random.default_rng(0)
    stays = stays_of(3 * count)
    frame = verdicts_of("stage1", stays, 0.0).with_columns(parsed=pl.lit(True)).sort("stay_id")
    hit, read = draw.random(frame.height) < 0.5, draw.random(frame.height) >= unread
    right = np.where(read, 0.7 + 0.1 * draw.normal(size=frame.height) + better * hit, 0.5).clip(0.01, 0.99)
    label = frame["label"].to_numpy()
    risk = np.where(label == 1, right, 1 - right)
    frame = frame.with_columns(pl.Series("token_probability", risk), pl.Series("probability", risk),
                               pl.Series("parsed", read))
    named = {"stage1": [("A",) if yes else ("B",) if told else () for yes, told in
                        zip(hit & read, read, strict=True)]}
    patients = [Patient(stay, "test", 0, "", ("A", "B"), ("A",)) for stay in frame["stay_id"]]
    return frame, named, expected(frame["stay_id"].to_list(), patients, {one.stay_id: one.stay_id for one in patients},
                                  named, _guides(patients, 1))


def _scored(frame: pl.DataFrame, named: dict, found: Expected, count: int) -> pl.DataFrame:
    return overlap_and_score(frame, named, [(["stage1"], found)], resample(frame["label"].to_numpy(), count, 1))


@pytest.mark.parametrize(("better", "low", "high"), [(0.1, 0.2, 0.6), (0.0, -0.15, 0.15), (-0.1, -0.6, -0.2)])
def test_larger_overlap_goes_with_better_prediction_where_it_was_made_so(better: float, low: float, high: float
                                                                        ) -> None:
    frame, named, found = _overlapping(better)
    table = _scored(frame, named, found, 200)
    assert table.schema == pl.Schema(module.OVERLAP) and table["reading"].to_list() == ["stated", "tokens"]
    row = table.row(0, named=True)
    assert low < row["low"] <= row["rho"] <= row["high"] < high
    assert row["rho_parsed"] == pytest.approx(row["rho"])


def test_unreadable_answers_alone_make_no_correlation_once_they_are_taken_into_account() -> None:
    frame, named, found = _overlapping(0.0, unread=0.4)
    row = _scored(frame, named, found, 200).row(0, named=True)
    assert row["low"] > 0.1 and row["low_parsed"] < 0 < row["high_parsed"]


def test_log_score_and_absolute_error_give_the_same_correlation_backwards() -> None:
    frame, named, found = _overlapping(0.1)
    table = _scored(frame, named, found, 20)
    one = frame.filter(pl.col("label") == 1)
    rows = np.flatnonzero(frame["label"].to_numpy() == 1)
    overlap = jaccard(sets(named["stage1"], found.names), found.own)[rows]
    risk = one["probability"].to_numpy()
    assert spearmanr(overlap, np.log(risk)).statistic == pytest.approx(-spearmanr(overlap, abs(1 - risk)).statistic)
    assert table["rho"][0] == pytest.approx(spearmanr(overlap, np.log(risk)).statistic, abs=0.1)


def test_an_arm_without_any_overlap_has_no_correlation() -> None:
    frame, named, found = _overlapping(0.0)
    assert _scored(frame, {"stage1": [("B",)] * frame.height}, found, 20).height == 0
    assert _scored(frame, {}, found, 20).is_empty() and named
