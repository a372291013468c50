"""A predictor for tests of the API alone: answers from a script, no model behind it."""

from __future__ import annotations

import asyncio
from typing import Any

from contracts.errors import EagRlError
from contracts.features import catalogue
from contracts.submission import Submission

TOKEN = "t" * 40
PATIENT = {"age": 63, "sex": "male", "visits": [
    {"day": 0, "values": {"Heart Rate": 88, "pH": 7.41, "Glucose": 180}},
    {"day": 1, "values": {"Heart Rate": 104, "pH": 7.30}},
    {"day": 3, "values": {"Heart Rate": 121, "pH": 7.21, "Glucose": 240}}]}
REASONING = "pH falls to 7.21 while heart rate rises. <script>document.title='owned'</script>"
ANSWER: dict[str, Any] = {
    "risk": 0.62, "token_risk": 0.6, "features": ["pH", "Heart Rate"], "reasoning": REASONING, "well_formed": True,
    "interval": {"low": 0.4, "high": 0.8, "level": 0.8, "answers": 8, "readable": 7, "method": "scripted"},
    "segments": [{"text": "pH", "kind": "expert", "feature": "pH"},
                 {"text": " falls to 7.21 while ", "kind": "plain", "feature": ""},
                 {"text": "heart rate", "kind": "other", "feature": "Heart Rate"},
                 {"text": REASONING[33:], "kind": "plain", "feature": ""}],
    "expert_risk": 0.55, "expert_features": ["pH", "Glucose"], "expert_attention": {"pH": 0.3, "Glucose": 0.2},
    "model": "rl-0123456789ab", "lineage": "champion-0123456789ab", "notice": "Research software."}


class ScriptedPredictor:
    """Implements api.predictor.Predictor.

    Args:
        seconds: how long a prediction takes.
        failure: raised by each prediction.
        refusal: raised by `open`.
    """

    names = catalogue("mimic_iv")
    card = {"model": ANSWER["model"], "lineage": ANSWER["lineage"], "study": "scripted", "base_model": "none",
            "outcome": "mortality"}

    def __init__(self, seconds: float = 0.0, failure: Exception | None = None,
                 refusal: EagRlError | None = None) -> None:
        self.seconds, self.failure, self.refusal = seconds, failure, refusal
        self.asked: list[Submission] = []
        self.finished, self.closed, self.living = 0, 0, True

    def examples(self) -> list[dict[str, Any]]:
        return [{"name": "Patient 1", "patient": PATIENT},
                {"name": "Patient 2", "patient": {**PATIENT, "age": 71, "sex": "female"}}]

    async def open(self) -> None:
        if self.refusal is not None:
            raise self.refusal

    async def close(self) -> None:
        self.closed += 1

    async def alive(self) -> bool:
        return self.living

    async def predict(self, patient: Submission) -> dict[str, Any]:
        self.asked.append(patient)
        await asyncio.sleep(self.seconds)
        if self.failure is not None:
            raise self.failure
        self.finished += 1
        return ANSWER
