import json
import shutil
from pathlib import Path

import pytest

from contracts.errors import ModelError, PromptTooLongError
from models.policy.chat import ChatRenderer, ChatTokenizer, load_tokenizer, require_fit

MESSAGES = [{"role": "system", "content": "You read laboratory values."},
            {"role": "user", "content": "Lactate: 2.1, 8.4 µmol/L; père\n\n  indented  \tend "}]


def changed(folder: Path, target: Path, **settings: object) -> Path:
    shutil.copytree(folder, target)
    path = target / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return target


@pytest.mark.parametrize("messages", [MESSAGES, MESSAGES[1:]])
def test_prompt_ids_are_those_of_transformers(policy_folder: Path, tokenizer: ChatTokenizer,
                                              messages: list[dict[str, str]]) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(policy_folder)
    ids = ChatRenderer(tokenizer)(messages)
    assert ids == list(theirs.apply_chat_template(messages, add_generation_prompt=True)["input_ids"])
    assert tokenizer.eos_id == theirs.eos_token_id == 2
    assert tokenizer.pad_id == theirs.pad_token_id


def test_a_prefill_continues_the_prompt_and_changes_nothing_before_it(tokenizer: ChatTokenizer) -> None:
    render = ChatRenderer(tokenizer)
    prompt, prefilled = render(MESSAGES), render(MESSAGES, prefill="<Subquestion 1>")
    assert prefilled[:len(prompt)] == prompt
    assert tokenizer.decode(prefilled[len(prompt):]) == "<Subquestion 1>"
    assert render.count(MESSAGES) == len(prompt)


def test_the_begin_token_stands_once_and_the_answer_is_open(tokenizer: ChatTokenizer) -> None:
    ids = ChatRenderer(tokenizer)(MESSAGES)
    assert ids[:2].count(tokenizer.raw.token_to_id("<|im_start|>")) == 1
    assert tokenizer.render(MESSAGES).endswith("<|im_start|>assistant\n")


@pytest.mark.slow
def test_a_doubled_begin_token_is_refused(policy_folder: Path, tmp_path: Path) -> None:
    folder = changed(policy_folder, tmp_path / "model")
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").write_text("<|im_start|>" + template)
    with pytest.raises(ModelError, match="twice"):
        load_tokenizer(folder)


def test_a_template_that_never_ends_a_turn_is_refused(policy_folder: Path, tmp_path: Path) -> None:
    folder = changed(policy_folder, tmp_path / "model", eos_token="<|endoftext|>")
    with pytest.raises(ModelError, match="never writes '<|endoftext|>'".replace("|", r"\|")):
        load_tokenizer(folder)


def test_a_model_without_chat_template_is_refused(policy_folder: Path, tmp_path: Path) -> None:
    folder = changed(policy_folder, tmp_path / "model")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="no chat template"):
        load_tokenizer(folder)


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_broken_tokenizer_file_is_refused(policy_folder: Path, tmp_path: Path, content: str) -> None:
    folder = changed(policy_folder, tmp_path / "model")
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError):
        load_tokenizer(folder)


def test_a_template_inside_the_settings_is_found(policy_folder: Path, tmp_path: Path, tokenizer: ChatTokenizer) -> None:
    template = (policy_folder / "chat_template.jinja").read_text()
    folder = changed(policy_folder, tmp_path / "model", chat_template=[{"name": "default", "template": template}])
    (folder / "chat_template.jinja").unlink()
    assert ChatRenderer(load_tokenizer(folder))(MESSAGES) == ChatRenderer(tokenizer)(MESSAGES)


def test_a_template_that_writes_todays_date_writes_the_same_one_every_day(policy_folder: Path, tmp_path: Path) -> None:
    folder = changed(policy_folder, tmp_path / "model")
    path = folder / "chat_template.jinja"
    path.write_text("{{- 'Today Date: ' + strftime_now('%d %b %Y') + '\n' }}" + path.read_text())
    tokenizer = load_tokenizer(folder)
    assert tokenizer.render(MESSAGES).startswith("Today Date: 26 Jul 2024\n")


def test_what_does_not_fit_the_context_is_an_error_with_a_way_out() -> None:
    require_fit(90, 10, 100, "stay 7")
    with pytest.raises(PromptTooLongError) as caught:
        require_fit(91, 10, 100, "stay 7")
    assert "91" in caught.value.value and "prompts.visits" in caught.value.next_step


def test_the_tokenizer_loads_without_torch_or_transformers() -> None:
    import subprocess
    import sys

    code = ("import sys; import models.policy.loading; "
            "print([name for name in ('torch', 'transformers', 'trl') if name in sys.modules])")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          timeout=120).stdout.strip() == "[]"
