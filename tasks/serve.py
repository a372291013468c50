"""The champion of a study as the API's predictor: its own vLLM with the adapter, the expert beside it."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any

import polars as pl

from api.app import Service
from api.listen import bound, run
from api.tokens import load_tokens
from contracts.errors import ServerError
from contracts.features import Catalogue
from contracts.submission import Submission
from ehr.cohort import Cohort
from serving.adapters import AdapterShelf
from serving.client import Client
from serving.server import Server, connect, open_server
from tasks.champion import Champion, card_of
from tasks.forecast import Forecaster
from tasks.predict import invented
from tasks.session import Session

EXAMPLES = 12


class ServedStudy:
    """A champion that answers over HTTP (api.predictor.Predictor); its server is started by `open`, ended by `close`.

    Raises:
        ArtifactError, ModelError: a part of the champion is missing or altered.
    """

    def __init__(self, session: Session, champion: Champion) -> None:
        config = session.config
        self.session = session
        self.forecaster = Forecaster(session, champion)
        self.server: Server = open_server(config.serving, model=self.forecaster.model, dtype=config.policy.dtype,
                                          workdir=session.workspace / "serve", lora_rank=config.policy.lora.rank,
                                          seed=config.study.seed)
        self._client: Client | None = None
        self._model = ""

    @property
    def names(self) -> Catalogue:
        """The catalogue of the champion's cohort."""
        return self.forecaster.names

    @cached_property
    def card(self) -> Mapping[str, Any]:
        """What may be said of the champion."""
        return card_of(self.session, self.forecaster.champion)

    def examples(self) -> list[dict[str, Any]]:
        """An invented patient, and test stays where the cohort is a generated one; never a real patient."""
        own = generated(self.forecaster.cohort) if self.card["cohort_source"] == "synthetic" else []
        return [{"name": "Invented patient with reference values", "patient": invented(self.names)}, *own]

    async def open(self) -> None:
        """Starts the server, about a minute on a CPU, and loads the adapter.

        Raises:
            ServerError, ModelError: it does not come up, or does not apply the adapter.
        """
        await asyncio.to_thread(self.server.start)
        self._client = connect(self.server)
        # While the client lives, the shelf restarts a server that died and loads the adapter again.
        self._model = await AdapterShelf(self._client, self.server).load(self.forecaster.adapter)

    async def close(self) -> None:
        """Ends the server, also one that is still starting."""
        if self._client is not None:
            await self._client.close()
        await asyncio.to_thread(self.stop)

    def stop(self) -> None:
        """Ends the server's processes; safe at any time, any number of times."""
        ending, told = threading.Thread(target=self.server.stop), None
        ending.start()
        while ending.is_alive():
            starting = getattr(self.server, "pid", None)
            if starting is not None and starting != told:  # a start that waits for health makes `stop` wait too
                with suppress(ProcessLookupError):
                    os.kill(starting, signal.SIGTERM)
                told = starting
            ending.join(0.1)

    async def alive(self) -> bool:
        """Whether the server answers its health check."""
        return await asyncio.to_thread(self.server.healthy)

    async def predict(self, patient: Submission) -> dict[str, Any]:
        """See `Forecaster.forecast`.

        Raises:
            PromptTooLongError, ServerError: from the language model's door.
        """
        if self._client is None or not self._model:
            raise ServerError("the model server was not started", "open() comes first", "wait for /readyz")
        case = await asyncio.to_thread(self.forecaster.case, patient)
        return await self.forecaster.forecast(case, self._client.generate, self._model)


def serve(session: Session, champion: Champion, tell: Callable[[str], None]) -> None:
    """Serves a champion until a signal.

    Raises:
        ConfigError, ServerError: the address, the tokens or the model server are not as they should be.
        ArtifactError: the champion is not in the workspace.
    """
    section = session.config.api
    with bound(section) as listener:
        tokens, source = load_tokens(session.workspace / "serve" / "token")
        tell(f"token: {source}")
        study = ServedStudy(session, champion)
        tell(f"champion {champion.policy.id}, lineage {champion.lineage}; the model takes about a minute to load")
        try:
            run(Service(study, section, tokens), listener, tell)
        finally:
            study.stop()


def generated(cohort: Cohort) -> list[dict[str, Any]]:
    """The first test stays of a generated cohort in the form of a submission, without identifiers."""
    stays = cohort.stays.filter(pl.col("split") == "test").sort("stay_id").head(EXAMPLES)
    visits = cohort.visits.sort("stay_id", "visit").partition_by("stay_id", as_dict=True)
    return [{"name": f"Generated patient {number}: {row['age']:.0f} years, {row['sex']}",
             "patient": {"age": round(row["age"], 1), "sex": row["sex"],
                         "visits": [_visit(visit) for visit in visits[(row["stay_id"],)].iter_rows(named=True)]}}
            for number, row in enumerate(stays.iter_rows(named=True), 1)]


def _visit(row: Mapping[str, Any]) -> dict[str, Any]:
    fixed = ("stay_id", "visit", "day", "is_summary")
    summary = {"summary": True} if row["is_summary"] else {}
    values = {name: value for name, value in row.items() if name not in fixed and value is not None}
    return {"day": row["day"], **summary, "values": values}
