import polars as pl
import pytest

from contracts.errors import ContractError
from contracts.patients import Patient
from evaluation.case_study import choose, mark, study_cases
from support.judged import Finder, stays_of, verdicts_of


@pytest.fixture(scope="module")
def verdicts() -> pl.DataFrame:
    stays = stays_of(240)
    return pl.concat([verdicts_of("stage1", stays, 0.3), verdicts_of("decomposition", stays, 0.1, seed=1)])


def _patients(verdicts: pl.DataFrame) -> list[Patient]:
    return [Patient(stay, "test", label, f"evidence of {label}", ("Lactate",), ("Platelets", "Lactate"))
            for stay, label in verdicts.select("stay_id", "label").unique().sort("stay_id").iter_rows()]


def _risks(verdicts: pl.DataFrame, label: int, right: bool) -> list[float]:
    own = verdicts.filter((pl.col("arm") == "stage1") & pl.col("parsed") & (pl.col("label") == label))
    return sorted(risk for risk in own["token_probability"] if ((risk >= 0.5) == (label == 1)) == right)


def test_cases_lie_at_the_quantiles_of_each_outcome_right_and_wrong(verdicts: pl.DataFrame) -> None:
    known = dict(verdicts.filter(pl.col("arm") == "stage1").select("stay_id", "token_probability").iter_rows())
    found = choose(verdicts, "stage1", (0.0, 0.5))
    wanted = [risk for label in (1, 0) for right in (True, False) for risks in [_risks(verdicts, label, right)]
              for risk in (risks[0], risks[(len(risks) - 1) // 2])]
    assert [known[stay] for _, stay in found[:-1]] == wanted and len(wanted) == 8
    assert [title.split(", risk")[0] for title, _ in found[:-1:2]] == [
        "Outcome 1, right", "Outcome 1, wrong", "Outcome 0, right", "Outcome 0, wrong"]
    assert found[-1][0].endswith("not readable")


def test_a_stay_stands_once_and_a_group_without_stays_is_left_out(verdicts: pl.DataFrame) -> None:
    few = verdicts.filter((pl.col("label") == 1) & pl.col("parsed") & (pl.col("token_probability") > 0.5)).head(1)
    assert [title[:16] for title, _ in choose(few, "stage1", (0.1, 0.5, 0.9))] == ["Outcome 1, right"]


def test_without_quantiles_no_patient_is_shown(verdicts: pl.DataFrame) -> None:
    assert study_cases(verdicts, ["stage1"], "decomposition", _patients(verdicts), Finder(),  # type: ignore[arg-type]
                       "mortality", 5, ()) == ()


def test_arms_answer_for_the_same_stay_side_by_side(verdicts: pl.DataFrame) -> None:
    cases = study_cases(verdicts, ["stage1", "decomposition"], "decomposition", _patients(verdicts),
                        Finder(), "mortality", 5, (0.5,))  # type: ignore[arg-type]
    for case, (_, stay) in zip(cases, choose(verdicts, "stage1", (0.5,)), strict=True):
        rows = {row["arm"]: row for row in verdicts.filter(pl.col("stay_id") == stay).iter_rows(named=True)}
        assert [answer.arm for answer in case.answers] == ["stage1", "decomposition"]
        for answer in case.answers:
            assert "".join(part.text for part in answer.segments) == rows[answer.arm]["text"]
            assert (answer.probability is None) == (not rows[answer.arm]["parsed"])
        assert f"evidence of {case.label}" in case.prompt[-1][1]


def test_the_overlap_is_the_jaccard_index_of_canonical_names(verdicts: pl.DataFrame) -> None:
    case = study_cases(verdicts, ["stage1"], "decomposition", _patients(verdicts), Finder(),  # type: ignore[arg-type]
                       "mortality", 5, (0.5,))[0]
    assert case.answers[0].named == ("Lactate", "Noise") and case.answers[0].shared == ("Lactate",)
    assert case.answers[0].overlap == pytest.approx(1 / 3)


def test_a_stay_that_is_no_patient_is_refused(verdicts: pl.DataFrame) -> None:
    with pytest.raises(ContractError, match="not among 0 patients"):
        study_cases(verdicts, ["stage1"], "decomposition", [], Finder(), "mortality", 5, (0.5,))  # type: ignore[arg-type]


def test_the_answer_is_cut_at_its_mentions_and_nothing_is_lost() -> None:
    text = "Lactate is up. <b>lactate</b>"
    parts = mark(text, Finder(), ["Lactate"])  # type: ignore[arg-type]
    assert "".join(part.text for part in parts) == text
    assert [part.text for part in parts if part.kind == "expert"] == ["Lactate", "lactate"]
    assert [part.kind for part in mark(text, Finder(), [])] == ["other", "plain", "other", "plain"]  # type: ignore[arg-type]
