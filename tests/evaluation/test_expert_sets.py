import numpy as np
import polars as pl
import pytest

from contracts.errors import ContractError
from evaluation.expert_sets import Guides, ranking, sets
from prompts.guidance import Rule, expert_features
from support.judged import readings_ranking

NAMES = tuple("ABCDEFGHIJ")


def _readings(seed: int, stays: list[str], size: int) -> pl.DataFrame:
    """An expert that knows the first `size` names; one that does not know all has no attention for some of them."""
    draw = np.random.default_rng(seed)
    found = readings_ranking({stay: [NAMES[place] for place in draw.permutation(size)] for stay in stays})
    return found.with_columns(attention=pl.when((size < len(NAMES)) & (pl.col("rank") > 5)).then(0.0).otherwise(
        pl.col("attention")))


@pytest.mark.parametrize("rule", ["union", "vote", "rank"])
@pytest.mark.parametrize("experts", [1, 2, 3])
def test_expert_features_of_many_stays_at_once_are_those_of_the_prompts(rule: Rule, experts: int) -> None:
    stays = [f"s{number:02d}" for number in range(60)]
    readings = [_readings(seed, stays, size) for seed, size in enumerate((10, 10, 7)[:experts])]
    shown = np.random.default_rng(9).random((60, 10)) < 0.6
    names_shown = {stay: [NAMES[place] for place in np.flatnonzero(row)] for stay, row in
                   zip(stays, shown, strict=True)}
    wanted = expert_features(readings, 3, names_shown, rule)
    ranks = ranking(Guides(readings, 3, rule), stays, NAMES)
    found = ranks.top(shown)
    assert (found == sets([wanted[stay] for stay in stays], NAMES)).all() and found.any()
    others = np.roll(np.arange(60), 1)
    assert (ranks.of(others).top(shown[others]) == found[others]).all()


def test_what_has_no_attention_of_the_expert_is_never_among_its_features() -> None:
    read = readings_ranking({"s": ("B", "A", "never measured")}).with_columns(
        attention=pl.when(pl.col("feature") == "never measured").then(0.0).otherwise(pl.col("attention")))
    ranks = ranking(Guides([read], 5), ["s"], ("A", "B", "never measured", "unheard of"))
    assert ranks.top(np.ones((1, 4), dtype=bool)).tolist() == [[True, True, False, False]]


def test_a_stay_that_no_expert_has_read_is_refused() -> None:
    with pytest.raises(ContractError, match="1 of 2 stays stand in no readings"):
        ranking(Guides([readings_ranking({"s": ("A",)})], 1), ["s", "t"], ("A",))
