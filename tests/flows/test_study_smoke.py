"""The whole study on real Prefect, MLflow, vLLM and TRL with a tiny policy: made once, reused, changed, killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest

from support.tiny_study import command, eag_rl, last_json, ran, tiny_study

pytestmark = [pytest.mark.smoke, pytest.mark.timeout(2400)]
ARMS = {"vanilla", "think", "decomposition", "stage1", "stage1+2"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A finished tiny study: (configuration, what `run --json` printed)."""
    path = tiny_study(tmp_path_factory.mktemp("study"))
    yield path, last_json(eag_rl("run", "--config", str(path), "--json", seconds=1800))


def workspace(path: Path) -> Path:
    return path.parent / "workspace"


def test_every_stage_ran_and_the_table_has_every_arm(study: tuple[Path, dict[str, Any]]) -> None:
    path, result = study
    assert {"cohort", "expert", "readings", "patients", "base", "trajectories", "sft", "check", "rl", "baselines",
            "report", *(f"verdicts:{arm}" for arm in ARMS)} == ran(result)
    arms = {row["Arm"] for row in result["result"]["table"]}
    assert arms >= ARMS
    page = Path(result["result"]["report"]).read_text(encoding="utf-8")
    assert "<html" in page and "http://" not in page.replace("http://www.w3.org", "")


def test_every_trajectory_is_well_formed_whatever_the_model(study: tuple[Path, dict[str, Any]]) -> None:
    path, result = study
    folder = workspace(path) / result["artifacts"]["trajectories"]["uri"]
    assert json.loads((folder / "statistics.json").read_text())["well_formed"] == 1.0


def test_each_optimiser_step_reports_rewards_bounds_and_clipped_shares(study: tuple[Path, dict[str, Any]]) -> None:
    """A random policy earns no reward to learn from; that tokens do clip is shown on a taught one, in models/policy."""
    path, result = study
    folder = workspace(path) / result["artifacts"]["rl"]["uri"]
    steps = [json.loads(line) for line in (folder / "progress.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2, 3, 4]
    for step in (step["metrics"] for step in steps):
        assert {"reward", "outcome_reward", "attention_reward", "parse_rate", "drift", "completion_tokens",
                "clipped_above", "clipped_below", "trajectories_clipped_above",
                "trajectories_clipped_below"} <= set(step)
        assert 0.2 - 1e-6 <= step["bound_min"] <= step["bound_mean"] + 1e-6 <= step["bound_max"] + 2e-6 <= 0.4 + 3e-6


def test_an_unchanged_rerun_makes_nothing(study: tuple[Path, dict[str, Any]]) -> None:
    path, first = study
    again = last_json(eag_rl("run", "--config", str(path), "--json"))
    assert ran(again) == set()
    assert all(stage["why"] == "nothing changed" for stage in again["stages"])
    assert again["result"] == first["result"]


def test_a_sweep_shares_all_that_does_not_differ_and_stands_under_one_run(study: tuple[Path, dict[str, Any]]) -> None:
    path, _ = study
    swept = last_json(eag_rl("sweep", "--config", str(path), "--json", "--over", "evaluation.bootstraps=21,22",
                             "--over", "evaluation.arms=[[decomposition]]"))
    assert [row["evaluation.bootstraps"] for row in swept["rows"]] == [21, 22]
    assert all(0.0 <= row["stated/auroc"] <= 1.0 and row["study run"] and not row["error"] for row in swept["rows"])
    assert len(list((workspace(path) / "artifacts" / "rl").glob("rl-*"))) == 1
    client = mlflow.MlflowClient(f"sqlite:///{workspace(path) / 'mlflow' / 'mlflow.db'}")
    tags = [client.get_run(row["study run"]).data.tags for row in swept["rows"]]
    assert [one["mlflow.parentRunId"] for one in tags] == [swept["sweep"]] * 2


def test_a_changed_setting_of_stage_2_reruns_it_and_what_follows(study: tuple[Path, dict[str, Any]]) -> None:
    path, _ = study
    changed = last_json(eag_rl("run", "--config", str(path), "--json", "--set", "policy.grpo.lr=5e-4"))
    assert ran(changed) == {"rl", "verdicts:stage1+2", "report"}
    why = {stage["stage"]: stage["why"] for stage in changed["stages"]}
    assert why["rl"] == "setting policy.grpo.lr: 0.001 -> 0.0005"
    assert "input adapter changed" in why["verdicts:stage1+2"]


def test_an_altered_artifact_is_found_and_made_again_once_by_two_runs_at_once(
        study: tuple[Path, dict[str, Any]]) -> None:
    path, result = study
    page = Path(result["result"]["report"])
    page.write_text("forged", encoding="utf-8")
    found = eag_rl("lineage", result["artifacts"]["report"]["id"], "--config", str(path), "--verify", check=False)
    assert found.returncode == 2 and f"altered {result['artifacts']['report']['id']}: report.html" in found.stdout
    with ThreadPoolExecutor() as pool:
        both = [pool.submit(eag_rl, "run", "--config", str(path), "--json") for _ in range(2)]
    again = [last_json(one.result()) for one in both]
    assert sorted(map(sorted, map(ran, again))) == [[], ["report"]]
    whys = {stage["why"] for one in again for stage in one["stages"] if stage["stage"] == "report" and stage["ran"]}
    assert whys == {"its artifact was altered (report.html), so it is made again"}
    assert not any("locked" in one.result().stderr for one in both)


def test_lineage_walks_back_from_the_report_to_the_model_file(study: tuple[Path, dict[str, Any]]) -> None:
    path, result = study
    node = last_json(eag_rl("lineage", "report", "--config", str(path), "--json", "--verify"))
    assert node["kind"] == "report" and node["altered"] == []
    assert node["inputs"]["rl"]["inputs"]["sft"]["inputs"]["trajectories"]["inputs"]["cohort"]["kind"] == "cohort"
    assert any(name.endswith("model.safetensors") and len(digest) == 64
               for name, digest in node["source_files"].items())


def test_the_same_chain_stands_in_mlflow(study: tuple[Path, dict[str, Any]]) -> None:
    from lineage.tracking import Tracker

    path, result = study
    client = Tracker(workspace(path), "tiny").client
    experiment = client.get_experiment_by_name("eag-rl")
    runs = {run.data.tags["artifact.id"]: run for run in client.search_runs([experiment.experiment_id])
            if "artifact.id" in run.data.tags}
    rl = runs[result["artifacts"]["rl"]["id"]]
    sft = runs[rl.data.tags["input.sft"]]
    assert rl.data.tags["input.sft.run"] == sft.info.run_id
    assert rl.data.tags["mlflow.parentRunId"] and rl.data.tags["git.commit"]
    assert {entry.dataset.name for entry in rl.inputs.dataset_inputs} >= {sft.data.tags["artifact.id"]}
    assert rl.outputs.model_outputs and len(client.get_metric_history(rl.info.run_id, "reward")) == 4
    assert f"child.{rl.info.run_id}" in sft.data.tags
    versions = list(Tracker(workspace(path), "tiny").registry.versions("tiny", "policy"))
    assert result["artifacts"]["rl"]["id"] in {version.artifact for version in versions}
    assert {version.run for version in versions} <= {run.info.run_id for run in runs.values()}


def test_a_study_is_exported_without_patients_and_what_it_no_longer_uses_is_freed(
        study: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    path, result = study
    exported = last_json(eag_rl("export", "tiny", "--out", str(tmp_path / "x.tar.gz"), "--config", str(path), "--json"))
    with tarfile.open(tmp_path / "x.tar.gz") as archive:
        names = archive.getnames()
    assert exported["files"] == len(names) - 1 and not [name for name in names if name.endswith(".parquet")]
    freed = last_json(eag_rl("gc", "--config", str(path), "--json"))
    assert freed["kept"] == ["tiny"] and freed["counts"]["artifact"] >= 1
    assert ran(last_json(eag_rl("run", "--config", str(path), "--json"))) == set()
    report = result["artifacts"]["report"]["id"]
    node = last_json(eag_rl("lineage", report, "--config", str(path), "--json", "--verify"))
    assert node["altered_artifacts"] == {} and node["altered_sources"] == {}


def test_one_patient_gets_risk_reasoning_and_features(study: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    path, _ = study
    patient = tmp_path / "patient.json"
    patient.write_text(eag_rl("predict", "--example", "--config", str(path)).stdout, encoding="utf-8")
    answer = last_json(eag_rl("predict", str(patient), "--config", str(path), "--json"))
    assert 0.0 < answer["expert_risk"] < 1.0 and len(answer["expert_features"]) == 5
    assert isinstance(answer["reasoning"], str) and answer["model"].startswith("rl-")


def test_the_robustness_experiment_takes_over_the_finished_study(study: tuple[Path, dict[str, Any]]) -> None:
    path, _ = study
    wanted = ("robustness", "--config", str(path), "--json", "--set", "robustness.kinds=[shuffle,rename]", "--set",
              "robustness.shares=[0,1]", "--set", "robustness.arms=[decomposition,stage1+2]")
    first = last_json(eag_rl(*wanted))
    steps, arms = ("shuffle-1.0", "rename-1.0"), ("decomposition", "stage1+2")
    assert ran(first) == {"robustness", "perturbed-readings:shuffle-1.0", "perturbed-baselines:shuffle-1.0",
                          *(f"{stage}:{step}" for stage in ("perturbed", "perturbed-patients") for step in steps),
                          *(f"perturbed-verdicts:{arm}@{step}" for arm in arms for step in steps)}
    assert {row["arm"] for row in first["result"]["table"]} >= set(arms)
    assert ran(last_json(eag_rl(*wanted))) == set()


def test_nothing_is_left_running(study: tuple[Path, dict[str, Any]]) -> None:
    path, _ = study
    assert left_over(path) == []


def left_over(path: Path) -> list[str]:
    """Command lines of living processes that name the study's folder."""
    return [" ".join(process.info["cmdline"])[:200] for process in psutil.process_iter(["cmdline"])
            if str(path.parent) in " ".join(process.info["cmdline"] or [])]


def test_after_kill_9_at_random_moments_nothing_finished_is_made_again(tmp_path: Path) -> None:
    path, arms = tiny_study(tmp_path), {"decomposition", "stage1+2"}
    run = ("run", "--config", str(path), "--json", "--set", f"evaluation.arms=[{', '.join(sorted(arms))}]")
    drawn = random.Random(os.environ.get("EAG_RL_KILL_SEED", "7"))
    finished: dict[str, float] = {}
    for _ in range(2):
        child = subprocess.Popen(command(*run), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                 start_new_session=True)
        time.sleep(drawn.uniform(45.0, 110.0))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        found = {manifest.parent.name: manifest.stat().st_mtime
                 for manifest in workspace(path).glob("artifacts/*/*/manifest.json")}
        assert all(found.get(name) == moment for name, moment in finished.items())
        finished = found
    limit = time.monotonic() + 30.0
    while left_over(path) and time.monotonic() < limit:
        time.sleep(0.5)
    assert left_over(path) == []
    result = last_json(eag_rl(*run, seconds=1800))
    made = {manifest.parent.name: manifest.stat().st_mtime
            for manifest in workspace(path).glob("artifacts/*/*/manifest.json")}
    assert all(made[name] == moment for name, moment in finished.items())
    assert {row["Arm"] for row in result["result"]["table"]} >= arms
