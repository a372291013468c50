"""One patient in; risk, reasoning and important features out, from the artifacts of a finished study.

In: JSON of one patient (contracts.submission). Out: what `tasks.forecast` answers, as plain values.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from contracts.errors import DataError, MissingFileError
from contracts.features import Catalogue, catalogue
from contracts.submission import FORM, submission
from ehr.cohort import read
from serving.adapters import AdapterShelf
from serving.client import Client
from serving.server import Server
from tasks.champion import held_champion
from tasks.forecast import Forecaster
from tasks.servers import with_client
from tasks.session import Session

LARGEST_BYTES = 1 << 20


def read_patient(path: Path | None) -> dict[str, Any]:
    """The JSON of one patient, from a file, or from standard input ("-" or none).

    Raises:
        MissingFileError: there is no such file.
        DataError: it is no JSON object.
    """
    if path is not None and str(path) != "-" and not path.is_file():
        raise MissingFileError(f"no file {path}", "a JSON file of one patient", "`eag-rl predict --example` prints one")
    text = _read(sys.stdin) if path is None or str(path) == "-" else _read_file(path)
    try:
        values = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"the patient is no JSON ({error})", f"of the form {FORM}",
                        "`eag-rl predict --example` prints one") from error
    if not isinstance(values, dict):
        raise DataError(f"the patient is a {type(values).__name__}", f"of the form {FORM}",
                        "`eag-rl predict --example` prints one")
    return values


def _read_file(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as stream:
            return _read(stream)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text ({error.reason})", f"of the form {FORM}", "write it as UTF-8") from error


def _read(stream: TextIO) -> str:
    text = stream.read(LARGEST_BYTES + 1)
    if len(text) > LARGEST_BYTES:
        raise DataError(f"the patient is larger than {LARGEST_BYTES} characters", "one stay takes a few thousand",
                        "give one stay at a time")
    return text


def example_patient(session: Session) -> dict[str, Any]:
    """An invented patient in the feature catalogue of the study's cohort."""
    cohort = session.store.latest(session.config.study.name, "cohort")
    return invented(catalogue(read(session.store.folder(cohort)).meta["catalogue"]))


def invented(names: Catalogue) -> dict[str, Any]:
    """A patient who does not exist: reference values, some measured again on day 2."""
    ordinary = {item.name: round(sum(item.normal) / 2, 3) for item in names if item.normal}
    return {"age": 63, "sex": "male", "visits": [{"day": 0, "values": ordinary},
                                                 {"day": 2, "values": dict(list(ordinary.items())[:8])}]}


def predict_patient(session: Session, patient: Mapping[str, Any]) -> dict[str, Any]:
    """Asks the study's last policy and its expert about one patient; see `Forecaster.forecast` for the result.

    Raises:
        DataError: the patient breaks a rule of contracts.submission.
        ArtifactError: the study is not finished in this workspace.
    """
    with held_champion(session) as champion:
        forecaster = Forecaster(session, champion)
        case = forecaster.case(submission(patient, forecaster.names, session.config.api.visits))

        async def run(client: Client, shelf: AdapterShelf, _server: Server) -> dict[str, Any]:
            return await forecaster.forecast(case, client.generate, await shelf.load(forecaster.adapter))

        return with_client(session, forecaster.model, run)
