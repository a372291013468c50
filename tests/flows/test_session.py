"""A session is refused at once for what no stage of it could do."""

from __future__ import annotations

import pytest

from contracts.errors import ConfigError
from flows.opening import open_session


def test_a_feature_that_the_source_does_not_have_is_an_error_before_anything_is_trained() -> None:
    with pytest.raises(ConfigError, match="unknown feature 'Heart rate'"):
        open_session("demo", ['prompts.features=["Heart rate"]'])
    assert open_session("demo", ['prompts.features=["Heart Rate"]']).config.prompts.features == ("Heart Rate",)
    with pytest.raises(ConfigError, match="unknown feature 'Pulse'"):
        open_session("demo", ["evaluation.arms=[vanilla, mine]",
                              "arms.mine={title: Mine, prepare: {prompts.features: [Pulse]}}"])
    assert open_session("tjh_arms", []).config.prompts.visits == 1


def test_names_of_features_of_a_meds_dataset_are_those_of_its_mapping() -> None:
    names = ["Lactate dehydrogenase", "Heart Rate"]
    settings = ["cohort.source=meds", f"prompts.features={names}"]
    assert list(open_session("mimic_demo_meds", settings).config.prompts.features) == names
