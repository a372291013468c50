"""The keys of the training stages: what a job is told is part of them."""

from types import SimpleNamespace
from typing import Any

import pytest

from configs.load import load
from tasks.rl import rl
from tasks.sft import sft


@pytest.mark.parametrize("stage", [sft, rl], ids=["sft", "rl"])
def test_another_number_of_features_asked_for_is_another_training(stage: Any) -> None:
    keys = {stage.recipe(SimpleNamespace(config=load("demo", [f"prompts.expert_features={count}"])), {}).key
            for count in (5, 6)}
    assert len(keys) == 2
