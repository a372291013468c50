"""Features that two datasets share: found by names and aliases, in one unit and in one dataset's words."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from contracts.errors import ConfigError
from contracts.features import Catalogue, Feature, catalogue
from prompts.shared import Shared, converted, in_words_of, shared_features

TJH, MIMIC = catalogue("tjh"), catalogue("mimic_iv")


def test_tjh_and_mimic_share_glucose_and_ph_whichever_way_round() -> None:
    there = shared_features(TJH, MIMIC)
    assert [(one.source, one.target) for one in there] == [("PH value", "pH"), ("glucose", "Glucose")]
    back = shared_features(MIMIC, TJH)
    assert {(one.target, one.source) for one in back} == {(one.source, one.target) for one in there}
    factors = {one.source: one.factor for one in (*there, *back)}
    assert factors["pH"] == factors["PH value"] == 1.0
    assert factors["glucose"] * factors["Glucose"] == pytest.approx(1.0)
    assert 5.5 / factors["glucose"] == pytest.approx(99.1, abs=0.1)  # mg/dL


@pytest.mark.parametrize("one", [TJH, MIMIC])
def test_a_catalogue_shares_everything_with_itself_in_its_own_words(one: Catalogue) -> None:
    found = shared_features(one, one)
    assert tuple(pair.source for pair in found) == tuple(pair.target for pair in found) == one.names
    assert in_words_of(one, found, one) == one


def test_one_catalogues_alias_alone_joins_nothing() -> None:
    here = Catalogue("here", (Feature("Lactate", "mmol/L", 0, 30, aliases=("acid",)),), ())
    there = Catalogue("there", (Feature("acid", "mmol/L", 0, 30),), ())
    assert shared_features(here, there) == ()
    knows = replace(there, features=(Feature("acid", "mmol/L", 0, 30, aliases=("lactate",)),))
    assert [(one.source, one.target) for one in shared_features(here, knows)] == [("Lactate", "acid")]


def test_two_units_without_a_conversion_are_refused() -> None:
    here = Catalogue("here", (Feature("Lactate", "mmol/L", 0, 30),), ())
    there = Catalogue("there", (Feature("lactate", "mg/dL", 0, 300),), ())
    with pytest.raises(ConfigError, match="'Lactate' is in mmol/L, 'lactate' in mg/dL"):
        shared_features(here, there)


def test_visits_change_name_and_unit_where_shared_and_nothing_else() -> None:
    visits = pl.DataFrame({"stay_id": ["a", "a"], "glucose": [5.0, None], "PH value": [7.3, 7.4], "ESR": [20.0, 30.0]})
    found = converted(visits, shared_features(MIMIC, TJH))
    assert found.columns == ["stay_id", "Glucose", "pH", "ESR"]
    assert found["Glucose"].to_list() == [pytest.approx(90.08, abs=0.01), None]
    assert found.select("pH", "ESR").rows() == [(7.3, 20.0), (7.4, 30.0)]


def test_the_targets_catalogue_takes_the_sources_words_in_its_own_order() -> None:
    mixed = in_words_of(TJH, shared_features(MIMIC, TJH), MIMIC)
    assert len(mixed.names) == 73 and mixed["Glucose"] == MIMIC["Glucose"] and mixed["ESR"] == TJH["ESR"]
    assert mixed.names.index("Glucose") == TJH.names.index("glucose")
    assert not {"glucose", "PH value"} & set(mixed.names)
    assert in_words_of(TJH, [Shared("pH", "PH value", "", "")], MIMIC)["pH"] == MIMIC["pH"]
