import polars as pl
import pytest

from evaluation import radar, tables
from evaluation.baselines import judge_expert
from support.judged import POLICY_ARMS, readings_of, stays_of, verdicts_of


class _AsWritten:
    """Takes names as they are; stands for the catalogue's finder."""

    def canonical_names(self, names: list[str]) -> tuple[str, ...]:
        return tuple(names)


@pytest.fixture(scope="module")
def verdicts() -> pl.DataFrame:
    stays = stays_of(120)
    return pl.concat([*(verdicts_of(arm, stays, skill) for arm, skill in POLICY_ARMS.items()),
                      judge_expert(readings_of(stays), stays)])


@pytest.fixture(scope="module")
def table(verdicts: pl.DataFrame) -> pl.DataFrame:
    return tables.results(verdicts, 10, 1, interval_bootstraps=10)


def test_overlap_is_the_mean_over_all_answers_and_unread_ones_count_nothing(verdicts: pl.DataFrame) -> None:
    expert = dict.fromkeys(verdicts["stay_id"], ("Lactate", "Platelets"))
    found = radar.overlaps(verdicts, expert, _AsWritten())  # type: ignore[arg-type]
    share = verdicts.filter(pl.col("arm") == "stage1")["parsed"].cast(pl.Float64).sum() / 40
    assert set(found) == set(POLICY_ARMS) and found["stage1"] == pytest.approx(share / 3)
    mute = verdicts.with_columns(features=pl.lit([], pl.List(pl.String)))
    assert radar.overlaps(mute, expert, _AsWritten()) == {}  # type: ignore[arg-type]


def test_spokes_run_from_no_skill_to_perfect(table: pl.DataFrame) -> None:
    row = {**table.row(0, named=True), "n": 10, "positives": 4, "overlap": 0.3}
    middle = {**row, "auroc_point": 0.5, "auprc_point": 0.4, "brier_point": 0.24, "ece": 0.5}
    best = {**row, "auroc_point": 1.0, "auprc_point": 1.0, "brier_point": 0.0, "ece": 0.0}
    for case, wanted in ((middle, 0.0), (best, 1.0)):
        values = [measure.place(float(measure.shown(case) or 0.0), case) for measure in radar.MEASURES[:4]]
        assert values == pytest.approx([wanted] * 4)


def test_the_table_has_every_arm_once_and_dashes_for_what_is_not_there(table: pl.DataFrame) -> None:
    heads, rows = radar.grid(table, {"stage1": 0.25})
    assert [row[0] for row in rows] == [*POLICY_ARMS, "expert"] and len(heads) == 8
    known = {row[0]: row[1:] for row in rows}
    assert known["expert"][4:] == ["–", "–", "–"] and known["stage1"][6] == "0.250" and known["think"][6] == "–"


def test_the_method_comes_first_then_the_reference_and_the_expert_is_there(table: pl.DataFrame) -> None:
    assert radar.drawn(table, "decomposition") == ["stage1+2", "decomposition", "stage1", "think", "vanilla", "expert"]
    assert radar.drawn(table, "stage1") == ["stage1+2", "stage1", "decomposition", "think", "vanilla", "expert"]
    svg = radar.radar(table, {}, "decomposition")
    assert svg is not None and "stage1+2: AUROC" in svg and "Brier skill" in svg


def test_without_policy_and_expert_nothing_is_drawn(table: pl.DataFrame) -> None:
    other = table.filter(pl.col("arm") == "expert").with_columns(arm=pl.lit("logistic regression"))
    assert radar.radar(other, {}, "decomposition") is None
