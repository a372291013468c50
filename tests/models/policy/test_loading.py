import json
import shutil
from pathlib import Path

import pytest

from contracts.errors import ModelError, NetworkError
from models.policy.chat import ChatRenderer, load_tokenizer
from models.policy.loading import check_folder, load_base, prepare_model


@pytest.fixture
def folder(taught_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(taught_folder, tmp_path / "model")


def test_a_folder_is_taken_as_it_is(folder: Path, tmp_path: Path) -> None:
    assert prepare_model(str(folder), tmp_path / "cache") == folder
    assert load_base(folder, "float32").config.model_type == "llama"


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"only \['pytorch_model.bin'\]"):
        check_folder(folder)


def test_cut_off_weights_are_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelError, match="whole safetensors"):
        check_folder(folder)


@pytest.mark.parametrize("content", [None, "{", "{}", "[]"])
def test_a_folder_without_a_readable_config_is_refused(folder: Path, content: str | None) -> None:
    path = folder / "config.json"
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    with pytest.raises(ModelError, match="config.json"):
        check_folder(folder)


def test_code_that_comes_with_a_model_is_never_run(folder: Path) -> None:
    path = folder / "config.json"
    settings = json.loads(path.read_text()) | {"model_type": "own", "auto_map": {"AutoModelForCausalLM": "own.Model",
                                                                                "AutoConfig": "own.Config"}}
    path.write_text(json.dumps(settings))
    (folder / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    with pytest.raises(ModelError, match="runs no code"):
        load_base(folder, "float32")
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("name", ["no such model", "../nothing/here", "a/b/c"])
def test_a_name_that_means_nothing_is_an_error_with_a_way_out(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        prepare_model(name, tmp_path)
    assert "policy.model" in caught.value.next_step and "smollm2-135m" in caught.value.rule


def test_without_network_a_hub_name_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(NetworkError) as caught:
        prepare_model("example-owner/example-model", tmp_path)
    assert "set policy.model to its folder" in caught.value.next_step


@pytest.mark.smoke
def test_the_shipped_model_is_converted_once_and_speaks_english(tmp_path: Path) -> None:
    import torch

    folder = prepare_model("smollm2-135m", tmp_path, "float32")
    source = json.loads((folder / "source.json").read_text())
    assert len(source["sha256"]) == 64
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert prepare_model("smollm2-135m", tmp_path, "float32") == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    tokenizer, model = load_tokenizer(folder), load_base(folder, "float32")
    prompt = torch.tensor([ChatRenderer(tokenizer)([{"role": "user", "content": "Name the capital of Germany."}])])
    ids = model.generate(prompt, do_sample=False, max_new_tokens=16)[0, prompt.shape[1]:].tolist()
    assert "Berlin" in tokenizer.decode(ids)
    assert tokenizer.eos_id == model.config.eos_token_id == 2
