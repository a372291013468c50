"""Configurations: extends, overrides, and all errors at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.load import describe, dump, load, shipped
from configs.schema import Config, Grpo
from contracts.errors import ConfigError


def test_every_shipped_configuration_is_valid() -> None:
    assert {"demo", "tjh", "tjh_small"} <= set(shipped())
    for name in shipped():
        assert load(name).study.name


def test_a_child_configuration_overrides_only_what_it_names() -> None:
    parent, child = load("tjh"), load("tjh_small")
    assert child.cohort == parent.cohort
    assert child.policy.model != parent.policy.model


def test_a_dotted_override_reads_its_value_as_a_number() -> None:
    assert load("demo", ["policy.grpo.lr=1e-5"]).policy.grpo.lr == 1e-5
    assert load("demo", ["search.stays=all"]).search.stays == "all"


def test_all_errors_are_reported_at_once_with_their_ranges() -> None:
    with pytest.raises(ConfigError) as caught:
        load("demo", ["policy.grpo.lr=7", "search.depth=0", "policy.grop.lr=1", "cohort.source=mars"])
    text = caught.value.value
    assert "4 invalid" in text
    assert "policy.grpo.lr = 7" in text and "<= 1.0" in text
    assert "search.depth = 0" in text and ">= 1" in text
    assert "did you mean 'grpo'" in text
    assert "synthetic, tjh" in text


def test_entropy_clipping_that_could_never_clip_is_refused() -> None:
    with pytest.raises(ConfigError, match="more than one optimiser step per rollout batch"):
        load("demo", ["policy.grpo.minibatches=1", "policy.grpo.iterations=1"])
    inert_but_off = load("demo", ["policy.grpo.minibatches=1", "policy.grpo.entropy_clip=false"])
    assert not inert_but_off.policy.grpo.entropy_clip


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="must be a multiple"):
        Grpo(generations=8, prompts_per_batch=1, minibatches=3, micro_batch=2)


def test_the_paper_split_needs_the_paper_cohort() -> None:
    with pytest.raises(ConfigError, match=r"split=paper needs cohort\.source=tjh"):
        load("demo", ["cohort.split=paper"])


def test_an_unknown_configuration_names_those_that_exist() -> None:
    with pytest.raises(ConfigError) as caught:
        load("no_such_thing")
    assert "tjh_small" in caught.value.rule


def test_a_file_that_extends_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "loop.yaml"
    path.write_text(f"extends: {path}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="extends itself"):
        load(str(path))


def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.yaml"
    path.write_text("- 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="holds a list"):
        load(str(path))


@pytest.mark.parametrize("content", [b"study: {name: \xff}\n", b"study: {name: 2026-13-01}\n"])
def test_a_file_that_is_no_text_or_holds_no_date_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="is no YAML"):
        load(str(path))


def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(f"extends: {'x' * 300}\n")
    for name, settings in (("x" * 300, []), (str(tmp_path / "own.yaml"), []),
                           ("demo", [f"evaluation.arms=[{'x' * 300}]"])):
        with pytest.raises(ConfigError, match="too long"):
            load(name, settings)


def test_an_override_with_a_date_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="month must be"):
        load("demo", ["study.name=2026-13-01"])


def test_a_dumped_configuration_validates_to_itself() -> None:
    config = load("tjh_small")
    assert Config.model_validate(dump(config)) == config


def test_every_setting_has_a_description() -> None:
    assert [name for name, _, _, text in describe() if not text] == []


def test_a_database_address_with_a_password_is_refused() -> None:
    with pytest.raises(ConfigError, match="PGPASSFILE"):
        load("demo", ["operations.prefect_database=postgresql+asyncpg://me:secret@127.0.0.1/prefect"])
    with pytest.raises(ConfigError, match="prefect_database"):
        load("demo", ["operations.prefect_database=mysql://127.0.0.1/prefect"])
    found = load("demo", ["operations.mlflow_database=postgresql://me@127.0.0.1/mlflow"]).operations
    assert found.mlflow_database == "postgresql://me@127.0.0.1/mlflow"


@pytest.mark.parametrize("setting", ["paths.data", "landing.folder", "partitions.cache"])
@pytest.mark.parametrize("address", [
    "sftp://me:Xy7secret@host/x", "sftp://me:Xy7p@secret@host/x", "sftp://me:Xy7/secret@host/x",
    "sftp://:Xy7secret@[::1]:22/x", "simplecache::sftp://me:Xy7secret@host:22/x"])
def test_an_address_of_data_with_a_password_is_refused_without_repeating_it(setting: str, address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load("demo", [f"{setting}={address}"])
    said = str(caught.value)
    assert f"`{setting.partition('.')[2]}`" in said and "would be recorded" in said and "FSSPEC_SFTP_PASSWORD" in said
    assert "Xy7" not in said and "secret@" not in said


@pytest.mark.parametrize("address", [
    "s3://bucket/folder", "sftp://me@host:22/a@b", "sftp://host:22/a:b@c", "s3://bucket/a:b@c", "/data/a:b@c",
    "sftp://[::1]:22/a@b", "zip://inner.csv::s3://bucket/a@b", "memory://landing",
    "github://org:repo@main/data", "git://folder:repo@ref"])
def test_an_address_of_data_without_a_password_is_taken(address: str) -> None:
    assert load("demo", [f"landing.folder={address}", f"paths.data={address}"]).landing.folder == address


def test_a_database_password_is_not_repeated() -> None:
    with pytest.raises(ConfigError, match="mlflow_database") as caught:
        load("demo", ["operations.mlflow_database=postgresql://me:Xy7p@secret@127.0.0.1/mlflow"])
    assert "secret" not in str(caught.value)


def test_the_workspace_of_the_environment_stands_where_nothing_else_sets_it(monkeypatch: pytest.MonkeyPatch,
                                                                           tmp_path: Path) -> None:
    monkeypatch.setenv("EAG_RL_WORKSPACE", "/x/workspace")
    assert load("demo").paths.workspace == "/x/workspace"
    assert load("demo", ["paths.workspace=mine"]).paths.workspace == "mine"
    own = tmp_path / "own.yaml"
    own.write_text("extends: demo\npaths: {workspace: theirs}\n")
    assert load(str(own)).paths.workspace == "theirs"


@pytest.mark.parametrize("setting", [
    "evaluation.stays=-5", "evaluation.stays=0", "evaluation.stays=1", "evaluation.validation_stays=0",
    "search.stays=0", "policy.grpo.stays=-1", "policy.grpo.completion_tokens=16000",
    "evaluation.completion_tokens=4096", "evaluation.reference=stage-1"])
def test_what_would_fail_or_mislead_after_hours_of_training_is_refused_at_once(setting: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load("demo", [setting])
    assert setting.partition("=")[2] in caught.value.value
