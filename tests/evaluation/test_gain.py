from collections.abc import Sequence
from dataclasses import replace

import polars as pl
import pytest

from configs.schema import Evaluation
from contracts.errors import ContractError
from contracts.features import catalogue
from contracts.patients import Patient
from evaluation import gain_wording
from evaluation.baselines import judge_expert
from evaluation.citations import SCHEMA as CITATIONS
from evaluation.expert_sets import Guides
from evaluation.faithfulness import OVERLAP
from evaluation.faithfulness import SCHEMA as FAITHFULNESS
from evaluation.gain import Asked, Gain, gain
from evaluation.gain_plots import entropy_and_uncertainty
from evaluation.token_entropy import TOKENS
from evaluation.uncertainty import CURVE
from evaluation.uncertainty import SCHEMA as UNCERTAINTY
from evaluation.variety import SCHEMA as VARIETY
from prompts.mentions import MentionFinder
from support.judged import readings_of, readings_ranking, stays_of, verdicts_of

FINDER = MentionFinder(catalogue("mimic_iv"))
SECTION = Evaluation(interval_bootstraps=60)
NAMES = catalogue("mimic_iv").tokens


def _verdicts(stays: pl.DataFrame, arm: str, faithful: bool) -> pl.DataFrame:
    """Answers that name the patient's expert features, or the same in everybody, and are unsure about pH."""
    frame = verdicts_of(arm, stays, 1.0)
    named = [_expert(stay) if faithful else ("pH", "Glucose") for stay in frame["stay_id"]]
    text = [f"pH <Final answer> {risk:.2f} </Final answer>" if read else "no idea"
            for risk, read in frame.select("token_probability", "parsed").iter_rows()]
    tokens = [[{"start": 0, "end": 2, "entropy": abs(risk - 0.5)}] for risk in frame["token_probability"]]
    return frame.with_columns(pl.Series("features", [list(one) for one in named]), pl.Series("text", text),
                              pl.Series("token_entropies", tokens, dtype=TOKENS))


def _expert(stay: str) -> tuple[str, ...]:
    number = int(stay[1:])
    return (NAMES[number % 16], NAMES[(number * 7 + 3) % 16])


@pytest.fixture(scope="module")
def made() -> Gain:
    stays = stays_of(150)
    patients = [Patient(stay, split, 0, "", tuple(NAMES), _expert(stay))
                for stay, split in stays.select("stay_id", "split").iter_rows()]
    verdicts = pl.concat([_verdicts(stays, "decomposition", faithful=False),
                          _verdicts(stays, "stage1+2", faithful=True), verdicts_of("vanilla", stays, 0.4).with_columns(
                              features=pl.lit([], dtype=pl.List(pl.String))),
                          judge_expert(readings_of(stays), stays)])
    arms = ("decomposition", "stage1+2", "vanilla")
    return gain(verdicts, [Asked(arms, patients)], _guides(patients), stays, FINDER, SECTION, 1, 5)


def _guides(patients: Sequence[Patient]) -> Guides:
    return Guides([readings_ranking({one.stay_id: (*one.expert_features, *one.shown) for one in patients})], 2)


def test_an_arm_whose_prompts_nobody_knows_is_refused() -> None:
    stays = stays_of(60)
    patients = [Patient(stay, "test", 0, "", tuple(NAMES), ()) for stay in stays["stay_id"]]
    verdicts = _verdicts(stays, "vanilla", faithful=True)
    for arms in (["think"], ["vanilla", "vanilla"]):
        with pytest.raises(ContractError, match="the prompts of vanilla are not known"):
            gain(verdicts, [Asked(arms, patients)], _guides(patients), stays, FINDER, SECTION, 1, 5)


def test_the_frames_keep_their_columns_and_name_no_stay(made: Gain) -> None:
    wanted = {"faithfulness": FAITHFULNESS, "overlap_and_score": OVERLAP, "uncertainty": UNCERTAINTY,
              "uncertainty_curves": CURVE, "variety": VARIETY, "citations": CITATIONS}
    assert set(made.frames()) == set(wanted)
    for name, frame in made.frames().items():
        assert frame.height and frame.schema == pl.Schema(wanted[name]), name
        assert "s0" not in frame.write_csv() and "p0" not in frame.write_csv()


def test_every_arm_with_language_is_held_against_three_controls(made: Gain) -> None:
    assert made.faithfulness.group_by("arm", maintain_order=True).len().rows() == [
        ("decomposition", 3), ("stage1+2", 3), ("vanilla", 1)]
    assert set(made.overlap_and_score["arm"]) == {"decomposition", "stage1+2"}


@pytest.mark.parametrize(("arm", "words"), [("stage1+2", "follows the patient, and not only what"),
                                            ("decomposition", "is not shown")])
def test_the_first_sentence_says_whether_the_patient_is_followed(made: Gain, arm: str, words: str) -> None:
    sentences = gain_wording.meaning(made, arm)
    assert len(sentences) == 2 and words in sentences[0] and sentences[0].startswith(arm)
    row = made.faithfulness.filter(arm=arm, control="swapped").row(0, named=True)
    assert f"{row['overlap']:.2f} (Jaccard)" in sentences[0] and f"{row['p_holm']:.3f}" in sentences[0]
    assert "both among what the two have in common" in sentences[0]
    assert "risk read as tokens" in sentences[1]


def test_a_p_value_near_nothing_is_said_to_be_below_where_the_gain_is_told(made: Gain) -> None:
    small = replace(made, faithfulness=made.faithfulness.with_columns(p=pl.lit(0.0002), p_holm=pl.lit(0.0006)))
    assert "p after Holm's correction < 0.001: " in gain_wording.meaning(small, "stage1+2")[0]
    assert gain_wording.faithfulness(small.faithfulness)[1][0][-2:] == ["< 0.001", "< 0.001"]


def test_no_sentence_where_nothing_is_named(made: Gain) -> None:
    assert gain_wording.meaning(made, "vanilla") == gain_wording.meaning(made, None) == []
    assert gain_wording.entropy_meaning(made, "vanilla") == []


@pytest.mark.parametrize(("low", "high", "words"), [
    (0.1, 0.3, "larger overlap goes with better prediction, which"), (-0.3, -0.1, "goes with worse"),
    (-0.1, 0.1, "is not shown"), (None, None, "is not shown")])
def test_the_verdict_on_the_score_follows_the_interval_given_readability(
        made: Gain, low: float | None, high: float | None, words: str) -> None:
    frame = made.overlap_and_score.with_columns(low_parsed=pl.lit(low, pl.Float64),
                                                high_parsed=pl.lit(high, pl.Float64))
    told = replace(made, overlap_and_score=frame)
    assert words in gain_wording.meaning(told, "stage1+2")[1]


def test_entropies_that_fall_with_the_uncertainty_are_called_so(made: Gain) -> None:
    (sentence,) = gain_wording.entropy_meaning(made, "stage1+2")
    assert "the prediction is the surer" in sentence and "test answers of stage1+2" in sentence


def test_tables_hold_a_line_for_each_row_and_a_dash_for_what_is_not_there(made: Gain) -> None:
    heads, rows = gain_wording.faithfulness(made.faithfulness)
    assert len(rows) == 7 and all(len(row) == len(heads) for row in rows)
    assert rows[-1] == ["vanilla", "–", "0 %", "–", "–", "–", "–", "–", "–"]
    for grid, frame in ((gain_wording.overlap_and_score(made.overlap_and_score), made.overlap_and_score),
                        (gain_wording.uncertainty(made.uncertainty), made.uncertainty),
                        (gain_wording.variety(made.variety), made.variety),
                        (gain_wording.citations(made.citations), made.citations)):
        assert len(grid[1]) == frame.height and all(len(row) == len(grid[0]) for row in grid[1])


def test_the_text_holds_sentences_and_tables(made: Gain) -> None:
    text = "\n\n".join(gain_wording.for_text(made, "stage1+2"))
    assert text.count("\n| --- ") == 5 and "lower bounds from the 20 likeliest" in text
    assert gain_wording.for_text(None, "stage1+2") == []


def test_the_picture_has_a_panel_for_what_is_there(made: Gain) -> None:
    svg = entropy_and_uncertainty(made.uncertainty_curves, "stage1+2")
    assert svg is not None and svg.startswith("<svg") and "test answers of stage1+2" in svg and "stage 2" not in svg
    assert "token risk entropy: from" in svg
    assert entropy_and_uncertainty(made.uncertainty_curves, "vanilla") is None
