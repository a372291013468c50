"""Chains: what no longer fits is named, at the artifact, at the link and at the source file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from contracts.errors import ArtifactError
from lineage.artifact import file_digest
from lineage.chain import altered, chain, chains, check_sources, links, members, source_files
from lineage.prediction import prediction
from support.small_store import ANSWER, EVIDENCE, STAYS, put, small_store


def test_a_whole_chain_has_nothing_altered_and_each_member_once(tmp_path: Path) -> None:
    store, made = small_store(tmp_path)
    node = chain(store, made["report"], verify=True)
    assert altered(node) == {}
    ids = [one["id"] for one in members(node)]
    assert sorted(ids) == sorted(artifact.id for artifact in made.values()) and ids[-1] == made["report"].id
    assert (made["verdicts"].id, "adapter", made["rl"].id) in set(links(node))
    assert set(source_files(node)) == {"hospital.csv", "tiny/config.json"}


def test_chains_of_several_artifacts_are_those_of_each_and_share_what_they_were_made_from(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, made = small_store(tmp_path)
    alone = {role: chain(store, artifact) for role, artifact in made.items()}
    read, manifest = [], store.manifest
    monkeypatch.setattr(store, "manifest", lambda artifact: read.append(artifact.id) or manifest(artifact))
    together = chains(store, made)
    assert together == alone and sorted(read) == sorted({artifact.id for artifact in made.values()})
    assert together["verdicts"]["inputs"]["adapter"] is together["rl"]


def test_the_altered_artifact_is_named_and_no_other(tmp_path: Path) -> None:
    store, made = small_store(tmp_path)
    (store.folder(made["rl"]) / "adapter" / "adapter_config.json").write_text('{"r": 9}')
    assert altered(chain(store, made["report"], verify=True)) == {made["rl"].id: ["adapter/adapter_config.json"]}


def test_a_missing_link_is_an_error_or_where_all_is_verified_a_finding(tmp_path: Path) -> None:
    store, made = small_store(tmp_path)
    shutil.rmtree(store.folder(made["patients"]))
    with pytest.raises(ArtifactError, match="is not at"):
        chain(store, made["report"])
    assert "is not at" in altered(chain(store, made["report"], verify=True))[made["patients"].id][0]


def test_an_input_that_was_replaced_by_another_of_its_name_is_found(tmp_path: Path) -> None:
    store, made = small_store(tmp_path)
    store.discard(made["rl"])
    again = put(store, "rl", {"adapter/adapter_model.safetensors": b"", "adapter/adapter_config.json": "{ }",
                              "rollouts.parquet": b""}, {"base": made["base"], "patients": made["patients"]})
    assert again.id == made["rl"].id and again.sha256 != made["rl"].sha256
    assert altered(chain(store, made["report"], verify=True)) == {again.id: ["it was replaced after it was used here"]}


def test_source_files_are_whole_other_ones_or_out_of_reach(tmp_path: Path) -> None:
    store, made = small_store(tmp_path)
    node, places = chain(store, made["report"]), {"hospital.csv": tmp_path / "hospital.csv"}
    assert check_sources(node, places) == ([], ["tiny/config.json"])
    (tmp_path / "hospital.csv").write_text("a,b\n1,3\n")
    assert check_sources(node, places) == (["hospital.csv"], ["tiny/config.json"])


def test_of_two_extracts_whose_files_share_a_name_the_one_that_lies_here_is_whole_and_the_other_out_of_reach(
        tmp_path: Path) -> None:
    (tmp_path / "patients").write_text("new")
    new, old = file_digest(tmp_path / "patients"), "0" * 64
    cohorts = [{"sources": {"patients": digest}, "inputs": {}} for digest in (new, old)]
    places = {"patients": tmp_path / "patients"}
    for first, second in ((0, 1), (1, 0)):
        node = {"sources": None, "inputs": {"cohort": cohorts[first], "before.cohort": cohorts[second]}}
        assert check_sources(node, places) == ([], ["patients"])
    (tmp_path / "patients").write_text("altered")
    assert check_sources(node, places) == (["patients"], ["patients"])


def test_one_prediction_hangs_on_its_arms_verdicts_and_names_nobody(tmp_path: Path) -> None:
    store, made = small_store(tmp_path)
    node = prediction(store, chain(store, made["report"]), "stage1+2", STAYS[0])
    assert node["inputs"]["verdict"]["id"] == made["verdicts"].id
    assert (node["facts"]["probability"], node["facts"]["arm"]) == (0.75, "stage1+2")
    text = repr({name: value for name, value in node.items() if name != "inputs"})
    assert not any(secret in text for secret in (*STAYS, EVIDENCE, ANSWER))
    again = prediction(store, chain(store, made["report"]), "stage1+2", STAYS[0])
    other = prediction(store, chain(store, made["report"]), "stage1+2", STAYS[1])
    assert again["id"] == node["id"] and other["facts"]["stay"] != node["facts"]["stay"]
    assert (store.workspace / "lineage.key").stat().st_mode & 0o077 == 0
    assert prediction(store, chain(store, made["report"]), "expert", STAYS[0])["inputs"]["verdict"]["id"] == made[
        "baselines"].id


def test_another_workspace_gives_the_same_stay_another_name(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    names = set()
    for folder in ("a", "b"):
        store, made = small_store(tmp_path / folder)
        names.add(prediction(store, chain(store, made["report"]), "stage1+2", STAYS[0])["facts"]["stay"])
    assert len(names) == 2


@pytest.mark.parametrize(("arm", "stay", "why"), [("grpo", STAYS[0], "an arm of expert, stage1"),
                                                  ("stage1+2", "nobody", "0 rows")])
def test_an_unknown_arm_or_stay_is_an_error(tmp_path: Path, arm: str, stay: str, why: str) -> None:
    store, made = small_store(tmp_path)
    with pytest.raises(ArtifactError, match=why):
        prediction(store, chain(store, made["report"]), arm, stay)
