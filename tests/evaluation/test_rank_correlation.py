import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata, spearmanr

from evaluation.rank_correlation import correlation


def _drawn(seed: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    across = draw.integers(0, 6, size).astype(float)
    return across, (across + draw.normal(0, 3, size)).round(1), draw


def _counts(draw: np.random.Generator, resamples: int, size: int) -> np.ndarray:
    return np.stack([np.bincount(draw.integers(size, size=size), minlength=size) for _ in range(resamples)])


@pytest.mark.filterwarnings("ignore::scipy.stats.ConstantInputWarning")
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 9999), size=st.integers(5, 60))
def test_without_strata_it_is_spearmans_rho_on_the_whole_and_on_each_resample(seed: int, size: int) -> None:
    across, up, draw = _drawn(seed, size)
    counts = _counts(draw, 15, size)
    found = correlation(across, up, counts)
    with np.errstate(all="ignore"):
        wanted = [spearmanr(across[rows], up[rows]).statistic for rows in
                  [np.arange(size), *(np.repeat(np.arange(size), row) for row in counts)]]
    assert found.rho == pytest.approx(wanted[0], abs=1e-9) or (found.rho is None and np.isnan(wanted[0]))
    if found.low is not None and not np.isnan(wanted).any():
        assert (found.low, found.high) == pytest.approx(tuple(np.quantile(wanted[1:], [0.025, 0.975])), abs=1e-9)


def test_given_a_yes_or_no_it_is_the_partial_rank_correlation() -> None:
    across, up, draw = _drawn(3, 80)
    told = draw.integers(0, 2, 80)
    ranks = [rankdata(values) for values in (across + 4 * told, up + 9 * told)]
    design = np.column_stack([np.ones(80), told])
    left, right = (rank - design @ np.linalg.lstsq(design, rank, rcond=None)[0] for rank in ranks)
    found = correlation(across + 4 * told, up + 9 * told, _counts(draw, 20, 80), groups=told)
    assert found.rho == pytest.approx(np.corrcoef(left, right)[0, 1])
    assert found.rho < spearmanr(across + 4 * told, up + 9 * told).statistic


def test_what_only_the_strata_have_in_common_is_no_correlation() -> None:
    draw = np.random.default_rng(2)
    label = np.repeat([0, 1], 300)
    across, up = draw.normal(label * 5, 1), draw.normal(label * 5, 1)
    assert spearmanr(across, up).statistic > 0.6
    found = correlation(across, up, _counts(draw, 200, 600), strata=label)
    assert abs(found.rho or 0.0) < 0.1 and found.low is not None and found.high is not None
    assert found.low < 0 < found.high


def test_a_side_that_does_not_vary_has_no_correlation() -> None:
    draw = np.random.default_rng(0)
    assert correlation(np.ones(9), np.arange(9), _counts(draw, 9, 9)).rho is None
    told = np.r_[np.ones(8), 2.0]  # most resamples hold the odd one, a third do not
    found = correlation(told, np.arange(9), _counts(draw, 200, 9))
    assert found.rho is not None and (found.low, found.high) == (None, None)


def test_the_size_of_the_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    across, up, draw = _drawn(5, 40)
    counts = _counts(draw, 30, 40)
    whole = correlation(across, up, counts)
    monkeypatch.setattr("evaluation.rank_correlation._BLOCK", 100)
    assert correlation(across, up, counts) == whole
