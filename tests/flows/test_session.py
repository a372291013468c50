"""A session is refused at once for what no stage of it could do."""

from __future__ import annotations

import pytest

from contracts.errors import ConfigError
from flows.opening import open_session


def test_a_feature_that_the_source_does_not_have_is_an_error_before_anything_is_trained() -> None:
    with pytest.raises(ConfigError, match="unknown feature 'Heart rate'"):
        open_session("demo", ['prompts.features=["Heart rate"]'])
    assert open_session("demo", ['prompts.features=["Heart Rate"]']).config.prompts.features == ("Heart Rate",)
    assert open_session("tjh_arms", []).config.prompts.visits == 1
