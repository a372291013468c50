"""The two feature catalogues: order, ranges, and aliases that mean one feature each."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest

from contracts.errors import ConfigError
from contracts.features import STATIC, Catalogue, Feature, catalogue
from prompts.mentions import MentionFinder

BOTH = ("mimic_iv", "tjh")
MIMIC_IV_ORDER = (
    "Capillary refill rate", "Glasgow coma scale eye opening", "Glasgow coma scale motor response",
    "Glasgow coma scale total", "Glasgow coma scale verbal response", "Diastolic blood pressure",
    "Fraction inspired oxygen", "Glucose", "Heart Rate", "Height", "Mean blood pressure", "Oxygen saturation",
    "Respiratory rate", "Systolic blood pressure", "Temperature", "Weight", "pH")


def test_mimic_iv_holds_the_17_features_of_the_paper_in_its_order():
    assert catalogue("mimic_iv").names == MIMIC_IV_ORDER


def test_the_coma_scales_are_ordinal_and_measurements_are_numeric():
    kinds = {feature.name: feature.kind for feature in catalogue("mimic_iv")}
    assert all(kind == "ordinal" for name, kind in kinds.items() if name.startswith("Glasgow"))
    assert kinds["Heart Rate"] == kinds["pH"] == "numeric"
    assert {feature.kind for feature in catalogue("tjh")} == {"numeric"}


def test_tjh_holds_73_tests_without_blanks_at_their_ends_and_without_the_nucleic_acid_column():
    names = catalogue("tjh").names
    assert len(names) == len(set(names)) == 73
    assert all(name == name.strip() for name in names)
    assert not any("nucleic acid" in name for name in names)
    assert (names[0], names[-1]) == ("Hypersensitive cardiac troponinI", "creatinine")


@pytest.mark.parametrize("name", BOTH)
def test_every_reference_interval_lies_in_its_plausible_range(name):
    for feature in catalogue(name):
        assert feature.low < feature.high, feature.name
        if feature.normal is not None:
            assert feature.low <= feature.normal[0] <= feature.normal[1] <= feature.high, feature.name


@pytest.mark.parametrize(("name", "value"), [
    ("Lactate dehydrogenase", 1867), ("Hypersensitive cardiac troponinI", 50000), ("ferritin", 50000),
    ("Amino-terminal brain natriuretic peptide precursor(NT-proBNP)", 70000), ("Interleukin 6", 5000), ("HBsAg", 250),
    ("Hypersensitive cardiac troponinI", 1.9), ("Serum potassium", 12.8), ("Total cholesterol", 0.1), ("ESR", 110)])
def test_detection_limits_of_tjh_survive(name, value):
    feature = catalogue("tjh")[name]
    assert feature.low <= value <= feature.high


@pytest.mark.parametrize("name", BOTH)
def test_the_first_alias_is_a_name_that_can_stand_in_a_prompt_and_not_a_condition(name):
    finder, conditions = MentionFinder(catalogue(name)), ("emia", "penia", "osis", "philia", "pnea", "cardia", "xia")
    for feature in catalogue(name):
        alias = feature.aliases[0]
        assert finder.canonical(alias) == feature.name and alias != feature.name
        assert not set(alias) & set("<>,;") and not alias.endswith((*conditions, "fever", "jaundice"))


@pytest.mark.parametrize("name", BOTH)
def test_each_alias_means_one_feature_and_is_found_as_that(name):
    features = catalogue(name)
    finder = MentionFinder(features)
    words = [(feature.name, alias) for feature in features for alias in (feature.name, *feature.aliases)]
    words += [(STATIC, alias) for alias in (STATIC, *features.static_aliases)]
    assert [(expected, alias) for expected, alias in words if finder.canonical(alias) != expected] == []
    assert len({alias for _, alias in words}) == len(words), "an alias stands twice"


def test_words_that_both_catalogues_know_mean_the_same_measurement():
    same = {"Glucose": "glucose", "pH": "PH value", STATIC: STATIC}
    mimic, tjh = (MentionFinder(catalogue(name)) for name in BOTH)
    for feature in catalogue("mimic_iv"):
        for alias in (feature.name, *feature.aliases):
            found = tjh.canonical(alias)
            assert found in (None, same.get(feature.name)), (alias, found)
    assert mimic.canonical("LDH") is None


def test_an_alias_of_two_features_is_refused_by_name():
    twice = Catalogue("odd", (Feature("urea", "", 0, 1, aliases=("kidney-value",)),
                              Feature("creatinine", "", 0, 1, aliases=("Kidney Values",))), ())
    with pytest.raises(ConfigError, match="Kidney Values.*creatinine.*urea.*one feature"):
        MentionFinder(twice)


def test_an_alias_without_a_letter_is_refused():
    with pytest.raises(ConfigError, match="letter or digit"):
        MentionFinder(Catalogue("odd", (Feature("urea", "", 0, 1, aliases=("--",)),), ()))


def test_an_unknown_catalogue_or_feature_names_what_there_is():
    with pytest.raises(ConfigError, match="mimic_iv, tjh"):
        catalogue("eicu")
    with pytest.raises(ConfigError, match="Heart Rate"):
        catalogue("mimic_iv")["Heart rat"]


@pytest.mark.real_data
def test_the_columns_of_the_tjh_file_are_the_catalogue_and_blood_values_lie_in_its_ranges():
    folder = os.environ.get("EAG_RL_DATA")
    if not folder:
        pytest.skip("EAG_RL_DATA names no folder of real data")
    rows = pl.read_excel(Path(folder) / "tjh" / "time_series_375_prerpocess_en.xlsx")
    labs = {column.strip(): column for column in rows.columns[7:] if "nucleic acid" not in column}
    assert tuple(labs) == catalogue("tjh").names
    handled_by_the_source = {"hemoglobin", "White blood cell count", "Red blood cell count", "PH value"}
    for feature in catalogue("tjh"):
        values = rows[labs[feature.name]].cast(pl.Float64).drop_nulls()
        outside = values.filter(~values.is_between(feature.low, feature.high) & (values != -1))
        assert feature.name in handled_by_the_source or outside.is_empty(), feature.name
