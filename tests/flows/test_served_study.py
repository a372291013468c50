"""A champion behind the API, its language model scripted at the border: what is asked, read and published."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest

import support.pretended_vllm
from api.app import Service
from api.tokens import Tokens
from configs.load import dump, load
from configs.schema import Api, Config, Paths, Study
from contracts.errors import ArtifactError
from contracts.submission import submission
from ehr.cohort import read
from flows.free_space import free_space
from lineage.artifact import Artifact
from lineage.store import Store
from models.expert.batches import read_stays
from models.expert.loading import load_expert
from models.expert.loading import read as read_expert
from prompts.evidence import cases, chosen_features, render
from serving import server
from support.champion import champion_study, living, made
from support.openai_server import KEY, Fault, ScriptedServer
from support.small_store import put
from tasks.champion import champion_from, champion_of
from tasks.forecast import Forecaster, interval
from tasks.predict import example_patient, predict_patient
from tasks.serve import ServedStudy, generated
from tasks.session import Session, session_of

TOKEN = "s" * 40
STATED = ("0.10", "0.20", "0.30", "0.40", "0.50", "0.60", "none", "0.80")


def answer(body: dict[str, Any]) -> str | list[str]:
    def text(risk: str) -> str:
        return ("<Subquestion 1> How is the pulse? </Subquestion 1>\n<Answer 1> The pulse rises, pH falls. </Answer 1>"
                "<Final subquestion> Will the patient die? </Final subquestion>\n"
                "<Important Features> heart rate, pH, Norepinephrine </Important Features>\n"
                f"<Final answer> {risk} </Final answer>")

    return text("0.62") if body.get("n", 1) == 1 else [text(risk) for risk in STATED[:body["n"]]]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return champion_study(tmp_path_factory.mktemp("champion"), evaluation={"completion_tokens": 400})


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    monkeypatch.setenv("EAG_RL_API_KEY", KEY)
    with ScriptedServer(answer) as server:
        yield server


def session(study: Path, *overrides: str) -> Session:
    return session_of(dump(load(str(study), overrides)))


@asynccontextmanager
async def served(study: Path, scripted: ScriptedServer, *overrides: str
                 ) -> AsyncIterator[tuple[httpx.AsyncClient, ServedStudy]]:
    opened = session(study, f"serving.url={scripted.url}", "serving.retries=0", *overrides)
    predictor = ServedStudy(opened, champion_of(opened))
    service = Service(predictor, opened.config.api, Tokens([TOKEN], "test"))
    async with service.running(), httpx.AsyncClient(
            transport=httpx.ASGITransport(service.asgi), base_url="http://localhost",
            headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        while not service.opened:
            assert service.failure is None
            await asyncio.sleep(0.01)
        yield client, predictor


@pytest.mark.slow
async def test_a_patient_is_asked_about_and_both_readings_stand_side_by_side(study: Path,
                                                                             scripted: ScriptedServer) -> None:
    async with served(study, scripted) as (client, predictor):
        patient = (await client.get("/v1/examples")).json()[1]["patient"]
        found = (await client.post("/v1/predict", json=patient)).json()
        card = (await client.get("/v1/model")).json()
    assert found["risk"] == 0.62 and 0.0 <= found["token_risk"] <= 1.0 and found["well_formed"]
    low, high = np.quantile([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8], [0.1, 0.9])
    assert (found["interval"]["low"], found["interval"]["high"]) == (pytest.approx(low), pytest.approx(high))
    assert (found["interval"]["answers"], found["interval"]["readable"]) == (8, 7)
    assert found["features"] == ["Heart Rate", "pH", "norepinephrine"]
    assert "".join(one["text"] for one in found["segments"]) == found["reasoning"]
    marked = {one["feature"]: one["kind"] for one in found["segments"] if one["feature"]}
    assert all((kind == "expert") == (name in found["expert_features"]) for name, kind in marked.items())
    assert {"Heart Rate", "pH"} <= set(marked)
    assert 0.0 < found["expert_risk"] < 1.0 and len(found["expert_features"]) == 5
    shares = list(found["expert_attention"].values())
    assert shares == sorted(shares, reverse=True) and 0.0 < sum(shares) <= 1.0
    assert found["model"] == card["model"] == predictor.forecaster.champion.policy.id
    assert found["lineage"] == card["lineage"] and set(card["artifacts"]) == {"policy", "expert", "base", "cohort"}
    assert str(study.parent) not in str(card) and "medical device" in found["notice"]


async def test_the_server_is_asked_once_greedily_and_once_for_samples_through_the_adapter(
        study: Path, scripted: ScriptedServer) -> None:
    async with served(study, scripted, "api.samples=4", "api.sample_temperature=1.1") as (client, _):
        patient = (await client.get("/v1/examples")).json()[0]["patient"]
        assert (await client.post("/v1/predict", json=patient)).status_code == 200
    asked = [body for body in scripted.requests() if body["max_tokens"] == 400]
    point, samples = sorted(asked, key=lambda body: body["n"])
    assert (point["n"], point["temperature"], point["logprobs"]) == (1, 0.0, 20)
    assert (samples["n"], samples["temperature"]) == (4, 1.1) and "logprobs" not in samples
    assert point["prompt"] == samples["prompt"] and point["model"] == samples["model"] != "base"


def test_gc_frees_nothing_that_a_patient_is_asked_with(study: Path, scripted: ScriptedServer) -> None:
    own, freed = session(study, f"serving.url={scripted.url}", "api.samples=0"), []
    put(own.store, "cohort", {"meta.json": "{}"}, study="other")

    def asked(body: dict[str, Any]) -> str | list[str]:
        freed.append(free_space(session(study), ["other"], 0.0, dry_run=True))
        return answer(body)

    scripted.answer = asked
    assert predict_patient(own, example_patient(own))["risk"] == 0.62
    assert freed[-1]["answering"] == ["champion"] and "artifact" not in freed[-1]["counts"]
    after = free_space(session(study), ["other"], 0.0, dry_run=True)
    assert after["answering"] == [] and after["counts"]["artifact"] == 6


async def test_without_samples_or_readable_answers_there_is_no_interval(study: Path, scripted: ScriptedServer) -> None:
    async with served(study, scripted, "api.samples=0") as (client, _):
        patient = (await client.get("/v1/examples")).json()[0]["patient"]
        assert (await client.post("/v1/predict", json=patient)).json()["interval"] is None
    scripted.answer = lambda body: ["no number at all"] * body.get("n", 1)
    async with served(study, scripted) as (client, _):
        found = (await client.post("/v1/predict", json=patient)).json()
    assert (found["risk"], found["token_risk"], found["interval"], found["well_formed"]) == (None, None, None, False)
    assert found["features"] == [] and found["expert_risk"] > 0.0


async def test_a_failing_language_model_is_503_and_the_next_patient_is_answered(study: Path,
                                                                                scripted: ScriptedServer) -> None:
    async with served(study, scripted) as (client, _):
        patient = (await client.get("/v1/examples")).json()[0]["patient"]
        scripted.faults.append(Fault(500, message="the prompt was: 63 years"))
        failed = await client.post("/v1/predict", json=patient)
        again = await client.post("/v1/predict", json=patient)
    assert failed.status_code == 503 and "63" not in failed.text and "Retry-After" in failed.headers
    assert again.status_code == 200


def test_a_stay_of_the_cohort_is_shown_and_read_as_the_study_did(study: Path) -> None:
    opened = session(study)
    champion, store = champion_of(opened), opened.store
    forecaster = Forecaster(opened, champion)
    cohort = read(store.folder(champion.cohort))
    test = cohort.stays.filter(pl.col("split") == "test").sort("stay_id")
    features = chosen_features(cohort.stays, cohort.visits, forecaster.names, opened.config.prompts)
    shown = [render(case, forecaster.names, opened.config.prompts, features).text
             for case in cases(test, cohort.filled.join(test, on="stay_id", how="semi"), forecaster.names)]
    stays = read_stays(store.folder(champion.cohort))
    risks, _ = read_expert(load_expert(store.folder(champion.expert)), stays.batch)
    expected = [float(risks[stays.stay_ids.index(stay)]) for stay in test["stay_id"]]
    asked = [forecaster.case(submission(one["patient"], forecaster.names)) for one in generated(cohort)]
    assert len(asked) == min(12, test.height) > 5
    assert [case.patient.evidence for case in asked] == shown[:12]
    assert [case.risk for case in asked] == pytest.approx(expected[:12], abs=1e-4)
    assert any(one["patient"]["visits"][0].get("summary") for one in generated(cohort))


def test_days_beyond_the_window_become_one_summary_as_in_the_cohort(study: Path) -> None:
    opened = session(study, "prompts.visits=8")
    forecaster = Forecaster(opened, champion_of(opened))
    patient = {"age": 70, "sex": "female", "visits": [{"day": day, "values": {"Heart Rate": 80 + day}}
                                                      for day in range(3, 13)]}
    text = forecaster.case(submission(patient, forecaster.names)).patient.evidence
    assert "Days since the first record: earlier (summary), 3, 4, 5, 6, 7, 8, 9" in text
    assert "Heart Rate (bpm): 84, 86, 87, 88, 89, 90, 91, 92" in text


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.0, 3.0])
async def test_a_stop_while_the_model_loads_does_not_wait_for_it(study: Path, tmp_path: Path, after: float,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "arguments", lambda launch, section, device: [  # noqa: ARG005
        sys.executable, support.pretended_vllm.__file__, str(launch.port), "600", str(tmp_path / "pids")])
    opened = session(study)
    predictor = ServedStudy(opened, champion_of(opened))
    service = Service(predictor, opened.config.api, Tokens([TOKEN], "test"))
    async with asyncio.timeout(300.0), service.running():
        await asyncio.sleep(after)
    assert not service.opened and not predictor.server.healthy()
    if (tmp_path / "pids").exists():
        assert not any(living(int(pid)) for pid in (tmp_path / "pids").read_text().split())


async def test_examples_of_a_real_cohort_hold_no_real_patient(study: Path) -> None:
    opened = session(study)
    predictor = ServedStudy(opened, champion_of(opened))
    assert len(predictor.examples()) == 13
    predictor.card = {**predictor.card, "cohort_source": "tjh"}
    assert [one["name"] for one in predictor.examples()] == ["Invented patient with reference values"]


def test_the_lineage_id_is_another_once_any_part_is(study: Path) -> None:
    champion = champion_of(session(study))
    other = [replace(champion, **{role: replace(getattr(champion, role), sha256="0" * 64)})
             for role in ("cohort", "expert", "base", "policy")]
    assert len({champion.lineage, *(one.lineage for one in other)}) == 5


@pytest.mark.slow
def test_a_champion_keeps_what_it_was_made_from_when_an_expert_is_trained_anew(tmp_path: Path) -> None:
    config = Config(study=Study(name="s"), paths=Paths(workspace=str(tmp_path)))
    store = Store(tmp_path)

    def make(kind: str, code: str = "", **inputs: Artifact) -> Artifact:
        return made(store, config, kind, lambda out: (out / "file").write_text(kind + code), code, **inputs)

    cohort, base = make("cohort"), make("base")
    expert = make("expert", cohort=cohort)
    patients = make("patients", cohort=cohort, readings=make("readings", expert=expert))
    policy = make("rl", patients=patients, base=base)
    make("expert", "newer", cohort=cohort)
    found = champion_of(Session(config))
    assert (found.cohort, found.expert, found.base, found.policy) == (cohort, expert, base, policy)
    with pytest.raises(ArtifactError, match="was made without 'patients'"):
        champion_from(store, expert)


@pytest.mark.slow
def test_an_unfinished_study_has_no_champion(study: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no finished"):
        champion_of(session(study, f"paths.workspace={tmp_path}"))


def test_an_interval_needs_three_risks_and_holds_its_share() -> None:
    assert interval([0.2, 0.4], 8, Api()) is None
    found = interval([0.0, 0.5, 1.0], 8, Api(level=0.5))
    assert found is not None and (found["low"], found["high"], found["readable"]) == (0.25, 0.75, 3)
