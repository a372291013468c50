"""`eag-rl lineage`, `export`, `import` and `gc` as a user meets them, in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from contracts.errors import ArtifactError, ConfigError, StorageError
from flows.cli import app
from support.small_store import ANSWER, EVIDENCE, STAYS, small_store


def ask(folder: Path, *arguments: str) -> Result:
    """Runs the command on the workspace of a small store in `folder`."""
    return CliRunner().invoke(app, [*arguments, "--set", f"paths.workspace={folder / 'workspace'}", "--set",
                                    "study.name=small"])


def test_the_tree_goes_from_the_report_to_source_files_and_unfolds_each_artifact_once(tmp_path: Path) -> None:
    _, made = small_store(tmp_path)
    said = ask(tmp_path, "lineage", "report").stdout
    assert "hospital.csv" in said and said.count("hospital.csv") == 1
    assert f"{made['patients'].id} (see above)" in said


def test_verify_says_what_was_altered_and_ends_with_an_error(tmp_path: Path) -> None:
    store, made = small_store(tmp_path)
    whole = ask(tmp_path, "lineage", "report", "--verify")
    assert whole.exit_code == 0 and "altered" not in whole.stdout and "not reachable now: 1" in whole.stdout
    assert "verified: 7 of 7 artifacts and 1 of 2 source files are as they were recorded" in whole.stdout
    (store.folder(made["rl"]) / "rollouts.parquet").write_bytes(b"forged")
    (tmp_path / "model" / "config.json").write_text('{"forged": 1}')
    found = ask(tmp_path, "lineage", "report", "--verify")
    assert found.exit_code == 2
    assert f"altered {made['rl'].id}: rollouts.parquet" in found.stdout
    assert "verified: 6 of 7 artifacts and 0 of 2 source files" in found.stdout
    assert "altered source tiny/config.json is another file now" in found.stdout
    values = json.loads(ask(tmp_path, "lineage", "report", "--verify", "--json").stdout)
    assert values["altered_artifacts"] == {made["rl"].id: ["rollouts.parquet"]}
    assert list(values["altered_sources"]) == ["tiny/config.json"]
    assert values["unreached_sources"] == ["hospital.csv"]


def test_verify_of_no_artifact_checks_all_of_the_workspace(tmp_path: Path) -> None:
    store, made = small_store(tmp_path)
    whole = ask(tmp_path, "lineage", "--verify")
    assert whole.exit_code == 0 and "altered" not in whole.stdout
    assert "verified: 7 of 7 artifacts are" in " ".join(whole.stdout.split())
    values = json.loads(ask(tmp_path, "lineage", "--verify", "--json").stdout)
    assert made["report"].id in [one["id"] for one in values["artifacts"]] and values["altered_artifacts"] == {}
    (store.folder(made["rl"]) / "rollouts.parquet").write_bytes(b"forged")
    (store.folder(made["base"]) / "manifest.json").write_text("{")
    found = ask(tmp_path, "lineage", "--verify")
    assert found.exit_code == 2
    said = " ".join(found.stdout.split())  # whatever the terminal's width
    assert f"altered {made['rl'].id}: rollouts.parquet" in said and f"altered {made['base'].id}: manifest.json" in said
    assert "verified: 5 of 7 artifacts are as they were recorded" in said
    as_json = ask(tmp_path, "lineage", "--verify", "--json")
    values = json.loads(as_json.stdout)
    assert as_json.exit_code == 2 and made["rl"].id in [one["id"] for one in values["artifacts"]]
    assert values["altered_artifacts"] == {made["rl"].id: ["rollouts.parquet"], made["base"].id: ["manifest.json"]}
    assert ask(tmp_path, "lineage").exit_code == 0


@pytest.mark.parametrize("form", ["tree", "mermaid", "html"])
def test_every_form_goes_down_to_one_prediction_and_names_nobody(form: str, tmp_path: Path) -> None:
    small_store(tmp_path)
    out = () if form == "tree" else ("--out", str(tmp_path / "drawn"))
    done = ask(tmp_path, "lineage", "--stay", STAYS[0], "--arm", "stage1+2", "--format", form, *out)
    assert done.exit_code == 0, done.output
    text = (tmp_path / "drawn").read_text() if out else done.stdout
    assert "prediction-" in text and "verdicts-" in text and "0.75" in text
    assert not any(secret in text for secret in (*STAYS, EVIDENCE, ANSWER))


@pytest.mark.parametrize("arguments", [("--stay", STAYS[0]), ("--arm", "stage1+2"), ("report", "--out", "x.txt"),
                                       ("--out", "x.html"), ("--format", "html"), ("--verify", "--format", "mermaid")])
def test_options_that_do_not_fit_together_are_refused(arguments: tuple[str, ...], tmp_path: Path) -> None:
    small_store(tmp_path)
    assert isinstance(ask(tmp_path, "lineage", *arguments).exception, ConfigError)


@pytest.mark.parametrize("out", ["missing/why.html", "folder"])
def test_a_page_that_cannot_be_written_is_an_error_with_a_next_step(out: str, tmp_path: Path) -> None:
    small_store(tmp_path)
    (tmp_path / "folder").mkdir()
    refused = ask(tmp_path, "lineage", "report", "--format", "html", "--out", str(tmp_path / out)).exception
    assert isinstance(refused, StorageError) and "--out" in refused.next_step


def test_gc_says_how_many_bytes_and_refuses_a_study_that_is_not_there(tmp_path: Path) -> None:
    store, made = small_store(tmp_path)
    assert "would free 0 bytes; kept studies: small; running: none" in ask(tmp_path, "gc", "--dry-run").stdout
    refused = ask(tmp_path, "gc", "--keep", "smal").exception
    assert isinstance(refused, ConfigError) and "small" in refused.rule
    assert store.verify(made["report"]) == []


def test_an_export_has_its_kind_in_its_name_and_a_study_that_is_there(tmp_path: Path) -> None:
    small_store(tmp_path)
    assert isinstance(ask(tmp_path, "export", "small", "--out", str(tmp_path / "x.zip")).exception, ConfigError)
    assert isinstance(ask(tmp_path, "export", "nobody", "--out", str(tmp_path / "x.tar.gz")).exception, ArtifactError)


@pytest.mark.slow
def test_a_study_goes_out_and_comes_in_by_command(tmp_path: Path) -> None:
    small_store(tmp_path)
    out = tmp_path / "small.tar.gz"
    wrote = json.loads(ask(tmp_path, "export", "small", "--out", str(out), "--json").stdout.splitlines()[-1])
    assert (wrote["artifacts"], wrote["bytes"]) == (7, out.stat().st_size)
    came = json.loads(ask(tmp_path / "there", "import", str(out), "--json").stdout.splitlines()[-1])
    assert came["study"] == "small" and came["files"] == wrote["files"]
    assert (Path(came["folder"]) / "bundle.json").is_file()
