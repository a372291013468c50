import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from contracts.errors import DataError
from evaluation import metrics


@st.composite
def judged(draw: st.DrawFn) -> tuple[list[int], list[float]]:
    size = draw(st.integers(2, 40))
    labels = draw(st.lists(st.integers(0, 1), min_size=size, max_size=size).filter(lambda found: len(set(found)) == 2))
    risks = draw(st.lists(st.sampled_from([0.0, 0.05, 0.1, 0.5, 0.55, 0.999, 1.0]) | st.floats(0, 1),
                          min_size=size, max_size=size))
    return labels, risks


@pytest.mark.slow
@given(judged())
def test_measures_are_those_of_scikit_learn(case: tuple[list[int], list[float]]) -> None:
    labels, risks = case
    assert metrics.auroc(labels, risks) == pytest.approx(roc_auc_score(labels, risks))
    assert metrics.auprc(labels, risks) == pytest.approx(average_precision_score(labels, risks))
    assert metrics.brier(labels, risks) == pytest.approx(brier_score_loss(labels, risks))


def test_a_perfect_ranking_scores_one_and_its_mirror_nothing() -> None:
    labels = [0, 0, 1, 1]
    assert metrics.auroc(labels, [0.1, 0.2, 0.7, 0.9]) == 1.0
    assert metrics.auroc(labels, [0.9, 0.8, 0.2, 0.1]) == 0.0
    assert metrics.auroc(labels, [0.5] * 4) == 0.5


@pytest.mark.parametrize(("labels", "risks", "says"), [
    ([1, 1], [0.2, 0.3], "all 2 labels are 1"),
    ([0, 0, 0], [0.2, 0.3, 0.1], "all 3 labels are 0"),
    ([0, 2], [0.2, 0.3], "labels hold 2"),
    ([0, 1], [0.2, 1.3], "a risk is 1.3"),
    ([0, 1], [0.2, float("nan")], "a risk is nan"),
    ([0, 1], [0.2], "shape"),
    ([], [], "shape"),
])
def test_what_cannot_be_measured_is_refused_with_its_value(labels: list[int], risks: list[float], says: str) -> None:
    for measure in (metrics.auroc, metrics.auprc, metrics.brier):
        with pytest.raises(DataError, match=says):
            measure(labels, risks)


def test_the_parse_rate_counts_readable_answers() -> None:
    assert metrics.parse_rate(pl.DataFrame({"parsed": [True, False, True, True]})) == 0.75
    with pytest.raises(DataError, match="no verdicts"):
        metrics.parse_rate(pl.DataFrame(schema={"parsed": pl.Boolean}))
