import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from contracts.errors import DataError
from evaluation import calibration, recalibration, statistics

STRATEGIES = ("uniform", "quantile")


def _judged(seed: int, size: int, digits: int = 12) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    labels = np.r_[0, 1, draw.integers(0, 2, size - 2)]
    return labels, np.clip(draw.normal(0.4 + 0.2 * labels, 0.2), 0.01, 0.99).round(digits)


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(4, 80), digits=st.integers(1, 6), bins=st.integers(2, 12))
def test_the_reliability_curve_is_that_of_scikit_learn(strategy: calibration.Strategy, seed: int, size: int,
                                                       digits: int, bins: int) -> None:
    labels, risks = _judged(seed, size, digits)
    observed, mean = calibration_curve(labels, risks, n_bins=bins, strategy=strategy)
    found = calibration.reliability(labels, risks, strategy, bins)
    assert found["observed"].to_list() == pytest.approx(observed.tolist())
    assert found["mean_risk"].to_list() == pytest.approx(mean.tolist())
    assert found["n"].sum() == size


def test_calibration_error_is_the_gap_of_each_bin_weighted_by_its_stays() -> None:
    labels, risks = [1, 1, 0, 0], [0.95, 0.91, 0.95, 0.05]
    assert calibration.ece(labels, risks) == pytest.approx((abs(0.95 + 0.91 + 0.95 - 2) + 0.05) / 4)


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(seed=st.integers(0, 10_000), size=st.integers(4, 80), digits=st.integers(1, 6))
def test_calibration_error_agrees_with_a_loop_over_bins(strategy: calibration.Strategy, seed: int, size: int,
                                                        digits: int) -> None:
    labels, risks = _judged(seed, size, digits)
    place = calibration.bin_of(risks, strategy)
    total = 0.0
    for number in range(10):
        inside = place == number
        if inside.any():
            total += inside.mean() * abs(risks[inside].mean() - labels[inside].mean())
    assert calibration.ece(labels, risks, strategy) == pytest.approx(total)


def test_an_edge_belongs_to_the_bin_below_and_quantile_bins_hold_equally_many() -> None:
    assert calibration.bin_of(np.array([0.0, 0.1, 0.1000001, 0.3, 0.7, 0.99, 1.0])).tolist() == [0, 0, 1, 2, 6, 9, 9]
    place = calibration.bin_of(np.random.default_rng(0).random(200), "quantile")
    assert np.bincount(place).tolist() == [20] * 10


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(40, 120))
def test_slope_and_intercept_are_those_of_statsmodels(seed: int, size: int) -> None:
    labels, risks = _judged(seed, size)
    scores = np.log(risks / (1 - risks))
    family = sm.families.Binomial()
    free = sm.GLM(labels, sm.add_constant(scores), family=family).fit(tol=1e-12)
    fixed = sm.GLM(labels, np.ones((size, 1)), family=family, offset=scores).fit(tol=1e-12)
    assert calibration.slope(labels, risks) == pytest.approx(free.params[1], rel=1e-6)
    assert calibration.intercept(labels, risks) == pytest.approx(fixed.params[0], abs=1e-7)


def test_each_resample_has_the_slope_of_its_own_stays() -> None:
    labels, risks = _judged(4, 60)
    drawn = statistics.resample(labels, 12, 1)
    for name, each, one in (("slope", calibration.slopes, calibration.slope),
                            ("intercept", calibration.intercepts, calibration.intercept)):
        values = statistics.on_each(each, labels, risks, drawn)
        wanted = [one(labels[rows], risks[rows]) for rows in (np.repeat(np.arange(60), counts)
                                                              for counts in drawn.counts)]
        assert values.tolist() == pytest.approx(wanted, rel=1e-6, abs=1e-8), name


def test_right_risks_have_slope_one_and_intercept_zero_and_too_extreme_ones_a_flatter_slope() -> None:
    draw = np.random.default_rng(5)
    scores = draw.normal(-0.5, 1.2, 40_000)
    labels = (draw.random(scores.size) < 1 / (1 + np.exp(-scores))).astype(int)
    right, extreme, high = (1 / (1 + np.exp(-given)) for given in (scores, 2 * scores, scores + 0.7))
    assert calibration.slope(labels, right) == pytest.approx(1.0, abs=0.05)
    assert calibration.intercept(labels, right) == pytest.approx(0.0, abs=0.05)
    assert calibration.slope(labels, extreme) == pytest.approx(0.5, abs=0.03)
    assert calibration.intercept(labels, high) == pytest.approx(-0.7, abs=0.05)
    assert calibration.ece(labels, right) < 0.02 < 0.1 < calibration.ece(labels, high)


def test_where_a_threshold_parts_the_outcomes_there_is_no_slope_and_no_interval() -> None:
    labels, risks = np.array([0] * 10 + [1] * 10), np.linspace(0.1, 0.9, 20)
    assert np.isnan(calibration.slope(labels, risks))
    assert np.isnan(calibration.slope(labels, np.full(20, 0.4)))
    drawn = statistics.resample(labels, 40, 0)
    assert calibration.with_interval("slope", labels, risks, drawn) == (None, None, None)
    value, low, high = calibration.with_interval("intercept", labels, np.full(20, 0.4), drawn)
    assert value == pytest.approx(np.log(0.5 / 0.5) - np.log(0.4 / 0.6)) and low < value < high


def test_the_interval_of_the_slope_is_nearly_that_of_the_likelihood() -> None:
    labels, risks = _judged(7, 1500)
    scores = np.log(risks / (1 - risks))
    fit = sm.GLM(labels, sm.add_constant(scores), family=sm.families.Binomial()).fit(cov_type="HC0")
    value, low, high = calibration.with_interval("slope", labels, risks, statistics.resample(labels, 1000, 3))
    assert value == pytest.approx(fit.params[1])
    assert (low, high) == pytest.approx(tuple(fit.conf_int()[1]), rel=0.05)


@pytest.mark.parametrize(("labels", "risks", "says"), [
    ([1, 1], [0.2, 0.3], "all 2 labels are 1"), ([0, 1], [0.2, 1.3], "a risk is 1.3"), ([0, 1], [0.2], "shape")])
def test_what_cannot_be_calibrated_is_refused(labels: list[int], risks: list[float], says: str) -> None:
    for measure in (calibration.ece, calibration.reliability, calibration.slope, calibration.intercept):
        with pytest.raises(DataError, match=says):
            measure(labels, risks)


def test_the_curve_keeps_its_columns() -> None:
    assert calibration.reliability([0, 1], [0.2, 0.8]).schema == pl.Schema(calibration.SCHEMA)


def _nearly_equal(seed: int, core: float) -> tuple[np.ndarray, np.ndarray]:
    """Risks that are nearly all the same, but for one far away."""
    draw = np.random.default_rng(seed)
    risks = np.clip(0.5 + core * draw.standard_normal(200), 0.0, 1.0)
    risks[0] = draw.choice([0.0, 0.05, 0.95, 1.0])
    return (draw.random(200) < np.clip(0.5 + (risks - 0.5) / core * 0.2, 0.05, 0.95)).astype(int), risks


@pytest.mark.parametrize("core", [1e-3, 0.05])
def test_a_slope_is_found_wherever_there_is_one_and_is_that_of_scikit_learn(core: float) -> None:
    for seed in range(20):
        labels, risks = _nearly_equal(seed, core)
        scores = calibration.logit(risks)
        found = calibration.logistic(scores, labels, np.ones((1, 200)))[0]
        middle, spread = scores.mean(), scores.std()
        fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=5000).fit((scores[:, None] - middle) / spread, labels)
        assert found[1] * spread == pytest.approx(fit.coef_[0, 0], rel=1e-3, abs=1e-3)
        assert calibration.slope(labels, risks) == found[1]


def test_platts_map_is_no_constant_where_few_risks_lie_far_from_the_others() -> None:
    for seed in range(20):
        labels, risks = _nearly_equal(seed, 1e-3)
        mapped = recalibration.platt(labels, risks)(np.array([0.499, 0.501]))
        assert mapped[0] != mapped[1]


@given(seed=st.integers(0, 10_000), size=st.integers(4, 60), wide=st.sampled_from([0.01, 1.0, 5.0]))
@settings(max_examples=40, deadline=None)
def test_labels_parted_by_a_threshold_never_have_a_slope(seed: int, size: int, wide: float) -> None:
    draw = np.random.default_rng(seed)
    scores, labels = np.sort(draw.normal(size=size)) * wide, (np.arange(size) >= draw.integers(1, size)).astype(int)
    for truth in (labels, 1 - labels):
        assert np.isnan(calibration.logistic(scores, truth, np.ones((1, size)))).all()
