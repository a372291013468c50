"""What the API needs of a study: the Protocol, and its answer as published in OpenAPI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from pydantic import BaseModel, Field

from contracts.features import Catalogue
from contracts.submission import Submission


class Interval(BaseModel):
    """How far the stated risk moves when the policy is asked again. Not a confidence interval of the true risk."""

    low: float
    high: float
    level: float = Field(description="Share of the sampled risks between low and high.")
    answers: int = Field(description="Answers sampled.")
    readable: int = Field(description="Those that state a risk; with fewer than three there is no interval.")
    method: str


class Segment(BaseModel):
    """A stretch of the reasoning; the texts of all concatenate to it."""

    text: str
    kind: Literal["plain", "expert", "other"] = Field(description="Plain text, a mention of a feature that the expert "
                                                                  "attends to, or of another one.")
    feature: str


class Prediction(BaseModel):
    """The answer for one patient."""

    risk: float | None = Field(ge=0, le=1, description="Probability of the outcome as the policy states it (greedy "
                                                       "answer); null where the answer holds no number.")
    token_risk: float | None = Field(ge=0, le=1, description="The same read from the probabilities of its digits.")
    interval: Interval | None = Field(description="None where too few sampled answers state a risk.")
    features: list[str] = Field(description="Important features by the policy, canonical names.")
    reasoning: str
    segments: list[Segment]
    well_formed: bool = Field(description="Whether the answer keeps the grammar.")
    expert_risk: float = Field(ge=0, le=1, description="Probability of the outcome by the expert model.")
    expert_features: list[str] = Field(description="Features that the expert attends to most, largest first.")
    expert_attention: dict[str, float] = Field(description="Their share of the expert's attention.")
    model: str = Field(description="Id of the policy's artifact: `eag-rl lineage ID` walks back from it.")
    lineage: str = Field(description="Id over policy, base model, expert and cohort; parts in /v1/model.")
    notice: str


class Predictor(Protocol):
    """A study that answers."""

    @property
    def names(self) -> Catalogue:
        """The features that a patient may have."""
        ...

    @property
    def card(self) -> Mapping[str, Any]:
        """What may be said of the model; holds `model` and `lineage`, no path, no row of a patient."""
        ...

    def examples(self) -> list[dict[str, Any]]:
        """Patients to try: {"name", "patient"}; invented or generated ones only."""
        ...

    async def open(self) -> None:
        """Makes ready to answer; may take minutes.

        Raises:
            EagRlError: it cannot.
        """
        ...

    async def close(self) -> None:
        """Frees what `open` took; safe at any time."""
        ...

    async def alive(self) -> bool:
        """Whether predictions would be answered now."""
        ...

    async def predict(self, patient: Submission) -> dict[str, Any]:
        """The fields of `Prediction`.

        Raises:
            EagRlError: the patient cannot be asked about, or the language model does not answer.
        """
        ...
