import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score
from statsmodels.stats.multitest import multipletests

from contracts.errors import DataError
from evaluation import statistics

_OF_SKLEARN = {"auroc": roc_auc_score, "auprc": average_precision_score, "brier": brier_score_loss}


def _judged(seed: int, size: int, digits: int = 2) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    labels = np.r_[0, 1, draw.integers(0, 2, size - 2)]
    return labels, np.clip(draw.normal(0.4 + 0.2 * labels, 0.2), 0, 1).round(digits)


@pytest.mark.parametrize("name", sorted(_OF_SKLEARN))
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(4, 60), digits=st.integers(1, 6))
def test_each_resample_measures_as_scikit_learn_does(name: str, seed: int, size: int, digits: int) -> None:
    labels, risks = _judged(seed, size, digits)
    drawn = statistics.resample(labels, 5, seed)
    for counts, value in zip(drawn.counts, statistics.measure(name, labels, risks, drawn), strict=True):
        rows = np.repeat(np.arange(size), counts)
        assert value == pytest.approx(_OF_SKLEARN[name](labels[rows], risks[rows]), abs=1e-12)


def test_the_same_seed_draws_the_same_resamples_and_another_draws_others() -> None:
    labels, _ = _judged(1, 50)
    first, again, other = (statistics.resample(labels, 20, seed).counts for seed in (7, 7, 8))
    assert (first == again).all()
    assert (first != other).any()


def test_resamples_are_as_large_as_the_split_and_hold_both_classes() -> None:
    labels = np.r_[np.ones(1, int), np.zeros(9, int)]
    drawn = statistics.resample(labels, 200, 3)
    assert (drawn.counts.sum(axis=1) == 10).all()
    assert (drawn.counts[:, 0] > 0).all()
    # the one positive stay is missing from a resample with probability 0.9^10 = 0.35: 0.35 / 0.65 * 200 redraws
    assert drawn.redrawn == pytest.approx(107, abs=45)


def test_all_stays_of_a_patient_are_drawn_together() -> None:
    drawn = statistics.resample([0, 1, 0, 1, 1], 50, 0, patients=["a", "b", "a", "b", "c"])
    assert (drawn.counts[:, 0] == drawn.counts[:, 2]).all()
    assert (drawn.counts[:, 1] == drawn.counts[:, 3]).all()
    assert set(drawn.counts[:, 4]) != {1}


def test_one_class_is_refused() -> None:
    with pytest.raises(DataError, match="all 3 labels are 0"):
        statistics.resample([0, 0, 0], 10, 0)


def test_resamples_of_one_patient_are_refused_since_they_would_all_be_the_same() -> None:
    with pytest.raises(DataError, match="30 stays of one patient") as refused:
        statistics.resample([0, 1] * 15, 100, 1, ["p"] * 30)
    assert "at least 2" in str(refused.value) and "evaluation.stays" in str(refused.value)


def test_where_there_is_one_patient_alone_stays_are_drawn_and_say_so() -> None:
    labels = [0, 1] * 15
    found = statistics.resample_all(labels, 20, 1, ["p"] * 30)
    assert found.of_stays and found.first(3).of_stays
    assert (found.counts == statistics.resample(labels, 20, 1).counts).all()
    for people in (None, ["p", "q"] * 15):
        usual = statistics.resample_all(labels, 20, 1, people)
        assert not usual.of_stays and (usual.counts == statistics.resample(labels, 20, 1, people).counts).all()


def test_patients_are_counted_by_outcome_and_not_by_stay() -> None:
    assert statistics.patient_counts([0, 1, 1, 1, 0], ["a", "a", "a", "b", "c"]) == {
        "patients": 3, "positive_patients": 2, "negative_patients": 2}
    assert tuple(statistics.patient_counts([0, 1, 1]).values()) == (3, 2, 1)


def test_resamples_of_other_stays_are_refused() -> None:
    with pytest.raises(DataError, match="resamples of 3"):
        statistics.measure("auroc", [0, 1], [0.1, 0.2], statistics.resample([0, 1, 1], 5, 0))


def test_the_summary_agrees_with_the_known_spread_of_the_brier_score() -> None:
    labels, risks = _judged(11, 400)
    values = statistics.measure("brier", labels, risks, statistics.resample(labels, 4000, 5))
    found = statistics.summary(brier_score_loss(labels, risks), values)
    loss = (risks - labels) ** 2
    assert found.mean == pytest.approx(loss.mean(), rel=0.02)
    assert found.sd == pytest.approx(loss.std() / np.sqrt(400), rel=0.06)
    assert found.low == pytest.approx(found.mean - 1.96 * found.sd, rel=0.03)
    assert found.high == pytest.approx(found.mean + 1.96 * found.sd, rel=0.03)


def test_an_arm_does_not_differ_from_itself() -> None:
    labels, risks = _judged(2, 60)
    values = statistics.measure("auroc", labels, risks, statistics.resample(labels, 100, 1))
    assert statistics.difference(0.0, values, values) == statistics.Difference(0.0, 0.0, 0.0, 1.0)


def test_a_clearly_better_arm_has_the_smallest_p_that_the_resamples_allow() -> None:
    labels, _ = _judged(2, 80)
    good, bad = np.where(labels == 1, 0.9, 0.1), np.random.default_rng(0).random(80)
    drawn = statistics.resample(labels, 199, 1)
    high, low = (statistics.measure("auroc", labels, risks, drawn) for risks in (good, bad))
    found = statistics.difference(0.5, high, low)
    assert found.p == pytest.approx(2 / 200)
    assert found.low > 0.2
    mirrored = statistics.difference(-0.5, low, high)
    assert (mirrored.low, mirrored.high, mirrored.p) == pytest.approx((-found.high, -found.low, found.p))


def test_p_is_uniform_enough_where_nothing_differs() -> None:
    small = 0
    for seed in range(60):
        draw = np.random.default_rng(seed)
        labels = np.r_[0, 1, draw.integers(0, 2, 58)]
        drawn = statistics.resample(labels, 200, seed)
        one, two = (statistics.measure("auroc", labels, draw.random(60), drawn) for _ in range(2))
        small += statistics.difference(0.0, one, two).p < 0.05
    assert small <= 9


@pytest.mark.slow
@settings(max_examples=25)  # statsmodels collects garbage in each call: a second where much is imported
@given(st.lists(st.floats(1e-4, 1.0), min_size=1, max_size=12))
def test_holms_correction_is_that_of_statsmodels(values: list[float]) -> None:
    assert statistics.holm(values) == pytest.approx(multipletests(values, method="holm")[1])


def test_holms_correction_of_a_worked_example() -> None:
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([]).size == 0


def test_holms_correction_stays_within_a_family_and_leaves_out_what_was_not_compared() -> None:
    families, values = ["b", None, "a", "b", "a", "c"], [0.01, None, 0.04, 0.03, None, 0.2]
    assert statistics.holm_by(families, values) == pytest.approx([0.02, None, 0.04, 0.03, None, 0.2])
    assert statistics.holm_by([], []) == []


def test_the_first_resamples_of_many_are_those_that_few_would_have_been() -> None:
    labels, _ = _judged(3, 40)
    many, few = (statistics.resample(labels, count, 5, [str(stay // 2) for stay in range(40)]) for count in (60, 10))
    assert (many.first(10).counts == few.counts).all()


def test_a_large_split_is_measured_in_blocks_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, risks = _judged(3, 40)
    drawn = statistics.resample(labels, 25, 5)
    whole = statistics.measure("auprc", labels, risks, drawn)
    monkeypatch.setattr(statistics, "_BLOCK", 40 * 7)
    assert (statistics.measure("auprc", labels, risks, drawn) == whole).all()
