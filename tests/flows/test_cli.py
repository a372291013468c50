"""The command as a user meets it: help, results as JSON, errors without a traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lineage.store import Store
from support.ordinary_user import ordinary_user
from support.small_store import put
from support.tiny_study import command, eag_rl, last_json


def test_help_names_every_command() -> None:
    text = eag_rl("--help").stdout
    for name in ("run", "cohort", "expert", "trees", "policy", "report", "robustness", "transfer", "lineage", "predict",
                 "serve", "data", "config", "doctor", "up", "down", "deploy", "landing", "synthesize", "export",
                 "import", "gc", "champion"):
        assert name in text


def test_a_wrong_setting_ends_with_value_rule_and_next_step() -> None:
    done = eag_rl("run", "--set", "policy.grpo.lr=9", check=False)
    assert done.returncode == 2
    assert "policy.grpo.lr = 9" in done.stderr and "rule:" in done.stderr and "next step:" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_last_part_is_refused_before_a_server_starts(tmp_path: Path) -> None:
    done = eag_rl("run", "--until", "robustness", "--set", f"paths.workspace={tmp_path / 'w'}", check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr and not (tmp_path / "w").exists()
    for part in ("cohort", "expert", "trees", "policy", "report"):
        assert part in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_stopped_says_how_to_go_on(sent: signal.Signals) -> None:
    code = ("import time\nfrom flows import cli\n"
            "@cli.app.command()\ndef sleep() -> None:\n    print('asleep', flush=True)\n    time.sleep(60)\n"
            "cli.main()")
    child = subprocess.Popen([sys.executable, "-c", code, "sleep"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             text=True, cwd=Path(__file__).parents[2])
    try:
        assert child.stdout is not None and child.stdout.readline() == "asleep\n"
        child.send_signal(sent)
        said = child.communicate(timeout=30)[1]
    finally:
        child.kill()
    assert child.returncode == 130 and "run the same command to go on" in said and "Traceback" not in said


def test_an_error_is_json_where_json_is_asked_for() -> None:
    done = eag_rl("config", "show", "--config", "nowhere", "--json", check=False)
    assert done.returncode == 2
    assert set(json.loads(done.stdout)) == {"error", "value", "rule", "next"}


def test_config_show_prints_what_overrides_made_of_it() -> None:
    values = last_json(eag_rl("config", "show", "--config", "tjh_small", "--set", "search.depth=4", "--json"))
    assert values["search"]["depth"] == 4 and values["cohort"]["source"] == "tjh"


@pytest.mark.slow
def test_lineage_of_an_empty_workspace_says_what_is_missing(tmp_path: Path) -> None:
    done = eag_rl("lineage", "report", "--set", f"paths.workspace={tmp_path}", check=False)
    assert done.returncode == 2 and "no artifact 'report'" in done.stderr


def test_a_workspace_that_takes_no_files_stops_a_study_at_once_and_loses_nothing(tmp_path: Path) -> None:
    made = put(Store(tmp_path), "cohort", {"meta.json": "{}"})
    (tmp_path / "artifacts").chmod(0o555)
    try:
        done = subprocess.run(command("run", "--set", f"paths.workspace={tmp_path}"), capture_output=True, text=True,
                              check=False, preexec_fn=ordinary_user)
    finally:
        (tmp_path / "artifacts").chmod(0o755)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"{tmp_path / 'artifacts'} is not writable" in done.stderr and "next step:" in done.stderr
    assert not (tmp_path / "prefect" / "server.log").exists() and Store(tmp_path).verify(made) == []


@pytest.mark.slow
def test_synthesize_writes_an_extract_once_and_refuses_to_write_over_it(tmp_path: Path) -> None:
    wanted = ("synthesize", "--layout", "mimic-iv-2.2", "--stays", "3", "--rows-per-stay", "600", "--dirty", "0.1",
              "--format", "csv", "--out", str(tmp_path / "x"))
    counts = last_json(eag_rl(*wanted, "--json"))
    assert counts["rows"]["icu/icustays"] == 3 and counts["dirty"] > 0
    assert (tmp_path / "x" / "icu" / "chartevents.csv").is_file() and (tmp_path / "x" / "SHA256SUMS.txt").is_file()
    again = eag_rl(*wanted, check=False)
    assert again.returncode == 2 and "not empty" in again.stderr and "Traceback" not in again.stderr


@pytest.mark.smoke
def test_a_cohort_without_its_file_fails_with_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    done = eag_rl("cohort", "--config", "tjh_small", "--set", f"paths.workspace={tmp_path / 'w'}",
                  "--set", f"paths.data={tmp_path / 'data'}", check=False)
    assert done.returncode == 2
    assert "time_series_375" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.smoke
@pytest.mark.real_data
def test_the_cohort_command_prints_every_count_of_table_3(tmp_path: Path) -> None:
    if not os.environ.get("EAG_RL_DATA"):
        pytest.skip("EAG_RL_DATA names no data folder")
    counts = last_json(eag_rl("cohort", "--config", "tjh", "--set", f"paths.workspace={tmp_path / 'w'}", "--json"))
    splits = counts["splits"]
    names = ("patients", "visits", "negative", "positive", "visits_negative", "visits_positive")
    assert {split: tuple(row[name] for name in names) for split, row in splits.items()} == {
        "test": (200, 967, 109, 91, 601, 366), "train": (140, 641, 75, 65, 395, 246),
        "validation": (21, 96, 11, 10, 54, 42)}
