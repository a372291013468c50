"""The API over ASGI: who is let in, what is refused and how, what is published, logged and counted."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from api.app import Service
from api.door import HEADERS
from api.logs import NAME, PlaceFormatter
from api.probe import SECONDS, Probe
from api.tokens import Tokens
from configs.schema import Api
from contracts.errors import ModelError, PromptTooLongError, ServerError
from support.predictor import ANSWER, PATIENT, TOKEN, ScriptedPredictor

BEARER = {"Authorization": f"Bearer {TOKEN}"}


@asynccontextmanager
async def asking(predictor: ScriptedPredictor | None = None, ready: bool = True, **settings: Any
                 ) -> AsyncIterator[tuple[httpx.AsyncClient, Service]]:
    service = Service(predictor or ScriptedPredictor(), Api(**settings), Tokens([TOKEN, "u" * 40], "test"))
    transport = httpx.ASGITransport(service.asgi, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1", headers=BEARER) as client:
        if not ready:
            yield client, service
            return
        async with service.running():
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            yield client, service


def told(answer: httpx.Response) -> list[dict[str, str]]:
    problems = answer.json()["problems"]
    assert problems and all(set(one) == {"value", "rule", "next"} and all(one.values()) for one in problems)
    return list(problems)


async def test_a_patient_gets_the_whole_answer() -> None:
    predictor = ScriptedPredictor()
    async with asking(predictor) as (client, _):
        answer = await client.post("/v1/predict", json=PATIENT)
    assert answer.status_code == 200 and answer.json() == ANSWER
    assert predictor.asked[0].days == (0.0, 1.0, 3.0)


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/schema", "/v1/model", "/v1/examples", "/metrics", "/other"])
@pytest.mark.parametrize("header", [None, "Bearer wrong", f"Basic {TOKEN}"])
async def test_without_the_token_nothing_is_told(path: str, header: str | None) -> None:
    async with asking() as (client, _):
        client.headers.pop("Authorization")
        answer = await client.get(path, headers={"Authorization": header} if header else {})
    assert answer.status_code == 401 and answer.headers["WWW-Authenticate"] == "Bearer"
    assert told(answer)[0]["rule"] == "Authorization: Bearer <token>"


async def test_health_page_and_schema_of_the_api_are_open() -> None:
    async with asking() as (client, _):
        client.headers.pop("Authorization")
        for path in ("/", "/healthz", "/readyz", "/openapi.json", "/page/page.js", "/page/style.css", "/page/icon.svg"):
            assert (await client.get(path)).status_code == 200, path


@pytest.mark.parametrize("path", ["/page/../app.py", "/page/%2e%2e/app.py", "/page/..%2fapp.py", "/page//etc/passwd"])
async def test_no_file_outside_the_page_is_served(path: str) -> None:
    async with asking() as (client, _):
        assert (await client.get(path)).status_code == 404


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[::1", "localhost@evil.example"])
async def test_another_host_is_refused_even_with_the_token(host: str) -> None:
    async with asking() as (client, _):
        answer = await client.get("/v1/model", headers={"Host": host})
    assert answer.status_code == 421


async def test_hosts_of_loopback_and_named_ones_are_known() -> None:
    async with asking(names=("Ward.example",)) as (client, _):
        for host in ("localhost", "127.0.0.1:8765", "[::1]:8765", "ward.example"):
            assert (await client.get("/v1/model", headers={"Host": host})).status_code == 200, host


async def test_every_answer_carries_the_security_headers_and_an_id() -> None:
    async with asking() as (client, _):
        answers = [await client.get("/"), await client.get("/none"), await client.post("/v1/predict", content=b"{"),
                   await client.get("/v1/model", headers={"Host": "evil"})]
    for answer in answers:
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
        assert len(answer.headers["x-request-id"]) == 16
    assert "unsafe" not in HEADERS["content-security-policy"] and "server" not in answers[0].headers


async def test_too_many_requests_wait_and_another_token_has_its_own_rate() -> None:
    async with asking(requests_per_minute=30.0, burst=2) as (client, _):
        codes = [(await client.get("/v1/model")).status_code for _ in range(2)]
        late = await client.get("/v1/model")
        other = await client.get("/v1/model", headers={"Authorization": f"Bearer {'u' * 40}"})
    assert codes == [200, 200] and late.status_code == 429 and other.status_code == 200
    assert 1 <= int(late.headers["Retry-After"]) <= 2 and "30 a minute" in told(late)[0]["rule"]


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_body_beyond_the_limit_is_refused(streamed: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b" " * 1000

    predictor = ScriptedPredictor()
    async with asking(predictor, body_kib=4) as (client, _):
        answer = await client.post("/v1/predict", content=pieces() if streamed else b" " * 5000,
                                   headers={"Content-Type": "application/json"})
    assert answer.status_code == 413 and "at most 4 KiB" in told(answer)[0]["rule"] and not predictor.asked


@pytest.mark.parametrize("body", [b"", b"{", b"[1,", b'{"age": NaN}', b'{"age": Infinity}', b"[" * 5000, b"\xff\xfe"])
async def test_what_is_no_json_is_422(body: bytes) -> None:
    async with asking() as (client, _):
        answer = await client.post("/v1/predict", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422 and "no JSON" in told(answer)[0]["value"]


async def test_another_content_type_is_415() -> None:
    async with asking() as (client, _):
        answer = await client.post("/v1/predict", content=json.dumps(PATIENT), headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415


async def test_every_fault_of_a_patient_is_told() -> None:
    predictor = ScriptedPredictor()
    bad = {"age": 163, "sex": "male", "visits": [{"day": 2, "values": {"Lactate": 1}},
                                                 {"day": 1, "values": {"pH": 74}}]}
    async with asking(predictor, visits=5) as (client, _):
        answer = await client.post("/v1/predict", json=bad)
        many = await client.post("/v1/predict", json={**PATIENT, "visits": PATIENT["visits"] * 2})
    assert answer.status_code == 422 and answer.json()["error"] == "patient"
    assert [one["value"].split(" = ")[0] for one in told(answer)] == [
        "age", "unknown feature 'Lactate' in visits[0]", "visits[1].day", "visits[1].values['pH']"]
    assert many.status_code == 422 and told(many)[0]["value"] == "6 visits" and not predictor.asked


async def test_a_full_queue_turns_away_and_what_runs_is_answered() -> None:
    async with asking(ScriptedPredictor(seconds=0.2), queue=2) as (client, _):
        answers = await asyncio.gather(*(client.post("/v1/predict", json=PATIENT) for _ in range(5)))
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [200, 200, 503, 503, 503]
    assert all("Retry-After" in answer.headers for answer in answers if answer.status_code == 503)


async def test_a_prediction_that_takes_too_long_is_504_and_frees_its_place() -> None:
    async with asking(ScriptedPredictor(seconds=5.0), request_seconds=0.05, queue=1) as (client, service):
        answer = await client.post("/v1/predict", json=PATIENT)
        assert answer.status_code == 504 and "0.05 s" in told(answer)[0]["value"]
        assert service.places.taken == 0


async def test_a_body_that_does_not_come_is_408() -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(1.0)

    async with asking(request_seconds=0.05) as (client, _):
        answer = await client.post("/v1/predict", content=slow(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 408 and told(answer)


async def test_a_client_that_hangs_up_while_it_sends_is_no_failure_of_ours() -> None:
    async with asking() as (_, service):
        incoming: list[dict[str, Any]] = [{"type": "http.request", "body": b"{", "more_body": True}]
        sent: list[Any] = []

        async def receive() -> Any:
            return incoming.pop() if incoming else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"host", b"localhost"), (b"authorization", BEARER["Authorization"].encode()),
                   (b"content-type", b"application/json")]
        await service.asgi({"type": "http", "method": "POST", "path": "/v1/predict", "raw_path": b"/v1/predict",
                            "root_path": "", "query_string": b"", "headers": headers, "scheme": "http",
                            "http_version": "1.1", "server": ("127.0.0.1", 1), "client": ("127.0.0.1", 2)},
                           receive, send)
        metrics = service.metrics.text()
    assert sent[0]["status"] == 400
    assert b'route="/v1/predict",status="400"} 1.0' in metrics


async def test_before_the_model_is_loaded_it_is_alive_but_not_ready() -> None:
    async with asking(ready=False) as (client, _):
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).json() == {"status": "loading"}
        answer = await client.post("/v1/predict", json=PATIENT)
    assert answer.status_code == 503 and answer.headers["Retry-After"] == "5"


async def test_a_model_that_died_is_not_ready() -> None:
    predictor, now = ScriptedPredictor(), [0.0]
    async with asking(predictor) as (client, service):
        service.alive = Probe(predictor.alive, clock=lambda: now[-1])
        assert (await client.get("/readyz")).status_code == 200
        predictor.living = False
        assert (await client.get("/readyz")).status_code == 200, "what was found holds for a second"
        now.append(SECONDS)
        assert (await client.get("/readyz")).status_code == 503


async def test_many_who_ask_whether_the_model_is_ready_share_one_answer() -> None:
    class Counting(ScriptedPredictor):
        asked_alive = 0

        async def alive(self) -> bool:
            self.asked_alive += 1
            await asyncio.sleep(0.01)
            return self.living

    predictor = Counting()
    async with asking(predictor) as (client, service):
        service.alive = Probe(predictor.alive, clock=lambda: 0.0)
        answers = await asyncio.gather(*(client.get("/readyz") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200} and predictor.asked_alive == 1


async def test_a_model_that_cannot_be_opened_stops_the_service_with_its_error() -> None:
    refusal, stopped = ModelError("a", "b", "c"), []
    predictor = ScriptedPredictor(refusal=refusal)
    service = Service(predictor, Api(), Tokens([TOKEN], "test"), stop=lambda: stopped.append(True))
    async with service.running():
        await asyncio.sleep(0.01)
    assert service.failure is refusal and stopped == [True] and predictor.closed == 1


@pytest.mark.parametrize(("failure", "status"), [
    (ServerError("tail of a log: secret", "b", "c"), 503), (PromptTooLongError("5000 tokens", "b", "c"), 422),
    (ModelError("secret path", "b", "c"), 500), (ValueError("secret 63 years"), 500)])
async def test_failures_inside_tell_no_secret(failure: Exception, status: int,
                                              caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        async with asking(ScriptedPredictor(failure=failure)) as (client, _):
            answer = await client.post("/v1/predict", json=PATIENT)
    assert answer.status_code == status and told(answer) and "secret" not in answer.text
    assert "secret" not in "".join(PlaceFormatter().format(record) for record in caplog.records)


async def test_log_and_metrics_name_routes_and_never_what_was_sent(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger=NAME):
        async with asking() as (client, _):
            await client.post("/v1/predict?name=somebody", json=PATIENT)
            await client.get("/v1/patients/somebody")
            await client.request("SOMEBODY", "/v1/model")
            await client.post("/v1/predict", json={"age": "somebody"})
            metrics = await client.get("/metrics")
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == NAME]
    assert [(line["method"], line["route"], line["status"]) for line in lines[:2]] == [
        ("POST", "/v1/predict", 200), ("GET", "other", 404)]
    assert "somebody" not in metrics.text.lower() and "somebody" not in caplog.text.lower()
    assert 'eag_rl_requests_total{method="POST",route="/v1/predict",status="422"} 1.0' in metrics.text
    assert 'eag_rl_answers_total{readable="yes"} 1.0' in metrics.text
    assert 'eag_rl_model_info{lineage="champion-0123456789ab",model="rl-0123456789ab"} 1.0' in metrics.text
    assert "process_resident_memory_bytes" in metrics.text


async def test_openapi_publishes_the_patient_with_units_and_ranges() -> None:
    async with asking(visits=9) as (client, _):
        published = (await client.get("/openapi.json")).json()
        form = (await client.get("/v1/schema")).json()
    post = published["paths"]["/v1/predict"]["post"]
    assert post["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/Patient")
    assert post["security"] == [{"token": []}] and {"401", "413", "422", "429", "503", "504"} <= set(post["responses"])
    assert published["components"]["schemas"]["Patient"] == form
    rate = form["properties"]["visits"]["items"]["properties"]["values"]["properties"]["Heart Rate"]
    assert (rate["minimum"], rate["maximum"], rate["x-unit"]) == (5.0, 350.0, "bpm")
    assert "docs" not in str(published["paths"])


async def test_model_and_examples_are_those_of_the_predictor() -> None:
    async with asking() as (client, _):
        assert (await client.get("/v1/model")).json() == ScriptedPredictor.card
        assert (await client.get("/v1/examples")).json()[0]["patient"] == PATIENT
