"""Stage `base`: the model that is used is the one that was recorded, and other weights in its folder are another."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from configs.load import load
from contracts.errors import ArtifactError
from support.tiny_policy import tiny_policy
from tasks.base import base, model_folder
from tasks.stage import Work


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_policy(tmp_path_factory.mktemp("policy"))


def test_other_weights_in_the_folder_of_a_model_are_refused_and_are_another_recipe(model: Path, tmp_path: Path) -> None:
    session = cast(Any, SimpleNamespace(config=load("demo", [f"policy.model={model}"]), workspace=tmp_path))
    out = tmp_path / "artifacts" / "base" / "base-0123456789ab"
    out.mkdir(parents=True)
    made = base.make(Work("base", session, {}, {}, out, out, "run"))
    before = base.recipe(session, {})
    assert model_folder(out, tmp_path) == model.resolve() and f"{model}/model.safetensors" in made.sources
    (model / ".git").mkdir()
    for name in (".git/index", ".git/config.json", "README.md"):
        (model / name).write_text("of no model")
    assert model_folder(out, tmp_path) == model.resolve() and base.recipe(session, {}).key == before.key
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    with pytest.raises(ArtifactError, match=r"was altered \(model\.safetensors\)"):
        model_folder(out, tmp_path)
    assert base.recipe(session, {}).key != before.key


def test_a_model_that_is_gone_is_an_error_with_a_next_step(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text('{"name": "x", "folder": "/nowhere/x", "files": {}}')
    with pytest.raises(ArtifactError, match="no longer at") as caught:
        model_folder(tmp_path, tmp_path)
    assert "run again" in caught.value.next_step
