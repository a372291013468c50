import polars as pl
import pytest

from configs.load import load
from contracts.errors import DataError
from evaluation import risks
from evaluation.baselines import judge_expert
from support.judged import readings_of, stays_of, verdicts_of


@pytest.fixture(scope="module")
def verdicts() -> pl.DataFrame:
    stays = stays_of(60)
    return pl.concat([verdicts_of("decomposition", stays, 1.0), verdicts_of("stage1", stays, 2.0, 1),
                      judge_expert(readings_of(stays), stays)])


def test_every_reading_of_every_arm_is_a_vector_in_one_order_of_the_stays(verdicts: pl.DataFrame) -> None:
    found = risks.judged(verdicts.sample(fraction=1.0, shuffle=True, seed=2))
    assert set(found.risks) == {("decomposition", "stated"), ("decomposition", "tokens"), ("stage1", "stated"),
                                ("stage1", "tokens"), ("expert", "model")}
    for (arm, reading), values in found.risks.items():
        part = verdicts.filter(pl.col("arm") == arm)
        wanted = dict(part.select("stay_id", "token_probability" if reading == "tokens" else "probability").rows())
        assert values.tolist() == [wanted[stay] for stay in found.stay_ids]
    assert found.labels.tolist() == [dict(verdicts.select("stay_id", "label").rows())[stay] for stay in found.stay_ids]


def test_an_arm_is_compared_in_its_own_reading_and_one_without_language_with_the_stated_number() -> None:
    present = [("decomposition", "stated"), ("decomposition", "tokens"), ("stage1", "tokens"), ("expert", "model")]
    assert risks.counterpart(("stage1", "tokens"), present) == ("decomposition", "tokens")
    assert risks.counterpart(("expert", "model"), present) == ("decomposition", "stated")
    assert risks.counterpart(("decomposition", "stated"), present) is None
    assert risks.counterpart(("stage1", "tokens"), present, "vanilla") is None


@pytest.mark.parametrize(("arms", "named", "wanted"), [
    ("[stage1, decomposition, stage1+2]", "null", "decomposition"), ("[stage1, stage1+2]", "null", "stage1"),
    ("[stage1, decomposition, stage1+2]", "stage1+2", "stage1+2")])
def test_a_study_that_names_no_reference_is_compared_with_decomposition_or_its_first_arm(arms: str, named: str,
                                                                                        wanted: str) -> None:
    config = load("demo", [f"evaluation.arms={arms}", f"evaluation.reference={named}"])
    assert risks.reference_of(config) == wanted


def test_no_verdicts_are_refused(verdicts: pl.DataFrame) -> None:
    with pytest.raises(DataError, match="no verdicts"):
        risks.judged(verdicts.clear())
