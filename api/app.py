"""The routes of the API. In: a predictor, the settings, the tokens; out: an ASGI app with its door."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from api.door import FILES, Door
from api.limits import Places
from api.logs import NAME
from api.metrics import CONTENT_TYPE, Metrics
from api.predictor import Prediction, Predictor
from api.probe import Probe
from api.problems import PatientError, Problems, RefusedError, answer_to, unforeseen
from api.tokens import Tokens
from configs.schema import Api
from contracts import submission
from contracts.errors import EagRlError

PAGE = Path(__file__).parent / "page"
REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problems, "description": "No token, or a wrong one."},
    413: {"model": Problems, "description": "Larger than api.body_kib."},
    422: {"model": Problems, "description": "The patient breaks a rule; every fault with value, rule and next step."},
    429: {"model": Problems, "description": "Too many requests of this token; see Retry-After."},
    503: {"model": Problems, "description": "Not ready yet, too many predictions at once, or the model is down."},
    504: {"model": Problems, "description": "Longer than api.request_seconds."}}


@dataclass
class Service:
    """A predictor behind HTTP.

    Attributes:
        stop: called when the predictor cannot be opened; `failure` then holds why.
        opened: set once predictions are answered.
    """

    predictor: Predictor
    section: Api
    tokens: Tokens
    metrics: Metrics = field(default_factory=Metrics)
    stop: Callable[[], None] = lambda: None
    failure: BaseException | None = None
    opened: bool = False

    def __post_init__(self) -> None:
        self.places = Places(self.section.queue)
        self.alive = Probe(self.predictor.alive)
        self.metrics.running.set_function(lambda: self.places.taken)
        self.metrics.ready.set_function(lambda: float(self.opened))

    @property
    def asgi(self) -> Door:
        """The app behind its door."""
        return Door(make_app(self), self.section, self.tokens, self.metrics, self.section.names)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Opens the predictor beside the requests that already come in; closes it at the end, however it ends."""
        opening = asyncio.create_task(self._open())
        opening.add_done_callback(self._note)
        try:
            yield
        finally:
            opening.cancel()
            with suppress(asyncio.CancelledError, EagRlError):
                await opening
            self.opened = False
            await self.predictor.close()

    async def predict(self, body: bytes) -> dict[str, Any]:
        """Reads a patient and asks the predictor.

        Raises:
            RefusedError: not ready or no place free (503), no JSON (422), or too slow (504).
            PatientError: the patient breaks a rule.
        """
        if not self.opened:
            raise RefusedError(503, "the model is still loading", "/readyz answers 200", "try again in a moment",
                               {"Retry-After": "5"})
        patient, names = _json(body), self.predictor.names
        faults = submission.findings(patient, names, self.section.visits)
        if faults:
            raise PatientError(faults)
        with self.places.one():
            try:
                async with asyncio.timeout(self.section.request_seconds):
                    found = await self.predictor.predict(submission.submission(patient, names, self.section.visits))
            except TimeoutError as error:
                raise RefusedError(504, f"no answer within {self.section.request_seconds:g} s",
                                   "an answer comes within api.request_seconds",
                                   "try again when less is asked, or raise it") from error
        self.metrics.answers.labels("yes" if found["risk"] is not None else "no").inc()
        return found

    async def _open(self) -> None:
        await self.predictor.open()
        card = self.predictor.card
        self.metrics.model.labels(card["model"], card["lineage"]).set(1)
        self.opened = True

    def _note(self, opening: asyncio.Task[None]) -> None:
        if not opening.cancelled() and (error := opening.exception()) is not None:
            self.failure = error
            self.stop()


def make_app(service: Service) -> FastAPI:
    """The routes, without the door; documentation pages are off since they load scripts from elsewhere."""
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(title="EAG-RL", version="1", lifespan=lifespan, docs_url=None, redoc_url=None,
                  description="One patient in; risk, important features and reasoning out. Research software, not a "
                              "medical device. All of /v1 and /metrics want `Authorization: Bearer <token>`.")
    _add_predictions(app, service)
    _add_facts(app, service)
    _add_health(app, service)
    _add_errors(app)
    app.mount(FILES.rstrip("/"), StaticFiles(directory=PAGE), name="page")
    _publish_schema(app, service)
    return app


def _add_predictions(app: FastAPI, service: Service) -> None:
    @app.post("/v1/predict", response_model=Prediction, responses=REFUSALS, summary="Risk and reasoning of one patient")
    async def predict(request: Request) -> Any:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise RefusedError(415, "the request is no JSON", "Content-Type: application/json", "set this header")
        return await service.predict(await _body(request, service.section.request_seconds))


def _add_facts(app: FastAPI, service: Service) -> None:
    @app.get("/v1/schema", summary="The form of a patient, as JSON Schema")
    async def schema() -> dict[str, Any]:
        return submission.schema(service.predictor.names, service.section.visits)

    @app.get("/v1/model", summary="What answers, and the artifacts it is made of")
    async def model() -> dict[str, Any]:
        return dict(service.predictor.card)

    @app.get("/v1/examples", summary="Patients to try: invented, or of a generated cohort")
    async def examples() -> list[dict[str, Any]]:
        return service.predictor.examples()

    @app.get("/metrics", summary="Prometheus metrics")
    async def metrics() -> Response:
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(PAGE / "index.html", media_type="text/html; charset=utf-8")


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", summary="200 while the process answers")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", summary="200 when predictions are answered, else 503")
    async def readyz() -> JSONResponse:
        if service.opened and await service.alive():
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not answering" if service.opened else "loading"}, 503)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(EagRlError)
    async def known(_request: Request, error: EagRlError) -> Response:
        answer = answer_to(error)
        if answer.status_code >= 500 and not isinstance(error, RefusedError):
            logging.getLogger(NAME).error("%s error", error.title, exc_info=error)
        return answer

    @app.exception_handler(HTTPException)
    async def unknown_place(_request: Request, error: HTTPException) -> Response:
        return answer_to(RefusedError(error.status_code, "no such path or method", "the paths of /openapi.json",
                                      "correct the address", error.headers))

    @app.exception_handler(Exception)
    async def unexpected(_request: Request, _error: Exception) -> Response:
        return unforeseen()


def _publish_schema(app: FastAPI, service: Service) -> None:
    """Puts the form of a patient and the token into OpenAPI: bodies are read by our own rules, not FastAPI's."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            known = made()
            form = submission.schema(service.predictor.names, service.section.visits)
            known["components"] |= {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}}
            known["components"]["schemas"]["Patient"] = form
            known["paths"]["/v1/predict"]["post"]["requestBody"] = {"required": True, "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/Patient"}}}}
            for path, methods in known["paths"].items():
                for told in methods.values() if path.startswith(("/v1/", "/metrics")) else ():
                    told["security"] = [{"token": []}]
        return dict(app.openapi_schema or {})

    app.openapi = openapi  # type: ignore[method-assign]


async def _body(request: Request, seconds: float) -> bytes:
    """The whole body, if it comes in time."""
    try:
        async with asyncio.timeout(seconds):
            return await request.body()
    except TimeoutError as error:
        raise RefusedError(408, f"the request did not come within {seconds:g} s", "at most api.request_seconds",
                           "send it at once") from error
    except ClientDisconnect as error:  # nobody reads the answer; log and metrics count it as the client's
        raise RefusedError(400, "the connection was closed before the whole request came", "the whole body comes",
                           "send it again") from error


def _json(body: bytes) -> Any:
    """The body as JSON; NaN, infinity and deep nesting are refused."""
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise RefusedError(422, f"the patient is no JSON ({error})",
                           f"of the form {submission.FORM}; no NaN, no Infinity",
                           "correct the JSON; GET /v1/schema has its form") from error
