from collections.abc import Sequence

import polars as pl
import pytest

from evaluation import tables
from evaluation.baselines import judge_expert
from evaluation.variety import FEWEST, same_reasoning, variety, warning
from prompts.grammar import reasoning, render_final, render_step
from prompts.templates import EXAMPLE_FINDINGS, messages
from support.judged import readings_of, stays_of, verdicts_of

STAYS = stays_of(180)


def arm_of(name: str, findings: Sequence[str]) -> pl.DataFrame:
    """An arm whose answers, in turn, find these in the patient and name as many features; empty: no reasoning."""
    frame = verdicts_of(name, STAYS, 2.0)
    told = [findings[number % len(findings)] for number in range(frame.height)]
    text = [(render_step(1, "What now?", one) if one else "") + render_final("Will it be?", ("Lactate",), 0.35)
            if one else "<Final answer> 0.35 </Final answer>" for one in told]
    named = [["lactate", "Noise"] if number % 2 else ["Noise", "Lactate"] for number in range(frame.height)]
    return frame.with_columns(pl.Series("text", text), pl.Series("features", named))


@pytest.mark.parametrize(("text", "wanted"), [
    (render_step(1, "Is it?", "It is.") + render_final("So?", ("Lactate",), 0.5), "Is it? It is. So?"),
    ("<think> First this,\n then  that. </think> <answer> 0.35 </answer>", "First this, then that."),
    ("<Final answer> 0.35 </Final answer>", ""), ("Nothing of the form", "Nothing of the form"),
    ("<Answer 1> no number </Answer 1> <answer> 0.3", "no number"), ("", "")])
def test_reasoning_is_what_stands_before_features_and_number(text: str, wanted: str) -> None:
    assert reasoning(text) == wanted


def test_the_findings_of_the_examples_stand_in_the_prompts() -> None:
    asked = [messages("evidence", style)[-1]["content"] for style in ("decomposition", "think")]
    assert all(finding in prompt for finding, prompt in zip(EXAMPLE_FINDINGS, asked, strict=True))


def test_each_arm_is_counted() -> None:
    patient = [f"Lactate is {number}." for number in range(60)]
    copied = EXAMPLE_FINDINGS[0].upper()
    frame = variety(pl.concat([arm_of("own", patient), arm_of("ritual", ["Shock.", "SHOCK.", "shock. ", copied]),
                               arm_of("bare", [""]), judge_expert(readings_of(STAYS), STAYS)]))
    own, ritual, bare = frame.iter_rows(named=True)
    assert (own["answers"], own["reasoning"], own["distinct"]) == (60, 1.0, 60)
    assert (own["same"], own["example"], own["numbers"]) == (pytest.approx(1 / 60), 0.0,
                                                             arm_of("own", patient).filter("parsed")["probability"]
                                                             .n_unique())
    assert (ritual["distinct"], ritual["same"], ritual["example"]) == (2, 0.75, 0.25)
    assert (ritual["lists"], ritual["same_list"]) == (1, 1.0)
    assert (bare["reasoning"], bare["distinct"], bare["same"], bare["example"]) == (0.0, 0, None, None)


def test_only_an_arm_that_says_the_same_of_most_is_warned_of() -> None:
    def row(findings: Sequence[str], count: int = 180) -> pl.DataFrame:
        stays = STAYS.head(count)
        verdicts = arm_of("stage1", findings).join(stays, on="stay_id", how="semi")
        return tables.results(verdicts, 5, 1, interval_bootstraps=5).filter(arm="stage1")

    (sentence,) = warning(row(["Shock.", "Shock.", "Shock.", "No shock."]))
    assert sentence.startswith("stage1 reasons in the same words in 75 % of its answers")
    assert warning(row(["One.", "Two.", "Three."])) == warning(row([""])) == warning(row(["One."]).head(0)) == []
    assert warning(row(["Shock."], 3 * FEWEST - 6)) == []


def test_of_several_trainings_the_share_is_their_mean() -> None:
    first, second = arm_of("stage1", ["Shock."]), arm_of("stage1", ["Shock.", "None."])
    table = tables.results(first, 5, 1, interval_bootstraps=5, retrained=[second])
    assert same_reasoning(first) == 1.0 and same_reasoning(second) == 0.5
    assert set(table["same_reasoning"]) == {0.75}
    expert = tables.results(judge_expert(readings_of(STAYS), STAYS), 5, 1, interval_bootstraps=5)
    assert expert["same_reasoning"].null_count() == expert.height
