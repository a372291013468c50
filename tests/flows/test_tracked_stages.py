"""Stages in MLflow: inputs, outputs, links both ways, models, registered versions; taken elsewhere; raced for."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ArtifactError
from flows.carry_study import read_bundle, write_bundle
from flows.free_space import free_space
from lineage.artifact import Artifact
from lineage.leases import leased
from operations.ledger import STUDIED, Ledger
from support.small_store import ANSWER, EVIDENCE, STAYS
from support.tracked_study import ADAPTER, make, session, tracked_study
from tasks.recorded import record_again

pytestmark = pytest.mark.slow

Study = tuple[Any, dict[str, Artifact]]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    own = session(tmp_path_factory.mktemp("tracked") / "workspace")
    return own, tracked_study(own)


def run_of(study: Study, kind: str) -> Any:
    own, made = study
    return own.tracker.client.get_run(own.store.manifest(made[kind])["tracking_run"])


def files_of(client: Any, run: str, folder: str = "") -> set[str]:
    found = set()
    for one in client.list_artifacts(run, folder):
        found |= files_of(client, run, one.path) if one.is_dir else {one.path}
    return found


def test_inputs_are_datasets_with_digest_and_role(study: Study) -> None:
    inputs = {one.tags[0].value: one.dataset for one in run_of(study, "report").inputs.dataset_inputs}
    assert set(inputs) == {"rl", "patients"}
    assert inputs["rl"].name == study[1]["rl"].id and inputs["rl"].digest == study[1]["rl"].sha256[:32]
    assert json.loads(inputs["rl"].profile) == {"sha256": study[1]["rl"].sha256, "role": "rl"}
    source = run_of(study, "cohort").inputs.dataset_inputs[0]
    assert (source.dataset.name, source.tags[0].value) == ("hospital.csv", "source")


def test_parents_and_children_name_each_other(study: Study) -> None:
    rl, report, patients = (run_of(study, kind) for kind in ("rl", "report", "patients"))
    assert report.data.tags["input.rl.run"] == rl.info.run_id
    assert rl.data.tags[f"child.{report.info.run_id}"] == "report"
    assert {name for name in patients.data.tags if name.startswith("child.")} == {
        f"child.{rl.info.run_id}", f"child.{report.info.run_id}"}
    assert report.data.tags["artifact.sha256"] == study[1]["report"].sha256


def test_files_and_models_in_mlflow_hold_nothing_of_a_patient(study: Study) -> None:
    own, made = study
    client = own.tracker.client
    assert files_of(client, run_of(study, "report").info.run_id) == {
        "output/manifest.json", "output/report_to_share.html", "output/table.json"}
    logged = own.tracker.registry.logged_model(made["rl"].id, made["rl"].sha256)
    assert logged.source_run_id == run_of(study, "rl").info.run_id
    assert logged.model_id in {one.model_id for one in run_of(study, "rl").outputs.model_outputs}
    folder = Path(logged.artifact_location.removeprefix("file://"))
    assert {path.name for path in folder.rglob("*") if path.is_file()} == {
        "adapter_config.json", "adapter_model.safetensors"}
    place = own.workspace / "mlflow"
    everything = b"".join(path.read_bytes() for path in place.rglob("*") if path.is_file())
    assert not any(secret.encode() in everything for secret in (*STAYS, EVIDENCE, ANSWER))


def test_the_database_lets_readers_and_a_writer_work_at_once(study: Study) -> None:
    with sqlite3.connect(study[0].workspace / "mlflow" / "mlflow.db") as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_each_new_policy_is_a_version_and_the_same_one_is_not(tmp_path: Path) -> None:
    own = session(tmp_path / "workspace")
    registry, first = own.tracker.registry, tracked_study(own)
    assert registry.champion("small", "policy") is None
    one = registry.latest("small", "policy")
    assert (one.number, one.artifact, one.name) == (1, first["rl"].id, "small.policy")
    own.tracker.register(first["rl"])
    assert len(list(registry.versions("small", "policy"))) == 1
    second = Artifact.from_json(make(own, "rl", {"adapter/adapter_config.json": "{ }"}, {"cohort": first["cohort"]},
                                     model="lora-adapter"))
    assert own.tracker.register(second).number == 2
    crowned = registry.crown("small", "policy", first["rl"], "better")
    assert registry.champion("small", "policy") == crowned and crowned.number == 1
    assert registry.latest("small", "policy").artifact == second.id
    assert registry.champions() == {first["rl"].id}
    assert own.tracker.register(first["rl"]).number == 3  # it is the study's latest again
    with pytest.raises(ArtifactError, match="no model in MLflow"):
        registry.crown("small", "policy", first["cohort"], "")
    # The champion's model and all it was made from stay, whatever study is kept; the other's copy in MLflow goes.
    make(session(own.workspace, "other"), "cohort", {"meta.json": "{}"})
    freed = free_space(own, ["other"], 0.0, dry_run=False)
    assert own.store.verify(first["rl"]) == [] and own.store.find("cohort", first["cohort"].recipe)
    assert own.store.find("rl", second.recipe) is None and own.store.find("report", first["report"].recipe) is None
    assert freed["counts"]["artifact"] == 2 and freed["counts"]["model in MLflow"] == 1 and freed["bytes"] > 0
    assert registry.logged_model(second.id, second.sha256) is None
    assert [version.artifact for version in registry.versions("small", "policy")] == [first["rl"].id] * 2


def test_what_a_killed_stage_could_not_tell_mlflow_is_told_by_the_next_run(tmp_path: Path,
                                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    own = session(tmp_path / "workspace")
    cohort = Artifact.from_json(make(own, "cohort", {"meta.json": "{}"}, show=("meta.json",)))

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(own.tracker.client, "log_model_artifacts", killed)
        make(own, "rl", ADAPTER, {"cohort": cohort}, model="lora-adapter", show=("adapter/adapter_config.json",))
    policy = Artifact.from_json(make(own, "rl", ADAPTER, {"cohort": cohort}))  # a hit: it was finished
    registry, run = own.tracker.registry, own.store.manifest(policy)["tracking_run"]
    with pytest.raises(ArtifactError, match="run its study again"):
        registry.crown("small", "policy", policy, "")
    for _ in range(2):  # the second time there is nothing left to do
        record_again(own, policy)
        record_again(own, cohort)
        assert len(own.tracker.client.search_logged_models([own.tracker.experiment])) == 1
    assert registry.crown("small", "policy", policy, "it is whole").artifact == policy.id
    assert own.tracker.client.get_run(run).info.status == "FINISHED"
    assert files_of(own.tracker.client, run) == {"output/manifest.json", "output/adapter_config.json"}
    assert len(own.tracker.client.search_runs([own.tracker.experiment])) == 2


def test_every_champion_is_known_however_many_models_there_are(tmp_path: Path) -> None:
    own = session(tmp_path / "workspace")
    client, registry = own.tracker.client, own.tracker.registry
    for number in range(100):  # a page of MLflow
        client.create_registered_model(f"a{number:03d}.policy")
    made = tracked_study(own)
    registry.crown("small", "policy", made["rl"], "the only one")
    assert registry.champions() == {made["rl"].id}


@pytest.mark.parametrize("landed", [True, False])
def test_gc_keeps_what_the_study_of_the_next_extract_is_compared_with(landed: bool, tmp_path: Path) -> None:
    own = session(tmp_path / "workspace")
    studied = tracked_study(own)
    if landed:
        Ledger(own.workspace).add("landing/a", STUDIED, "", study="small", digest="0", champion=False, artifacts={
            role: one.to_json() for role, one in studied.items()})
    for kind in ("rl", "report"):  # the same study by hand, with other settings
        make(own, kind, {"table.json": "[]"}, {"cohort": studied["cohort"]})
    freed = free_space(own, None, 0.0, dry_run=False)["counts"].get("artifact", 0)
    assert freed == (0 if landed else 2)  # rl and report
    assert (own.store.find("report", studied["report"].recipe) is not None) is landed


def test_gc_frees_nothing_that_a_running_study_holds_and_a_dry_run_nothing_at_all(tmp_path: Path) -> None:
    own = session(tmp_path / "workspace")
    made = Artifact.from_json(make(own, "cohort", {"meta.json": "{}"}))
    other = session(own.workspace, "other")
    make(other, "patients", {"notes.json": "{}"})
    with leased(own.workspace, "night") as lease:
        lease.take(made.id)
        assert free_space(other, ["other"], 0.0, dry_run=False)["running"] == ["night"]
    assert own.store.verify(made) == []
    assert free_space(other, ["other"], 0.0, dry_run=True)["counts"]["artifact"] == 1
    assert own.store.verify(made) == []
    assert free_space(other, ["other"], 0.0, dry_run=False)["counts"]["artifact"] == 1
    assert own.store.find("cohort", made.recipe) is None


def test_a_study_arrives_in_another_workspace_once(study: Study, tmp_path: Path) -> None:
    own, made = study
    wrote = write_bundle(own, "small", tmp_path / "small.tar.gz")
    assert (wrote["artifacts"], wrote["runs"]) == (4, 5)  # four stages and the study above them
    there = session(tmp_path / "there", "elsewhere")
    first, second = (read_bundle(there, tmp_path / "small.tar.gz") for _ in range(2))
    assert (first["new_runs"], second["new_runs"]) == (5, 0)
    client = there.tracker.client
    runs = {run.data.tags.get("eag_rl.stage", "study"): run for run in client.search_runs([there.tracker.experiment])}
    assert len(runs) == 5
    rl, report = runs["rl"], runs["report"]
    assert rl.data.tags["mlflow.parentRunId"] == report.data.tags["mlflow.parentRunId"] == runs["study"].info.run_id
    assert report.data.tags["input.rl.run"] == rl.info.run_id and f"child.{report.info.run_id}" in rl.data.tags
    assert [(one.step, one.value) for one in client.get_metric_history(rl.info.run_id, "loss")] == [(1, 0.5), (2, 0.25)]
    assert rl.data.params == {"lr": "0.1", "cohort.outcome": "mortality"} and rl.info.status == "FINISHED"
    assert rl.info.start_time == run_of(study, "rl").info.start_time
    assert {one.dataset.name for one in report.inputs.dataset_inputs} == {made["rl"].id, made["patients"].id}
    assert "output/report_to_share.html" in files_of(client, report.info.run_id)
    version = there.tracker.registry.latest("small", "policy")
    assert (version.number, version.artifact, version.run) == (1, made["rl"].id, rl.info.run_id)
    everything = b"".join(path.read_bytes() for path in (tmp_path / "there").rglob("*") if path.is_file())
    assert not any(secret.encode() in everything for secret in (*STAYS, EVIDENCE, ANSWER))


def test_a_study_that_is_unknown_or_altered_is_not_exported(tmp_path: Path) -> None:
    own = session(tmp_path / "workspace")
    with pytest.raises(ArtifactError, match="no finished study"):
        write_bundle(own, "nobody", tmp_path / "x.tar.gz")
    made = Artifact.from_json(make(own, "cohort", {"meta.json": "{}"}))
    (own.store.folder(made) / "meta.json").write_text("{ }")
    with pytest.raises(ArtifactError, match="was altered"):
        write_bundle(own, "small", tmp_path / "x.tar.gz")
    assert not (tmp_path / "x.tar.gz").exists()


def _race(workspace: str, name: str, results: Any) -> None:
    own = session(Path(workspace), name)
    for kind in ("cohort", "expert", "readings"):
        results.put((name, kind, make(own, kind, {"meta.json": "{}"}, seconds=1.0)))


def test_two_processes_that_race_for_the_same_stages_make_each_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    children = [context.Process(target=_race, args=(str(tmp_path), name, results)) for name in ("a", "b")]
    for child in children:
        child.start()
    found = [results.get(timeout=300) for _ in range(6)]
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    own = session(tmp_path)
    for kind in ("cohort", "expert", "readings"):
        values = [one for _, made, one in found if made == kind]
        assert values[0]["id"] == values[1]["id"] and sum("taken" in one for one in values) == 1
        assert len((tmp_path / f"made-{kind}").read_text().split()) == 1
        assert own.store.verify(Artifact.from_json(values[0])) == []
    runs = own.tracker.client.search_runs([own.tracker.experiment])
    assert sorted(run.data.tags["eag_rl.stage"] for run in runs) == ["cohort", "expert", "readings"]
    assert {run.info.status for run in runs} == {"FINISHED"}
