"""One patient through the champion: evidence and the expert's reading first, then the policy's answers, then a result.

The risk is the number stated in the greedy answer, as in the study's tables. Its interval comes from `api.samples` more
answers to the same prompt, sampled at `api.sample_temperature`: the quantiles (1 - level) / 2 and (1 + level) / 2 of
the risks that they state, linearly interpolated. It says how much the policy's own answer moves when it is asked again;
it holds neither the uncertainty of its training nor that of the cohort.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from configs.schema import Api
from contracts.features import catalogue
from contracts.frames import STAYS, top_features
from contracts.generation import Generate, Generation
from contracts.patients import Patient
from contracts.submission import Submission
from ehr.aggregate import window
from ehr.cohort import Cohort, read
from ehr.impute import carried_forward
from evaluation.case_study import mark
from evaluation.verdicts import verdict
from prompts.evidence import cases, chosen_features, render
from prompts.mentions import MentionFinder
from prompts.templates import messages
from prompts.token_risk import TOP_LOGPROBS
from tasks.base import model_folder
from tasks.champion import STYLE, Champion
from tasks.people import renderer_of
from tasks.session import Session

_ID = "patient"
_BEGAN = date(2000, 1, 1)  # dates are inventions: only their distances are read
FEWEST_RISKS = 3  # with fewer readable samples there is no interval
NOTICE = "Research software. Not a medical device; no output may guide the care of a patient."


@dataclass(frozen=True)
class Case:
    """A patient ready to be asked about.

    Attributes:
        patient: in words. prompt: token ids. risk: the expert's.
        attention: of the K features that the expert attends to most among those shown, largest first.
    """

    patient: Patient
    prompt: list[int]
    risk: float
    attention: dict[str, float]


class Forecaster:
    """All of a champion but the served language model; made once, asked many times, from any thread.

    Raises:
        ArtifactError, ModelError: a part of the champion is missing or altered.
    """

    def __init__(self, session: Session, champion: Champion) -> None:
        from models.expert.loading import load_expert

        store, self.config = session.store, session.config
        self.champion = champion
        self.cohort: Cohort = read(store.folder(champion.cohort))
        self.names = catalogue(self.cohort.meta["catalogue"])
        self.model = model_folder(store.folder(champion.base), store.workspace)
        self.adapter = store.folder(champion.policy) / "adapter"
        self._expert = load_expert(store.folder(champion.expert))
        self._render = renderer_of(self.model)
        self._mentions = MentionFinder(self.names)
        self._shown = chosen_features(self.cohort.stays, self.cohort.visits, self.names, self.config.prompts)

    def case(self, one: Submission) -> Case:
        """Evidence, prompt and the expert's reading of a patient; takes milliseconds of a core."""
        stays, filled = self._frames(one)
        prompts, outcome = self.config.prompts, self.config.cohort.outcome
        evidence = render(cases(stays, filled, self.names)[0], self.names, prompts, self._shown)
        risk, reading = self._reading(stays, filled)
        expected = top_features(reading, prompts.expert_features, {_ID: evidence.shown})[_ID]
        weights = dict(zip(reading["feature"], reading["attention"], strict=True))
        prompt = self._render(messages(evidence.text, STYLE, outcome, prompts.expert_features))
        patient = Patient(_ID, "test", 0, evidence.text, evidence.shown, tuple(expected))
        return Case(patient, prompt, risk, {name: float(weights[name]) for name in expected})

    async def forecast(self, case: Case, generate: Generate, model: str) -> dict[str, Any]:
        """Asks the policy, once greedily as in the study's tables and `api.samples` times for the interval.

        Args:
            generate: the door to the language model. model: name of the adapter there.

        Returns:
            risk, token_risk (None where the answer holds no number), interval (None where too few do), features,
            reasoning, segments, well_formed, expert_risk, expert_features, expert_attention, model, lineage, notice.

        Raises:
            PromptTooLongError, ServerError: from the door.
        """
        section, api, seed = self.config.evaluation, self.config.api, self.config.study.seed

        async def ask(count: int, temperature: float, top: int) -> list[Generation]:
            return await generate(case.prompt, model=model, max_tokens=section.completion_tokens, seed=seed,
                                  temperature=temperature, count=count, top_logprobs=top)

        async def sampled() -> list[Generation]:
            return await ask(api.samples, api.sample_temperature, 0) if api.samples else []

        point, others = await asyncio.gather(ask(1, section.temperature, TOP_LOGPROBS), sampled())
        return self._result(case, point[0], others)

    def _result(self, case: Case, answer: Generation, others: Sequence[Generation]) -> dict[str, Any]:
        row = verdict("stage1+2", STYLE, case.patient, answer)
        rows = [verdict("stage1+2", STYLE, case.patient, one) for one in others]
        expected = case.patient.expert_features
        segments = mark(row["text"], self._mentions, expected)
        return {"risk": row["probability"] if row["parsed"] else None,
                "token_risk": row["token_probability"] if row["parsed"] else None,
                "interval": interval([one["probability"] for one in rows if one["parsed"]], len(rows), self.config.api),
                "features": list(self._mentions.canonical_names(row["features"])), "reasoning": row["text"],
                "segments": [{"text": one.text, "kind": one.kind, "feature": one.feature} for one in segments],
                "well_formed": row["well_formed"], "expert_risk": case.risk, "expert_features": list(expected),
                "expert_attention": case.attention, "model": self.champion.policy.id,
                "lineage": self.champion.lineage, "notice": NOTICE}

    def _frames(self, one: Submission) -> tuple[pl.DataFrame, pl.DataFrame]:
        """(stays, filled visits) of the one patient, windowed and carried forward as the cohort's are."""
        moment = datetime.combine(_BEGAN, datetime.min.time())
        stays = pl.DataFrame({"stay_id": _ID, "patient_id": _ID, "age": one.age, "sex": one.sex, "admitted_at": moment,
                              "discharged_at": moment, "label": 0, "split": "test"}, schema=dict(STAYS.dtypes))
        return stays, carried_forward(self._visits(one), self.names.names)

    def _visits(self, one: Submission) -> pl.DataFrame:
        columns = dict.fromkeys(self.names.names, pl.Float64)
        if one.summary:  # windowed by who sent it
            rows = [{"stay_id": _ID, "visit": place, "day": day, "is_summary": place == 0, **values}
                    for place, (day, values) in enumerate(zip(one.days, one.values, strict=True))]
            return pl.DataFrame(rows, schema={"stay_id": pl.String, "visit": pl.Int32, "day": pl.Float64,
                                              "is_summary": pl.Boolean, **columns})
        rows = [{"stay_id": _ID, "date": _BEGAN + timedelta(days=day), **values}
                for day, values in zip(one.days, one.values, strict=True)]
        days = pl.DataFrame(rows, schema={"stay_id": pl.String, "date": pl.Date, **columns})
        return window(days, self.names, int(self.cohort.meta["max_days"]))

    def _reading(self, stays: pl.DataFrame, filled: pl.DataFrame) -> tuple[float, pl.DataFrame]:
        """The expert's risk and its attention as a READINGS frame."""
        from models.expert.attention import readings_of
        from models.expert.batches import Stays
        from models.expert.loading import read as read_expert

        expert = self._expert
        batch = expert.batch(stays, filled)
        risk, attention = read_expert(expert, batch)
        one = Stays(batch, (_ID,), ("test",), expert.features, expert.catalogue, expert.scaling)
        return float(risk[0]), readings_of(one, risk, attention)


def interval(risks: Sequence[float], answers: int, api: Api) -> dict[str, Any] | None:
    """Quantiles of the risks that sampled answers state (linear interpolation), None with fewer than FEWEST_RISKS.

    Args:
        risks: of the readable ones among `answers` sampled answers.
    """
    if len(risks) < FEWEST_RISKS:
        return None
    low, high = np.quantile(np.array(risks), [(1 - api.level) / 2, (1 + api.level) / 2])
    return {"low": float(low), "high": float(high), "level": api.level, "answers": answers, "readable": len(risks),
            "method": f"quantiles of the risks stated in answers sampled at temperature {api.sample_temperature:g}"}
