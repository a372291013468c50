import polars as pl
import pytest

from evaluation.baselines import judge_expert
from evaluation.citations import citations, numbers
from prompts.grammar import render_final, render_step
from support.judged import readings_of, stays_of, verdicts_of

STAYS = stays_of(60)


@pytest.mark.parametrize(("text", "wanted"), [
    ("LDH 705, then 1.10 and 1.1.", {705.0, 1.1}), ("CD4 1.2.3 x2", set()), ("pH 7.4; 35%", {7.4, 35.0}),
    ("-3 and +4", {3.0, 4.0}), ("", set())])
def test_numbers_are_values_and_no_parts_of_words(text: str, wanted: set[float]) -> None:
    assert numbers(text) == wanted


def test_cited_numbers_are_looked_for_in_the_own_and_in_other_data() -> None:
    stays = verdicts_of("own", STAYS, 1.0)["stay_id"].to_list()
    evidence = {stay: f"Lactate: {number}.5\nAge: 60" for number, stay in enumerate(stays)}
    told = {"own": "Lactate is {}.50 at 60.", "made up": "Lactate is 987.6, so 60.", "bare": "Lactate is high."}
    frame = pl.concat([*(verdicts_of(arm, STAYS, 1.0).with_columns(pl.Series("text", [
        render_step(1, "What now?", say.format(number)) + render_final("Will it be 33?", ("CD 44",), 0.35)
        for number in range(len(stays))])) for arm, say in told.items()), judge_expert(readings_of(STAYS), STAYS)])
    own, made_up, bare = citations(frame, dict.fromkeys(told, evidence)).iter_rows(named=True)
    assert (own["citing"], own["cited"]) == (1.0, 3 * len(stays))
    assert own["own"] == pytest.approx(2 / 3) and own["others"] == pytest.approx(1 / 3)
    assert made_up["own"] == made_up["others"] == pytest.approx(1 / 3)
    assert (bare["citing"], bare["cited"], bare["own"]) == (1.0, len(stays), 0.0)
    none = verdicts_of("own", STAYS, 1.0).with_columns(text=pl.lit("<Final answer> 0.35 </Final answer>"))
    assert citations(none, {"own": evidence}).rows() == [("own", len(stays), 0.0, 0, None, None)]
    assert citations(none, {}).is_empty()
