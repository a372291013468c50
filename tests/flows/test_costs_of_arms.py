"""Costs of arms from real manifests in a store, and what judging records, over a scripted server."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest

from configs.load import load
from configs.schema import Serving
from contracts.patients import PATIENTS
from lineage.artifact import Artifact, folder_digests
from lineage.fingerprint import Recipe
from lineage.store import Store
from serving.client import Client
from support.judged import stays_of, verdicts_of
from support.openai_server import KEY, ScriptedServer
from support.tiny_policy import tiny_policy
from tasks.costs import costs_of, seconds_of, stages_before
from tasks.servers import stop_servers
from tasks.session import Session
from tasks.stage import Work
from tasks.verdicts import cached_tokens, saved, validation_verdicts, verdicts

COUNTERS = """# TYPE vllm:prefix_cache_hits counter
vllm:prefix_cache_queries_total{engine="0"} 900.0
vllm:prefix_cache_hits_total{engine="0"} 320.0
vllm:prefix_cache_hits_created{engine="0"} 1.7e+09
"""


def _made(store: Store, kind: str, inputs: dict[str, Artifact] | None = None, seconds: float | None = 1.0,
          metrics: dict[str, float] | None = None, settings: dict[str, Any] | None = None,
          rollouts: list[int] | None = None) -> Artifact:
    made_of = Recipe(kind, {role: one.id for role, one in (inputs or {}).items()}, settings or {}, {}, {})
    with store.drafting(kind, made_of.key) as draft:
        (draft.out / "file.txt").write_text(kind)
        if rollouts is not None:
            pl.DataFrame({"tokens": rollouts}).write_parquet(draft.out / "rollouts.parquet")
        if kind == "verdicts":
            verdicts_of("stage1+2", stays_of(30), 1.0).write_parquet(draft.out / "verdicts.parquet")
        facts: dict[str, Any] = {"metrics": metrics or {}, "started": 0.0}
        return store.commit(draft, kind, made_of, inputs or {},
                            facts | ({} if seconds is None else {"seconds": seconds}))


def _chain(store: Store) -> Artifact:
    """A stage-2 adapter and what it comes from."""
    cohort = _made(store, "cohort", seconds=10.0)
    patients = _made(store, "patients", {"cohort": cohort}, 2.0)
    search = _made(store, "trajectories", {"patients": patients, "cohort": cohort}, 300.0,
                   {"prompt_tokens": 900.0, "completion_tokens": 100.0})
    sft = _made(store, "sft", {"patients": patients, "trajectories": search}, 60.0, {"tokens": 500.0},
                {"policy.sft.epochs": 3.0})
    return _made(store, "rl", {"cohort": cohort, "patients": patients, "sft": sft}, 400.0, rollouts=[40, 60])


def test_each_stage_before_an_adapter_has_its_seconds_and_tokens(tmp_path: Path) -> None:
    store = Store(tmp_path)
    found = {one.kind: one for one in stages_before(store, _chain(store).to_json())}
    assert {kind: one.seconds for kind, one in found.items()} == {
        "cohort": 10.0, "patients": 2.0, "trajectories": 300.0, "sft": 60.0, "rl": 400.0}
    assert {kind: one.tokens for kind, one in found.items()} == {
        "cohort": None, "patients": None, "trajectories": 1000.0, "sft": 1500.0, "rl": 100.0}


def test_a_stage_that_is_gone_leaves_its_seconds_unknown(tmp_path: Path) -> None:
    store = Store(tmp_path)
    adapter = _chain(store)
    sft = store.resolve("sft")
    store.discard(sft)
    found = {one.kind: one for one in stages_before(store, adapter.to_json())}
    assert found["sft"].seconds is None and found["cohort"].seconds == 10.0 and "trajectories" not in found


def test_an_artifact_from_before_stages_were_timed_has_the_seconds_of_its_last_life(tmp_path: Path) -> None:
    store = Store(tmp_path)
    old = _made(store, "cohort", seconds=None)
    finished = store.manifest(old)["finished"]
    assert next(stages_before(store, old.to_json())).seconds == finished  # it was started at 0


@pytest.mark.parametrize("entry", [{"cost": {"cost.seconds": 7.0}}, {"seconds": 7.0, "cost": {"cost.seconds": 7.1}},
                                   {"seconds": 7.0}, {}])
def test_manifests_of_every_age_tell_how_long_their_stage_took(entry: dict[str, Any]) -> None:
    assert seconds_of({"started": 1.0, "finished": 8.0, **entry}) == 7.0


def test_an_arms_cost_counts_a_stage_once_however_often_it_is_needed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    judged = _made(store, "verdicts", {"adapter": _chain(store)}, metrics={"judging_seconds": 5.0, "on_gpu": 1.0})
    config = load("demo", ["evaluation.arms=[stage1+2]", "evaluation.gpu_hour_price=36"])
    session = cast(Session, SimpleNamespace(config=config, store=store))
    work = Work("report", session, {"verdicts.stage1+2": store.folder(judged)}, {"verdicts.stage1+2": judged},
                tmp_path, tmp_path, "run")
    row = costs_of(work).arms.row(0, named=True)
    assert row["training_seconds"] == 772.0 and row["stages"] == 5
    assert row["seconds_per_patient"] == 0.5 and row["price_per_1000"] == pytest.approx(5.0)


async def test_the_servers_word_on_its_cache_is_read_and_its_silence_is_no_number() -> None:
    with ScriptedServer() as server:
        async with Client(server.url, server.key, Serving(), 4096) as client:
            assert await cached_tokens(client) is None
        async with Client(server.url, "wrong key", Serving(), 4096) as client:
            assert await cached_tokens(client) is None


@pytest.mark.parametrize(("before", "after", "found"), [
    (100.0, 420.0, {"cached_prompt_tokens": 320.0}), (100.0, 100.0, {"cached_prompt_tokens": 0.0}),
    (100.0, 20.0, {}), (None, 20.0, {}), (100.0, None, {})])
def test_a_server_started_anew_in_between_tells_nothing(before: float | None, after: float | None,
                                                       found: dict[str, float]) -> None:
    assert saved(before, after) == found


async def test_hits_of_the_prefix_cache_are_counted_in_tokens_as_vllm_writes_them() -> None:
    class Page:
        async def get(self, path: str) -> Any:
            assert path == "/metrics"
            return SimpleNamespace(text=COUNTERS)

    assert await cached_tokens(cast(Client, Page())) == 320.0


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs one of the two stages over a scripted server; returns (work, metrics, requests)."""
    model = tiny_policy(tmp_path / "model")
    monkeypatch.setenv("EAG_RL_API_KEY", KEY)
    rows = [{"stay_id": stay, "split": split, "label": label, "evidence": f"Lactate: {stay}", "shown": ["Lactate"],
             "expert_features": ["Lactate"]} for number, (stay, label) in enumerate(
                 stays_of(20).select("stay_id", "label").rows())
            for split in [("test", "validation")[number % 2]]]
    for role in ("patients", "base", "out", "scratch"):
        (tmp_path / role).mkdir()
    pl.DataFrame(rows, schema=dict(PATIENTS.dtypes)).write_parquet(tmp_path / "patients" / "patients.parquet")
    files = folder_digests(model)
    (tmp_path / "base" / "model.json").write_text(json.dumps({"name": "tiny", "folder": str(model), "files": files}))

    def run(stage: Any, split: str) -> tuple[Work, dict[str, float], int]:
        with ScriptedServer(lambda body: f"<Final answer> 0.{10 + len(body['prompt']) % 80} </Final answer>",
                            seconds=0.01) as server:
            config = load("demo", [f"serving.url={server.url}", f"paths.workspace={tmp_path}",
                                   "evaluation.completion_tokens=64", "evaluation.stays=all",
                                   "evaluation.validation_stays=all"])
            work = Work(f"{stage.name}:vanilla", Session(config), {"patients": tmp_path / "patients",
                                                                  "base": tmp_path / "base"}, {},
                        tmp_path / "out", tmp_path / "scratch", "run")
            made = stage.make(work)
            stop_servers()
            frame = pl.read_parquet(tmp_path / "out" / "verdicts.parquet")
            wanted = {row["stay_id"] for row in rows if row["split"] == split}
            assert set(frame["stay_id"]) == wanted
            return work, dict(made.metrics), len(server.requests())

    return run


def test_verdicts_record_seconds_and_tokens_and_ask_for_test_stays_alone(asked: Any) -> None:
    _, metrics, requests = asked(verdicts, "test")
    assert requests == metrics["stays"] == 10
    assert 0.01 <= metrics["judging_seconds"] < 60.0
    assert metrics["seconds_per_patient"] == pytest.approx(metrics["judging_seconds"] / 10)
    assert metrics["completion_tokens_mean"] > 0 and metrics["prompt_tokens_mean"] > 0
    assert not {"on_gpu", "cached_prompt_tokens"} & set(metrics)  # somebody else's server


def test_a_stage_that_goes_on_adds_to_the_seconds_of_its_former_life(asked: Any) -> None:
    work, first, _ = asked(verdicts, "test")
    watch = work.scratch / "answers-seconds.json"
    watch.write_text(json.dumps({"seconds": 100.0 + first["judging_seconds"]}))
    _, again, requests = asked(verdicts, "test")
    assert requests == 0 and again["judging_seconds"] > 100.0


def test_validation_verdicts_ask_for_validation_stays_alone(asked: Any) -> None:
    assert asked(validation_verdicts, "validation")[2] == 10
