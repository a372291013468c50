"""Perturbed test stays: what each kind changes, how much, and what it never touches."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from configs.schema import Robustness
from contracts.errors import ConfigError, ContractError
from contracts.features import catalogue
from evaluation.perturbations import KINDS, Perturbation, chosen, perturb, perturbations

MIMIC = catalogue("mimic_iv")
NAMES = MIMIC.names
SHOWN, OTHERS = NAMES[:10], NAMES[10:]
SD = {name: 1.0 + place for place, name in enumerate(NAMES)}
UNMEASURED = "Height"
KEYS = ["stay_id", "visit", "day", "is_summary"]


def visits_of(stays: int = 12, seed: int = 0, length: int = 4) -> pl.DataFrame:
    """Stays with plausible values, gaps, and one feature that was never measured."""
    draw = np.random.default_rng(seed)
    rows = []
    for stay in range(stays):
        for visit in range(length):
            row = {"stay_id": f"stay-{stay:02d}", "visit": visit, "day": float(visit), "is_summary": visit == 0}
            for feature in MIMIC:
                value = draw.uniform(feature.low, feature.high)
                value = round(value) if feature.kind == "ordinal" else value
                gone = feature.name == UNMEASURED or (visit > 0 and draw.random() < 0.3)
                row[feature.name] = None if gone else float(value)
            rows.append(row)
    return pl.DataFrame(rows, schema={"stay_id": pl.String, "visit": pl.Int32, "day": pl.Float64,
                                      "is_summary": pl.Boolean, **dict.fromkeys(NAMES, pl.Float64)})


def made(kind, share, visits=None, seed=3):  # noqa: ANN001, ANN201
    return perturb(visits_of() if visits is None else visits, Perturbation(kind, share), MIMIC, (SHOWN, OTHERS), SD,
                   seed)


def course(frame: pl.DataFrame, stay: str, feature: str) -> list[float | None]:
    return frame.filter(pl.col("stay_id") == stay).sort("visit")[feature].to_list()


def differing(before: pl.DataFrame, after: pl.DataFrame, stay: str, names=NAMES) -> list[str]:  # noqa: ANN001
    return [name for name in names if course(before, stay, name) != course(after, stay, name)]


@pytest.mark.parametrize("kind", KINDS)
def test_at_p_0_the_very_frame_comes_back(kind) -> None:  # noqa: ANN001
    visits = visits_of()
    result = made(kind, 0.0, visits)
    assert result.visits is visits and result.changes.is_empty() and result.words() == {}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_keys_and_order_stay(kind) -> None:  # noqa: ANN001
    visits = visits_of().sample(fraction=1.0, shuffle=True, seed=1)
    after = made(kind, 0.7, visits).visits
    assert after.columns == visits.columns and after.schema == visits.schema
    assert after.select(KEYS).equals(visits.select(KEYS))
    assert after.sort(KEYS).equals(made(kind, 0.7, visits_of()).visits.sort(KEYS))


@pytest.mark.parametrize("kind", KINDS)
def test_a_stay_is_perturbed_alike_whoever_else_is_there(kind) -> None:  # noqa: ANN001
    visits = visits_of()
    alone = visits.filter(pl.col("stay_id") == "stay-07")
    whole, part = made(kind, 0.6, visits), made(kind, 0.6, alone)
    assert whole.visits.filter(pl.col("stay_id") == "stay-07").equals(part.visits)
    assert whole.words()["stay-07"] == part.words()["stay-07"]


@pytest.mark.parametrize("kind", KINDS)
def test_another_seed_perturbs_otherwise_and_the_same_one_alike(kind) -> None:  # noqa: ANN001
    one, same, other = made(kind, 0.4), made(kind, 0.4), made(kind, 0.4, seed=4)
    assert one.visits.equals(same.visits) and one.changes.equals(same.changes)
    assert not (one.visits.equals(other.visits) and one.changes.equals(other.changes))


@pytest.mark.parametrize("share", [0.2, 0.4, 0.6, 1.0])
def test_a_shuffle_touches_the_share_of_measured_features_in_prompt_and_outside(share: float) -> None:
    visits = visits_of()
    result = made("shuffle", share, visits)
    measured = {group: len([name for name in group if name != UNMEASURED]) for group in (SHOWN, OTHERS)}
    for stay in visits["stay_id"].unique():
        for group, count in measured.items():
            wanted = int(share * count + 0.5)
            assert len(differing(visits, result.visits, stay, group)) == (2 if wanted == 1 else wanted)


def test_a_shuffle_moves_whole_courses_with_their_gaps_and_leaves_none_in_its_place() -> None:
    visits = visits_of()
    result = made("shuffle", 1.0, visits)
    for stay, sources in result.words().items():
        assert sorted(sources) == sorted(sources.values()) and UNMEASURED not in sources
        for feature, source in sources.items():
            assert feature != source and (feature in SHOWN) == (source in SHOWN)
            assert course(result.visits, stay, feature) == course(visits, stay, source)


def test_one_feature_alone_cannot_move() -> None:
    visits = visits_of().with_columns(pl.lit(None, pl.Float64).alias(name) for name in NAMES if name != "pH")
    assert made("shuffle", 1.0, visits).visits.equals(visits)


def test_a_drop_leaves_no_value_of_the_chosen_features_and_all_of_the_others() -> None:
    visits = visits_of()
    result = made("drop", 0.4, visits)
    for stay, dropped in result.words().items():
        assert len(dropped) == 4 + 3
        assert set(differing(visits, result.visits, stay)) == set(dropped)
        assert all(course(result.visits, stay, name) == [None] * 4 for name in dropped)


def test_everything_dropped_is_nothing_measured() -> None:
    assert made("drop", 1.0).visits.select(pl.col(NAMES).count()).row(0) == (0,) * len(NAMES)


def test_smaller_shares_are_part_of_larger_ones_and_drop_chooses_what_shuffle_chooses() -> None:
    touched = {(kind, share): made(kind, share).words() for kind in ("shuffle", "drop") for share in (0.2, 0.4, 0.8)}
    for stay, names in touched["drop", 0.4].items():
        assert set(touched["drop", 0.2][stay]) < set(names) < set(touched["drop", 0.8][stay])
        assert set(names) == set(touched["shuffle", 0.4][stay])


def test_noise_has_the_size_asked_for_and_keeps_gaps() -> None:
    visits = visits_of(stays=200).with_columns(pl.lit(120.0).alias("Systolic blood pressure"))
    sd = {**SD, "Systolic blood pressure": 8.0}
    noisy = perturb(visits, Perturbation("noise", 0.5), MIMIC, (SHOWN, OTHERS), sd, 3).visits
    moved = noisy["Systolic blood pressure"].to_numpy() - 120.0
    assert moved.std() == pytest.approx(4.0, rel=0.1) and abs(moved.mean()) < 0.5
    for name in NAMES:
        assert noisy[name].is_null().equals(visits[name].is_null())


def test_noise_grows_with_p_in_one_direction() -> None:
    visits = visits_of()
    small, large = (made("noise", share, visits).visits["Glucose"] - visits["Glucose"] for share in (0.1, 0.2))
    unclipped = visits["Glucose"].is_between(200.0, 2000.0)
    assert unclipped.any()
    assert (2.0 * small).filter(unclipped).drop_nulls().to_list() == pytest.approx(
        large.filter(unclipped).drop_nulls().to_list())


def test_noisy_values_stay_plausible_and_scales_stay_whole() -> None:
    noisy = perturb(visits_of(), Perturbation("noise", 1.0), MIMIC, (SHOWN, OTHERS), dict.fromkeys(NAMES, 500.0),
                    3).visits
    for feature in MIMIC:
        values = noisy[feature.name].drop_nulls()
        assert values.is_between(feature.low, feature.high).all()
        assert feature.kind != "ordinal" or (values == values.round()).all()


def test_a_feature_that_never_varied_gets_no_noise() -> None:
    visits = visits_of()
    noisy = perturb(visits, Perturbation("noise", 1.0), MIMIC, (SHOWN, OTHERS), {**SD, "Glucose": 0.0}, 3).visits
    assert noisy["Glucose"].equals(visits["Glucose"]) and not noisy["pH"].equals(visits["pH"])


def test_a_rename_changes_no_number_and_names_the_first_alias() -> None:
    visits = visits_of()
    result = made("rename", 0.4, visits)
    assert result.visits.equals(visits)
    for words in result.words().values():
        assert len(words) == 4 + 3  # also what was not measured has a name
        assert all(word == MIMIC[name].aliases[0] for name, word in words.items())
    assert {len(words) for words in made("rename", 1.0).words().values()} == {len(NAMES)}


def test_changes_name_features_and_nothing_of_the_patient() -> None:
    for kind in KINDS:
        result = made(kind, 0.5)
        texts = set(result.changes["now"]) | set(result.changes["feature"])
        assert not any("stay-" in text for text in texts)
        assert "stay-" not in repr(result)


def test_the_order_of_choice_depends_on_seed_stay_and_name_alone() -> None:
    assert chosen("s", NAMES, 5, 1) == chosen("s", NAMES[::-1], 5, 1) == chosen("s", NAMES, 17, 1)[:5]
    assert chosen("s", NAMES, 17, 1) != chosen("t", NAMES, 17, 1) != chosen("t", NAMES, 17, 2)


@pytest.mark.parametrize("share", [-0.1, 1.2, float("nan"), float("inf")])
def test_a_share_outside_0_to_1_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match=r"p lies in \[0, 1\]"):
        Perturbation("shuffle", share)


def test_an_unknown_kind_or_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="one of: shuffle, drop, noise, rename"):
        Perturbation("scramble", 0.2)  # type: ignore[arg-type]
    for name in ("shuffle", "shuffle-much", "", "scramble-0.2"):
        with pytest.raises(ConfigError):
            Perturbation.of(name)


def test_a_name_and_its_perturbation_are_the_same() -> None:
    for share in (0.1 + 0.2, 1.0, 1e-7, 0.2):
        how = Perturbation("noise", share)
        assert Perturbation.of(how.name) == how


def test_groups_and_spreads_must_fit_the_catalogue() -> None:
    visits, how = visits_of(), Perturbation("drop", 0.5)
    for groups in ((("Lactate",),), (NAMES, NAMES[:1])):
        with pytest.raises(ContractError, match="none of them twice"):
            perturb(visits, how, MIMIC, groups, SD, 1)
    with pytest.raises(ContractError, match="no standard deviation of"):
        perturb(visits, how, MIMIC, (NAMES,), {"pH": 1.0}, 1)
    with pytest.raises(ContractError, match="other feature columns"):
        perturb(visits.drop("pH"), how, MIMIC, (NAMES,), SD, 1)


def test_the_experiment_has_every_kind_with_every_share_above_0() -> None:
    steps = perturbations(Robustness(kinds=("drop", "shuffle"), shares=(0.0, 0.5, 1.0)))
    assert [how.name for how in steps] == ["drop-0.5", "drop-1.0", "shuffle-0.5", "shuffle-1.0"]


@pytest.mark.parametrize("values", [{"shares": (0.2, 1.5)}, {"shares": (0.5, 0.2)}, {"shares": (0.2, 0.2)},
                                    {"kinds": ("scramble",)}, {"kinds": ()}, {"kinds": ("drop", "drop")},
                                    {"arms": ("stage1", "stage1")}, {"stays": 1}])
def test_a_wrong_section_is_refused(values) -> None:  # noqa: ANN001
    with pytest.raises(ValueError, match="robustness|Robustness"):
        Robustness(**values)
