"""One patient in; risk, reasoning and important features out, from the artifacts of a finished study.

In: JSON of one stay: {"age": years, "sex": "male" or "female", "visits": [{"day": days since the first record,
"values": {feature: number}}]}. What is not named was not measured.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import polars as pl

from contracts.errors import DataError, MissingFileError
from contracts.features import Catalogue, catalogue
from contracts.frames import READINGS, STAYS, top_features
from contracts.patients import Patient
from ehr.cohort import Cohort, read
from ehr.impute import carried_forward
from evaluation.verdicts import verdict
from lineage.artifact import Artifact
from prompts.evidence import cases, chosen_features, render
from prompts.templates import messages
from serving.adapters import AdapterShelf
from serving.client import Client
from serving.server import Server
from tasks.base import model_folder
from tasks.people import renderer_of
from tasks.servers import with_client
from tasks.session import Session

LARGEST_BYTES = 1 << 20
_ID = "patient"
_FORM = '{"age": 63, "sex": "male", "visits": [{"day": 0, "values": {"<feature>": 7.1}}]}'


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
        raise DataError(f"the patient is no JSON ({error})", f"of the form {_FORM}",
                        "`eag-rl predict --example` prints one") from error
    if not isinstance(values, dict):
        raise DataError(f"the patient is a {type(values).__name__}", f"of the form {_FORM}",
                        "`eag-rl predict --example` prints one")
    return values


def _read_file(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as stream:
            return _read(stream)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text ({error.reason})", f"of the form {_FORM}", "write it as UTF-8") from error


def _read(stream: TextIO) -> str:
    text = stream.read(LARGEST_BYTES + 1)
    if len(text) > LARGEST_BYTES:
        raise DataError(f"the patient is larger than {LARGEST_BYTES} characters", "one stay takes a few thousand",
                        "give one stay at a time")
    return text


def example_patient(session: Session) -> dict[str, Any]:
    """An invented patient in the study's feature catalogue: reference values, some measured again on day 2."""
    names = _catalogue(_cohort(session))
    ordinary = {item.name: round(sum(item.normal) / 2, 3) for item in names if item.normal}
    return {"age": 63, "sex": "male", "visits": [{"day": 0, "values": ordinary},
                                                 {"day": 2, "values": dict(list(ordinary.items())[:8])}]}


def predict_patient(session: Session, patient: Mapping[str, Any]) -> dict[str, Any]:
    """Asks the study's last policy and its expert about one patient.

    Returns:
        risk (stated; None where the answer holds no number), token_risk, expert_risk, features, expert_features,
        reasoning, well_formed, model (id of the adapter's artifact).

    Raises:
        DataError: the patient is not of the form described above.
        ArtifactError: the study is not finished in this workspace.
    """
    cohort, config = _cohort(session), session.config
    names = _catalogue(cohort)
    stays, filled = _frames(patient, names)
    evidence = render(cases(stays, filled, names)[0], names, config.prompts,
                      chosen_features(cohort.stays, cohort.visits, names, config.prompts))
    expert_risk, attention = _expert(session, stays, filled)
    expected = top_features(attention, config.prompts.expert_features, {_ID: evidence.shown})[_ID]
    one = Patient(_ID, "test", 0, evidence.text, evidence.shown, tuple(expected))
    adapter = _latest(session, "rl")
    answer = _ask(session, one, adapter)
    return {"risk": answer["probability"] if answer["parsed"] else None,
            "token_risk": answer["token_probability"] if answer["parsed"] else None, "expert_risk": expert_risk,
            "features": answer["features"], "expert_features": expected, "reasoning": answer["text"],
            "well_formed": answer["well_formed"], "model": adapter.id}


def _ask(session: Session, patient: Patient, adapter: Artifact) -> dict[str, Any]:
    config, model = session.config, model_folder(session.store.folder(_latest(session, "base")))
    render_chat, folder = renderer_of(model), session.store.folder(adapter) / "adapter"

    async def run(client: Client, shelf: AdapterShelf, _server: Server) -> dict[str, Any]:
        prompt = render_chat(messages(patient.evidence, "decomposition", config.cohort.outcome,
                                      config.prompts.expert_features))
        found = await client.generate(prompt, model=await shelf.load(folder), top_logprobs=20, seed=config.study.seed,
                                      max_tokens=config.evaluation.completion_tokens,
                                      temperature=config.evaluation.temperature)
        return verdict("stage1+2", "decomposition", patient, found[0])

    return with_client(session, model, run)


def _expert(session: Session, stays: pl.DataFrame, filled: pl.DataFrame) -> tuple[float, pl.DataFrame]:
    """The expert's risk and its attention as a READINGS frame."""
    from models.expert.loading import load_expert
    from models.expert.loading import read as read_expert

    expert = load_expert(session.store.folder(_latest(session, "expert")))
    risk, attention = read_expert(expert, expert.batch(stays, filled))
    tokens = catalogue(expert.catalogue).tokens
    frame = pl.DataFrame({"stay_id": [_ID] * len(tokens), "risk": [float(risk[0])] * len(tokens), "feature": tokens,
                          "attention": attention[0].double().tolist()})
    ranked = frame.with_columns(pl.col("attention").rank("ordinal", descending=True).cast(pl.Int32).alias("rank"))
    return float(risk[0]), READINGS.check(ranked.select(list(READINGS.dtypes)))


def _frames(patient: Mapping[str, Any], names: Catalogue) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(stays, filled visits) of the one patient; the dates are inventions, only their distances are read."""
    age, sex = _number(patient.get("age"), "age", 0, 120), str(patient.get("sex", "")).lower()
    if sex not in ("male", "female"):
        raise DataError(f"sex = {patient.get('sex')!r}", 'sex is "male" or "female"', "correct the patient's JSON")
    visits = patient.get("visits")
    if not isinstance(visits, list) or not visits:
        raise DataError(f"visits = {visits!r}", "a list of at least one visit", f"write {_FORM}")
    rows = sorted((_visit(visit, names) for visit in visits), key=lambda row: row["day"])
    moment = datetime(2000, 1, 1)
    stays = pl.DataFrame({"stay_id": _ID, "patient_id": _ID, "age": age, "sex": sex, "admitted_at": moment,
                          "discharged_at": moment, "label": 0, "split": "test"}, schema=dict(STAYS.dtypes))
    table = [{"stay_id": _ID, "visit": index, "is_summary": False, **row} for index, row in enumerate(rows)]
    schema = {"stay_id": pl.String, "visit": pl.Int32, "day": pl.Float64, "is_summary": pl.Boolean,
              **dict.fromkeys(names.names, pl.Float64)}
    return stays, carried_forward(pl.DataFrame(table, schema=schema), names.names)


def _visit(visit: Any, names: Catalogue) -> dict[str, Any]:
    if not isinstance(visit, Mapping) or not isinstance(visit.get("values"), Mapping):
        raise DataError(f"visit {visit!r}", "a visit has `day` and `values`", f"write {_FORM}")
    row: dict[str, Any] = {"day": _number(visit.get("day"), "day", 0, 10_000), **dict.fromkeys(names.names)}
    for name, value in visit["values"].items():
        if name not in row or name == "day":
            raise DataError(f"unknown feature {name!r}", f"features of {names.name}: {', '.join(names.names)}",
                            "spell it as the catalogue does")
        row[name] = _number(value, name, names[name].low, names[name].high)
    return row


def _number(value: Any, name: str, low: float, high: float) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
    if not good or not low <= value <= high:
        raise DataError(f"{name} = {repr(value)[:40]}", f"a number from {low:g} to {high:g}",
                        "correct the patient's JSON")
    return float(value)


def _cohort(session: Session) -> Cohort:
    return read(session.store.folder(_latest(session, "cohort")))


def _catalogue(cohort: Cohort) -> Catalogue:
    return catalogue(cohort.meta["catalogue"])


def _latest(session: Session, stage: str) -> Artifact:
    return session.store.latest(session.config.study.name, stage)
