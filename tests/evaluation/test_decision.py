import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from contracts.errors import DataError
from evaluation import decision, statistics


@given(seed=st.integers(0, 10_000), size=st.integers(2, 40), threshold=st.integers(1, 99))
def test_net_benefit_is_the_formula_of_vickers_and_elkin(seed: int, size: int, threshold: int) -> None:
    draw = np.random.default_rng(seed)
    labels, risks = np.r_[0, 1, draw.integers(0, 2, size)], draw.random(size + 2).round(2)
    at = threshold / 100
    (_, wrong), (_, right) = confusion_matrix(labels, risks >= at, labels=[0, 1])
    wanted = right / labels.size - wrong / labels.size * at / (1 - at)
    assert decision.net_benefit(labels, risks, np.array([at])) == pytest.approx([wanted])


def test_a_worked_example() -> None:
    # 100 patients, 20 ill; at a threshold of 10 % 18 of them and 22 healthy ones are treated: 0.18 - 0.22 / 9
    labels = np.array([1] * 20 + [0] * 80)
    risks = np.array([0.5] * 18 + [0.05] * 2 + [0.5] * 22 + [0.05] * 58)
    assert decision.net_benefit(labels, risks, np.array([0.1]))[0] == pytest.approx(0.18 - 0.22 / 9)
    assert decision.treat_all(labels, np.array([0.1, 0.2]))[:2] == pytest.approx([0.2 - 0.8 / 9, 0.0])


def test_a_risk_of_one_for_all_is_treating_all_and_of_zero_treating_none() -> None:
    labels = np.array([0, 1, 0, 0, 1])
    assert decision.net_benefit(labels, np.ones(5)) == pytest.approx(decision.treat_all(labels))
    assert (decision.net_benefit(labels, np.zeros(5)) == decision.TREAT_NONE).all()
    assert decision.net_benefit(labels, labels.astype(float)) == pytest.approx(np.full(99, 0.4))


def test_each_resample_has_the_net_benefit_of_its_own_stays() -> None:
    draw = np.random.default_rng(3)
    labels, risks = np.r_[0, 1, draw.integers(0, 2, 28)], draw.random(30)
    drawn = statistics.resample(labels, 6, 2)
    values = statistics.on_each(decision.net_benefits, labels, risks, drawn)
    assert values.shape == (6, 99)
    for counts, value in zip(drawn.counts, values, strict=True):
        rows = np.repeat(np.arange(30), counts)
        assert value == pytest.approx(decision.net_benefit(labels[rows], risks[rows]))


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.1, float("nan")])
def test_a_threshold_that_is_none_is_refused(threshold: float) -> None:
    with pytest.raises(DataError, match="between 0 and 1"):
        decision.net_benefit([0, 1], [0.1, 0.9], np.array([threshold]))
